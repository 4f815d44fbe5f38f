"""Runs of the tiny config on the four talking heads, shared by the tests of this folder."""

from pathlib import Path

import jax
import numpy as np
import pytest

from configs import tiny
from durian_jax import train, weights
from durian_jax.models.config import blank_batch
from durian_jax.models.durian import Durian, DurianConfig

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


@pytest.fixture(scope="session")
def random_weights(tmp_path_factory):
    """Folder of weights of a model that never learned anything, 32 px, quick to compile."""
    config = tiny.get_config("stage2").to_dict()
    config["model"].update(
        resolution=32, patch=8, channels=(32,), attention_levels=(0,), heads=2, norm_groups=4,
        keypoint_channels=(4, 4, 4, 4),
    )  # fmt: skip
    config["sample"].update(steps=2, window=4, overlap=1)
    model = Durian(DurianConfig.from_dict(config["model"]))
    latents = np.zeros((1, 1, *model.config.latent_shape), np.float32)
    batch, steps = blank_batch(model.config), np.zeros(1, np.int32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), batch, latents, steps)["params"]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: np.float32(rng.normal(0, 0.3, x.shape)), shapes)
    networks = [(name, weights.flat(tree)) for name, tree in params.items()]
    folder = tmp_path_factory.mktemp("random") / "weights"
    weights.write(folder, networks, {"config": config})
    return folder
