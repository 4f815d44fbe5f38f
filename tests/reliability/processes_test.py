"""Two processes (gloo, through launch/local.sh) that lose one of them, and come back as one."""

import shutil

import numpy as np
import pytest

from tests.reliability import runs

STEPS = "steps=12"


@pytest.fixture(scope="module")
def whole(data_set, tmp_path_factory):
    """What 12 steps of two processes leave behind."""
    workdir = tmp_path_factory.mktemp("two")
    done = runs.run(data_set, workdir, STEPS, processes=2)
    assert done.returncode == 0, done.stderr
    return runs.read(workdir)


@pytest.fixture(scope="module")
def stopped(data_set, tmp_path_factory):
    """Work directory and words of two processes, of which the second had a term signal."""
    workdir = tmp_path_factory.mktemp("stopped")
    return workdir, runs.run(data_set, workdir, STEPS, processes=2, watch="toy term@batch=4")


def test_a_term_signal_to_one_stops_both_at_the_same_step(stopped):
    workdir, done = stopped
    assert done.returncode == 75
    assert done.stderr.count("stopped by SIGTERM at step 5 of 12, which is saved") == 2
    assert runs.read(workdir).step == 5


@pytest.mark.parametrize("moment", ["weights", "pictures"])
def test_a_term_signal_to_one_before_the_first_step_stops_both(data_set, tmp_path, moment):
    done = runs.run(data_set, tmp_path, STEPS, processes=2, watch=f"toy term@{moment}")
    assert done.returncode == 75
    assert done.stderr.count("stopped by SIGTERM before the first step: nothing to save") == 2


def test_two_that_are_killed_end_as_two_that_are_not(stopped, whole, data_set, tmp_path):
    # Resumed at step 5; one of the two dies at batch 9, and the launcher ends the other.
    workdir = shutil.copytree(stopped[0], tmp_path / "run")
    dead = runs.run(data_set, workdir, STEPS, processes=2, watch="toy kill@batch=9")
    assert dead.returncode == 137
    done = runs.run(data_set, workdir, STEPS, processes=2)
    assert done.returncode == 0, done.stderr
    found = runs.read(workdir)
    assert runs.differences(found, whole) == []
    assert {number.split("/")[0] for number in found.batches} == {"0", "1"}


def test_one_process_takes_over_from_two(stopped, whole, unbroken, data_set, tmp_path):
    workdir = shutil.copytree(stopped[0], tmp_path / "run")
    done = runs.run(data_set, workdir, STEPS)
    assert done.returncode == 0 and "resumed at step 5 of 12" in done.stdout, done.stderr
    found, alone = runs.read(workdir), runs.read(unbroken)
    # The batches of a run that one process made from the beginning: no gap, no repeat.
    for number in range(5, 12):
        assert found.batches[f"0/0/{number}"] == alone.batches[f"0/0/{number}"]
    assert found.data["loader"] == whole.data["loader"]
    # Sums in another order.
    np.testing.assert_allclose(
        [line["loss"] for line in found.losses], [line["loss"] for line in whole.losses], rtol=1e-4
    )
