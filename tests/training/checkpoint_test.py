import contextlib
import json
import resource
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from durian_jax.distributed import sharding
from durian_jax.training.checkpoint import Checkpoints, config_difference
from durian_jax.training.state import init_state
from durian_jax.weights import loading
from input_pipeline.errors import InputError

CONFIG = {"seed": 0, "steps": 10, "model": {"heads": 4, "channels": (8, 16)}, "data": {"path": "a"}}
DATA_SET = {"fingerprint": "1a2b3c4d5e6f7788", "records": 120, "schema": 1}
META = {"config": CONFIG, "data_set": DATA_SET}
PROGRESS = {"loader": {"batch": 5, "corrupt": [2]}, "interval": [{"loss": 0.1 + 0.2}]}
OPTIMIZER = optax.adam(0.1)


def _state(**kernels):
    params = {
        "denoiser": {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": jnp.ones(3), **kernels},
        "autoencoder": {"kernel": jnp.full((2, 2), 7.0)},
    }
    place = sharding.replicated(sharding.make_mesh())
    fresh = init_state(jax.device_put(params, place), ("denoiser/",), (), OPTIMIZER)
    fresh = fresh.replace(
        step=jnp.int32(5),
        ema=jax.tree.map(lambda x: x + 0.5, fresh.ema),
        skipped=jnp.int32([3, 1]),
    )
    return jax.device_put(fresh, place)


@pytest.fixture
def state():
    return _state()


@pytest.fixture
def saved(state, tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state, PROGRESS, META)
    checkpoints.close()
    return tmp_path


def _layout(state):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def _steps(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())


def test_state_and_progress_come_back_exactly(saved, state):
    found, progress = Checkpoints(saved).restore(_layout(state))
    assert progress == PROGRESS
    assert jax.tree.structure(found) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, found, state)
    assert found.skipped.tolist() == [3, 1]


def test_averaged_weights_replace_the_trained_ones_only(saved):
    averaged, meta = loading.load(saved)
    raw, _ = loading.load(saved, ema=False)
    np.testing.assert_array_equal(averaged["denoiser"]["kernel"], raw["denoiser"]["kernel"] + 0.5)
    np.testing.assert_array_equal(averaged["autoencoder"]["kernel"], 7.0)
    assert meta["config"]["model"]["heads"] == 4


@pytest.mark.parametrize(
    "keep,keep_every,left", [(2, 0, [7, 8]), (1, 3, [3, 6, 8]), (3, 4, [4, 6, 7, 8])]
)
def test_the_newest_checkpoints_are_kept_and_some_for_ever(keep, keep_every, left, state, tmp_path):
    checkpoints = Checkpoints(tmp_path, keep, keep_every)
    for step in range(1, 9):
        checkpoints.save(state.replace(step=jnp.int32(step)), {}, META)
    checkpoints.close()
    assert _steps(tmp_path) == left
    assert Checkpoints(tmp_path).latest_step == 8


def test_a_run_keeps_at_least_one_checkpoint(tmp_path):
    with pytest.raises(InputError, match=r"save\.keep is 0.*at least 1"):
        Checkpoints(tmp_path, keep=0)


def test_saving_sees_none_of_the_steps_that_follow(tmp_path):
    # The buffers of the state are donated to the next step while the save is under way.
    step = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    state = _state(wide=jnp.zeros((512, 1024)))
    checkpoints = Checkpoints(tmp_path, keep=4)
    for _ in range(4):
        checkpoints.save(state, {}, META)
        for _ in range(5):
            state = step(state)
    checkpoints.close()
    assert _steps(tmp_path) == [5, 10, 15, 20]
    layout = _layout(state)
    for number in (20, 15, 10, 5):
        found, _ = Checkpoints(tmp_path).restore(layout)
        np.testing.assert_array_equal(found.trained["denoiser"]["wide"], number - 5)
        np.testing.assert_array_equal(found.opt_state[0].mu["denoiser"]["wide"], number - 5)
        shutil.rmtree(tmp_path / "checkpoints" / str(number))


def test_a_run_of_another_config_is_refused(saved):
    checkpoints = Checkpoints(saved)
    moved = {**CONFIG, "steps": 99, "data": {"path": "b"}}
    checkpoints.refuse_other({**META, "config": moved})
    other = {**CONFIG, "model": {"heads": 8, "channels": (8, 16)}}
    with pytest.raises(InputError, match=r"model.heads: saved 4, now 8"):
        checkpoints.refuse_other({**META, "config": other})


def test_a_run_on_another_data_set_or_schema_is_refused(saved):
    message = (
        r"data set: saved 1a2b3c4d5e6f7788 \(120 records, schema 1\), "
        r"now ffff \(121 records, schema 2\)"
    )
    other = {"fingerprint": "ffff", "records": 121, "schema": 2}
    with pytest.raises(InputError, match=message):
        Checkpoints(saved).refuse_other({**META, "data_set": other})


def test_a_checkpoint_of_before_is_refused_in_one_line(saved):
    meta = saved / "checkpoints" / "5" / "meta" / "metadata"
    meta.write_text(json.dumps({"config": CONFIG}))
    with pytest.raises(
        InputError, match=r"5: checkpoint version 1, this code reads 2: .*init_from"
    ):
        Checkpoints(saved).refuse_other(META)
    assert loading.load(saved)[1] == {"config": json.loads(json.dumps(CONFIG))}


def test_another_model_is_refused_by_the_names_of_its_parameters(saved):
    def refused(message, **kernels):
        with pytest.raises(InputError, match=message):
            Checkpoints(saved).restore(_layout(_state(**kernels)))

    refused(
        r"ema/denoiser/kernel: saved float32 \(2, 3\), the model has float32 \(3, 3\); .* "
        r"and 1 more\): use the code",
        kernel=jnp.zeros((3, 3)),
    )
    whole = jnp.arange(6).reshape(2, 3)
    refused(r"params/denoiser/kernel: saved float32 .*the model has int32 \(2, 3\)", kernel=whole)
    refused(r"ema/denoiser/late: saved nothing, the model has float32 \(4,\)", late=jnp.zeros(4))
    layout = _layout(_state())
    del layout.ema["denoiser"]["bias"]
    with pytest.raises(InputError, match=r"ema/denoiser/bias: saved float32 \(3,\).*has nothing"):
        Checkpoints(saved).restore(layout)


def _files(folder, pattern):
    return [file for file in folder.rglob(pattern) if file.is_file()]


@pytest.mark.parametrize("pattern", ["*/d/*", "manifest.ocdbt", "_METADATA", "metadata"])
@pytest.mark.parametrize("harm", ["half", "empty", "zeros", "gone"])
def test_a_broken_checkpoint_is_an_error_and_no_fresh_start(saved, state, pattern, harm):
    # Of every array and file: its data, its directory, the tree's description, plain values.
    for file in _files(saved / "checkpoints" / "5", pattern):
        data = file.read_bytes()
        half = data[: len(data) // 2]
        changed = {"half": half, "empty": b"", "zeros": half + bytes(len(data) - len(half))}
        if harm == "gone":
            file.unlink()
        else:
            file.write_bytes(changed[harm])
    for read in (
        lambda: Checkpoints(saved).restore(_layout(state)),
        lambda: loading.load(saved),
    ):
        with pytest.raises(InputError, match=r"checkpoints/5: damaged checkpoint .* delete"):
            read()


@pytest.mark.parametrize("item", ["params", "ema", "opt_state", "data", "meta"])
def test_a_checkpoint_without_one_of_its_items_is_an_error(saved, state, item):
    shutil.rmtree(saved / "checkpoints" / "5" / item)
    checkpoints = Checkpoints(saved)
    with pytest.raises(InputError, match="checkpoints/5: damaged checkpoint"):
        checkpoints.refuse_other(META)
        checkpoints.restore(_layout(state))


def test_what_a_kill_left_unfinished_is_named_removed_and_never_read(saved, state):
    folder = saved / "checkpoints"
    # A save that was cut just before its last act, and one at its beginning.
    shutil.copytree(folder / "5", folder / "7.orbax-checkpoint-tmp")
    (folder / "6.orbax-checkpoint-tmp").mkdir()
    assert loading.load(saved)[1]["data_set"] == DATA_SET
    assert len(list(folder.iterdir())) == 3
    checkpoints = Checkpoints(saved)
    assert checkpoints.unfinished == [6, 7]
    assert checkpoints.latest_step == 5
    checkpoints.save(state.replace(step=jnp.int32(7)), {}, META)
    checkpoints.close()
    assert _steps(saved) == [5, 7]
    assert Checkpoints(saved).unfinished == []


def test_a_half_removed_old_checkpoint_does_no_harm(saved, state):
    # What a kill leaves of a checkpoint that was being removed because it was too old.
    folder = saved / "checkpoints"
    shutil.copytree(folder / "5", folder / "3")
    shutil.rmtree(folder / "3" / "params")
    (folder / "3" / "_CHECKPOINT_METADATA").unlink()
    checkpoints = Checkpoints(saved, keep=2)
    checkpoints.refuse_other(META)
    assert int(checkpoints.restore(_layout(state))[0].step) == 5
    checkpoints.save(state.replace(step=jnp.int32(7)), {}, META)
    checkpoints.close()
    assert _steps(saved) == [5, 7]


@contextlib.contextmanager
def _full_disk():
    """No file can grow beyond 8 kB; nor could the one that pytest's own words may go to."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**13, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_is_reported_by_the_next_save_at_the_latest(tmp_path):
    noise = jax.random.normal(jax.random.key(0), (100, 100))
    state = _state(noise=noise)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state, {}, META)
    checkpoints.wait()
    failed = pytest.raises(
        InputError, match=r"not written .*last complete one: step 5: free some space"
    )
    with _full_disk(), failed:
        for step in (6, 7):
            checkpoints.save(state.replace(step=jnp.int32(step)), {}, META)
    again = Checkpoints(tmp_path)
    assert again.latest_step == 5 and again.unfinished == [6]
    np.testing.assert_array_equal(
        again.restore(_layout(state))[0].trained["denoiser"]["noise"], noise
    )


def test_a_full_disk_at_the_last_save_is_reported_too(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    state = _state(noise=jax.random.normal(jax.random.key(0), (100, 100)))
    failed = pytest.raises(InputError, match=r"last step was not written .*complete one: none")
    with _full_disk(), failed:
        checkpoints.save(state, {}, META)
        checkpoints.close()


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").touch()
    for workdir in ("file", "run"):
        with pytest.raises(
            InputError, match=r"checkpoints: no place for checkpoints .*another workdir"
        ):
            Checkpoints(tmp_path / workdir)


def test_differences_name_both_values_and_skip_what_may_change():
    assert config_difference(CONFIG, {**CONFIG, "steps": 50, "mesh": {"fsdp": 4}}) == []
    assert config_difference(CONFIG, {**CONFIG, "seed": 1}) == ["seed: saved 0, now 1"]
    # The data set may move; its fingerprint tells whether it is the same.
    assert config_difference(CONFIG, {**CONFIG, "data": {"path": "b", "workers": 3}}) == []
    changed = {**CONFIG, "data": {"path": "a", "frames": 3}}
    assert config_difference(CONFIG, changed) == ["data.frames: saved nothing, now 3"]
    # JSON has turned tuples into lists.
    as_json = {**CONFIG, "model": {"heads": 4, "channels": [8, 16]}}
    assert config_difference(as_json, CONFIG) == []
    gone = {key: value for key, value in CONFIG.items() if key != "seed"}
    assert config_difference(CONFIG, gone) == ["seed: saved 0, now nothing"]


def test_a_folder_without_checkpoints_is_named(tmp_path):
    with pytest.raises(InputError, match="no checkpoint here"):
        loading.load(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(InputError, match="no complete checkpoint yet"):
        loading.load(tmp_path)
