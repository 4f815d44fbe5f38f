"""A run that is killed again and again ends where an unbroken one ends, bit for bit.

Each end and each start is a process of its own. An epoch is 3 batches, a checkpoint comes every 4
steps.
"""

import re
import signal

import pytest

from input_pipeline.errors import Interrupted
from tests.reliability import runs


def _resumed(done) -> int:
    """The step that a run says it went on from."""
    return int(re.search(r"resumed at step (\d+) of", done.stdout)[1])


@pytest.fixture(scope="module")
def killed(data_set, tmp_path_factory):
    """Work directory, and what the four processes said that it took to get to the end."""
    workdir = tmp_path_factory.mktemp("killed")
    ends = ("term@batch=5", "kill@batch=10", "kill@save=20", "")
    return workdir, [runs.run(data_set, workdir, watch=f"toy {end}") for end in ends]


def test_the_killed_run_ends_as_the_unbroken_one(killed, unbroken):
    workdir, (*_, last) = killed
    assert last.returncode == 0, last.stderr
    ours, theirs = runs.read(workdir), runs.read(unbroken)
    assert runs.differences(ours, theirs) == []
    assert ours.step == len(ours.losses) == len({line["loss"] for line in ours.losses}) == 24
    # Parameters, average, two moments, counts; batches of training and the one of pictures.
    assert len(ours.arrays) == 10 + 6 + 2 * 6 + 2 and len(ours.batches) == 25


def test_a_term_signal_saves_that_step_and_gives_its_own_code(killed):
    # At an epoch's edge: batch 6 begins the third.
    _, (terminated, second, *_) = killed
    assert terminated.returncode == Interrupted.code == 75
    assert "stopped by SIGTERM at step 6 of 24, which is saved" in terminated.stderr
    assert "Traceback" not in terminated.stderr
    assert _resumed(second) == 6


def test_a_kill_costs_the_steps_since_the_last_checkpoint(killed):
    # In the middle of an epoch if the save of step 8 was over by then.
    _, (_, dead, third, _) = killed
    assert dead.returncode == -signal.SIGKILL
    assert _resumed(third) in (6, 8)


def test_a_kill_during_a_save_costs_that_save_alone(killed):
    workdir, (*_, dead, last) = killed
    assert dead.returncode == -signal.SIGKILL
    assert "unfinished save of step 20, removed" in last.stdout
    assert _resumed(last) == 16
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["20", "24"]


def test_a_run_stopped_where_samples_are_due_makes_them_when_it_goes_on(data_set, tmp_path):
    overrides = ("steps=12", "sample.every=6")
    for stop, step in (("term@batch=5", 6), ("term@batch=11", 12)):
        done = runs.run(data_set, tmp_path, *overrides, watch=f"toy {stop}")
        assert done.returncode == Interrupted.code, done.stderr
        assert f"stopped by SIGTERM at step {step} of 12" in done.stderr
        assert not (tmp_path / f"samples/step_{step:07d}.png").exists()
    done = runs.run(data_set, tmp_path, *overrides)
    assert done.returncode == 0, done.stderr
    made = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert made == ["step_0000006.png", "step_0000012.png"]


@pytest.mark.slow
def test_the_model_itself_survives_being_killed(data_set, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert runs.run(data_set, whole, watch="").returncode == 0
    for end in ("term@batch=5", "kill@save=12"):
        assert runs.run(data_set, broken, watch=end).returncode in (75, -signal.SIGKILL)
    done = runs.run(data_set, broken, watch="")
    assert done.returncode == 0, done.stderr
    ours, theirs = runs.read(broken), runs.read(whole)
    assert runs.differences(ours, theirs) == []
    assert len(ours.arrays) > 1000
