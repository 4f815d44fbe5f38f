"""The smallest Durian there is: tiny at 32 px with one level; compiled in seconds, by many tests.

durian train --config tests/smallest.py:stage1 --workdir RUN --config.data.path=DATASET
"""

import jax
import numpy as np

from configs import tiny
from durian_jax.systems.system import System, build, init_params


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
    return config


def draw_params(system: System, deviation: float) -> dict:
    """Parameters of a model that never learned anything: float32 normals, nowhere zero."""
    shapes = jax.eval_shape(lambda: init_params(system, jax.random.key(0)))
    return jax.tree.map(
        lambda leaf: np.float32(
            np.random.default_rng(leaf.size).normal(0, deviation, leaf.shape)
        ),
        shapes,
    )  # fmt: skip


def build_model(config: dict) -> System:
    """The system of a config's values."""
    return build(config)
