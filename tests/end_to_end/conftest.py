"""Runs of the tiny config on the four talking heads, shared by the tests of this folder."""

from pathlib import Path

import pytest

from configs import tiny
from durian_jax import train

ARTEFACTS = Path(__file__).parents[2] / ".cache" / "test_artefacts"


@pytest.fixture(scope="session")
def tiny_config(prepared_dataset):
    """A function of (stage, **top-level changes) to a config on the prepared clips."""

    def make(stage: str, **changes):
        config = tiny.get_config(stage)
        config.data.path = str(prepared_dataset)
        config.batch_size = 4 if stage == "stage1" else 2
        config.update(changes)
        return config

    return make


@pytest.fixture(scope="session")
def artefacts():
    """Folder of pictures for the eye, kept after the tests and never committed."""
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    return ARTEFACTS


@pytest.fixture(scope="session")
def stage1_run(tiny_config, tmp_path_factory):
    """Work directory and final state of a first stage that has overfitted the four clips."""
    workdir = tmp_path_factory.mktemp("stage1")
    config = tiny_config("stage1", steps=400)
    # Borrowed masks make the task harder: 400 steps end at a loss of 0.149 with them.
    config.data.expand_probability = 0.0
    return workdir, train.train(config, workdir)


@pytest.fixture(scope="session")
def stage2_run(tiny_config, stage1_run, tmp_path_factory):
    """Work directory and final state of a short second stage on top of it."""
    workdir = tmp_path_factory.mktemp("stage2")
    config = tiny_config("stage2", steps=6, init_from=str(stage1_run[0]))
    return workdir, train.train(config, workdir)
