import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from durian_jax import checkpoint, sharding
from durian_jax.checkpoint import Checkpoints, config_difference
from durian_jax.state import init_state
from input_pipeline.errors import InputError

CONFIG = {"seed": 0, "steps": 10, "model": {"heads": 4, "channels": (8, 16)}, "data": {"path": "a"}}
OPTIMIZER = optax.adam(0.1)


@pytest.fixture
def state():
    place = sharding.replicated(sharding.make_mesh())
    params = {
        "denoiser": {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": jnp.ones(3)},
        "autoencoder": {"kernel": jnp.full((2, 2), 7.0)},
    }
    fresh = init_state(jax.device_put(params, place), ("denoiser/",), (), OPTIMIZER)
    fresh = fresh.replace(step=jnp.int32(5), ema=jax.tree.map(lambda x: x + 0.5, fresh.ema))
    return jax.device_put(fresh, place)


@pytest.fixture
def saved(state, tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state, {"batch": 5, "corrupt": [2]}, {"config": CONFIG})
    checkpoints.close()
    return tmp_path


def test_state_and_loader_come_back_exactly(saved, state):
    layout = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
    found, data = Checkpoints(saved).restore(layout)
    assert data == {"batch": 5, "corrupt": [2]}
    assert jax.tree.structure(found) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, found, state)


def test_averaged_weights_replace_the_trained_ones_only(saved):
    averaged, meta = checkpoint.load(saved)
    raw, _ = checkpoint.load(saved, ema=False)
    np.testing.assert_array_equal(averaged["denoiser"]["kernel"], raw["denoiser"]["kernel"] + 0.5)
    np.testing.assert_array_equal(averaged["autoencoder"]["kernel"], 7.0)
    assert meta["config"]["model"]["heads"] == 4


def test_only_the_newest_checkpoints_are_kept(state, tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 3):
        checkpoints.save(state.replace(step=jnp.int32(step)), {}, {"config": CONFIG})
    checkpoints.close()
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["2", "3"]
    assert Checkpoints(tmp_path).latest_step == 3


def test_a_run_of_another_config_is_refused(saved):
    checkpoints = Checkpoints(saved)
    checkpoints.refuse_other({**CONFIG, "steps": 99})
    with pytest.raises(InputError, match=r"model.heads: saved 4, now 8"):
        checkpoints.refuse_other({**CONFIG, "model": {"heads": 8, "channels": (8, 16)}})


def test_a_broken_checkpoint_is_an_error_and_no_fresh_start(saved, state):
    for file in (saved / "checkpoints" / "5" / "params").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    layout = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
    for read in (lambda: Checkpoints(saved).restore(layout), lambda: checkpoint.load(saved)):
        with pytest.raises(InputError, match=r"checkpoints/5: damaged checkpoint .* delete"):
            read()


def test_differences_name_both_values_and_skip_what_may_change():
    assert config_difference(CONFIG, {**CONFIG, "steps": 50, "mesh": {"fsdp": 4}}) == []
    assert config_difference(CONFIG, {**CONFIG, "seed": 1}) == ["seed: saved 0, now 1"]
    changed = {**CONFIG, "data": {"path": "b", "workers": 3}}
    assert config_difference(CONFIG, changed) == ["data.path: saved a, now b"]
    # JSON has turned tuples into lists.
    as_json = {**CONFIG, "model": {"heads": 4, "channels": [8, 16]}}
    assert config_difference(as_json, CONFIG) == []
    gone = {key: value for key, value in CONFIG.items() if key != "seed"}
    assert config_difference(CONFIG, gone) == ["seed: saved 0, now nothing"]


def test_a_folder_without_checkpoints_is_named(tmp_path):
    with pytest.raises(InputError, match="no checkpoint here"):
        checkpoint.load(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(InputError, match="no complete checkpoint yet"):
        checkpoint.load(tmp_path)
