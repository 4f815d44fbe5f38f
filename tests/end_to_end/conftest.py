"""Runs of the smallest config on the four talking heads, shared by the tests of this folder."""

from pathlib import Path

import pytest

from configs import tiny
from durian_jax.training import loop
from durian_jax.weights import storage
from tests import smallest

ARTEFACTS = Path(__file__).parents[2] / ".cache" / "test_artefacts"


@pytest.fixture(scope="session")
def config_of(prepared_dataset):
    """A function of (stage, **top-level changes) to a config on the prepared clips."""

    def make(stage: str, size=smallest, **changes):
        config = size.get_config(stage)
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
def stage1_run(config_of, tmp_path_factory):
    """Work directory and final state of a first stage that knows the four clips apart."""
    workdir = tmp_path_factory.mktemp("stage1")
    return workdir, loop.train(config_of("stage1", steps=400), workdir)


@pytest.fixture(scope="session")
def tiny_run(config_of, tmp_path_factory):
    """Work directory of a first stage of tiny that has overfitted the four clips."""
    workdir = tmp_path_factory.mktemp("tiny")
    config = config_of("stage1", tiny, steps=400)
    # Borrowed masks make the task harder: 400 steps end at a loss of 0.149 with them.
    config.data.expand_probability = 0.0
    loop.train(config, workdir)
    return workdir


@pytest.fixture(scope="session")
def stage2_run(config_of, stage1_run, tmp_path_factory):
    """Work directory and final state of a short second stage on top of it."""
    workdir = tmp_path_factory.mktemp("stage2")
    config = config_of("stage2", steps=6, init_from=str(stage1_run[0]))
    return workdir, loop.train(config, workdir)


@pytest.fixture(scope="session")
def random_weights(tmp_path_factory):
    """Folder of weights of a model that never learned anything, 32 px, quick to compile."""
    config = smallest.get_config("stage2").to_dict()
    config["sample"].update(steps=2, window=4, overlap=1)
    params = smallest.draw_params(smallest.build_model(config), 0.3)
    networks = [(name, storage.flat(tree)) for name, tree in params.items()]
    folder = tmp_path_factory.mktemp("random") / "weights"
    storage.write(folder, networks, {"config": config})
    return folder
