"""What must not be gone on from is refused, and what cannot be saved is not passed over."""

import contextlib
import json
import shutil

import pytest

from durian_jax.systems.system import build
from durian_jax.training import loop
from input_pipeline.errors import InputError
from input_pipeline.training import loader
from tests.reliability import runs, smallest


@pytest.fixture
def finished(unbroken, tmp_path):
    """A copy of the unbroken run, to be resumed."""
    return shutil.copytree(unbroken, tmp_path / "run")


def test_another_data_set_is_refused(finished, train_toy, tmp_path):
    other = runs.write_data_set(tmp_path / "other", count=13)
    with pytest.raises(InputError, match=r"data set: saved \w{16} \(12 records.*now \w{16} \(13"):
        train_toy(finished, data={"path": str(other)})


def test_records_changed_under_a_checkpoint_are_refused(finished, train_toy, tmp_path):
    # As many clips of the same size under the same metadata, but one of them is another.
    other = runs.write_data_set(tmp_path / "other", first=1)
    with pytest.raises(InputError, match=r"data set: saved .*\(12 records.* now .*\(12 records"):
        train_toy(finished, data={"path": str(other)})


def test_the_same_data_set_in_another_place_is_not(finished, train_toy, data_set, tmp_path, capsys):
    copy = shutil.copytree(data_set, tmp_path / "copy")
    state = train_toy(finished, data={"path": str(copy)}, log_every=5)
    assert int(state.step) == 24
    assert "nothing to do: 24 of 24 steps are done" in capsys.readouterr().out


def test_another_model_is_refused(finished, train_toy):
    with pytest.raises(InputError, match=r"model\.patch: saved 8, now 4"):
        train_toy(finished, model={"patch": 4})


def test_a_broken_checkpoint_is_no_fresh_start(finished, train_toy):
    for array in (finished / "checkpoints" / "24" / "opt_state").rglob("d/*"):
        array.write_bytes(array.read_bytes()[:100])
    with pytest.raises(InputError, match=r"checkpoints/24: damaged checkpoint .*delete"):
        train_toy(finished)
    assert len((finished / "metrics.jsonl").read_text().splitlines()) == 24


def test_a_full_disk_ends_the_run_with_one_line_and_the_last_checkpoint(data_set, tmp_path):
    done = runs.run(data_set, tmp_path, watch="toy full@save=8")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("durian train:")]
    assert said.startswith(f"durian train: {tmp_path}/checkpoints: the checkpoint of step 12")
    assert said.endswith(
        "the last complete one: step 4: free some space or repair the disk, then start the same "
        "command again"
    )
    kept = runs.read(tmp_path)
    assert kept.step == 4 and json.dumps(kept.data["loader"]) == '{"batch": 4, "corrupt": []}'


def test_attributes_that_no_clip_shows_are_remarked(data_set):
    config = smallest.get_config("durian")
    config.data.path, system = str(data_set), build(config.to_dict())
    for kinds, wanted in ((("hair",), 0), (("hat",), 1)):
        config.data.kinds = kinds
        options = loop.sample_options(config)
        with contextlib.closing(
            loader.Loader(
                loop.open_dataset(config), options, batch_size=4, process_index=0, process_count=1,
                seed=0,
            )
        ) as batches:  # fmt: skip
            found = system.remarks(next(batches))
        assert len(found) == wanted
    assert found[0].startswith("no clip of the first batch shows an attribute")
