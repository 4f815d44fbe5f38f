"""The smallest Durian there is: tiny at 32 px with one level; compiled in seconds, by many tests.

durian train --config tests/smallest.py:stage1 --workdir RUN --config.data.path=DATASET
"""

import jax
import numpy as np

from configs import durian, tiny
from durian_jax.systems.durian.config import DurianConfig, blank_batch
from durian_jax.systems.durian.model import Durian


def get_config(stage: str = "stage1"):
    """The config of a stage, "stage1" or "stage2"."""
    config = tiny.get_config(stage)
    config.model.update(
        resolution=32,
        patch=8,
        channels=(32,),
        attention_levels=(0,),
        heads=2,
        norm_groups=4,
        keypoint_channels=(4, 4, 4, 4),
    )
    if stage == "stage1":
        config.stage.frozen = durian.dead_parameters(config.model)
    return config


def draw_params(model: Durian, deviation: float) -> dict:
    """Parameters of a model that never learned anything: float32 normals, nowhere zero."""
    latents, steps = np.zeros((1, 1, *model.config.latent_shape), np.float32), np.zeros(1, np.int32)
    shapes = jax.eval_shape(
        model.init, jax.random.key(0), blank_batch(model.config), latents, steps
    )["params"]
    return jax.tree.map(
        lambda leaf: np.float32(
            np.random.default_rng(leaf.size).normal(0, deviation, leaf.shape)
        ),
        shapes,
    )  # fmt: skip


def build_model(config: dict) -> Durian:
    """The model of a config's values."""
    return Durian(DurianConfig.from_dict(config["model"]))
