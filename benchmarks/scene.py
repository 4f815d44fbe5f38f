"""The model, the weights and the clip that the benchmarks run: nothing in them is zero."""

import jax
import numpy as np
from ml_collections import ConfigDict

from configs import durian
from durian_jax.systems.system import System, init_params
from durian_jax.systems.system import build as build_system

SIZES = ("reduced", "full")


def load_config(size: str, dtype: str, stage: str = "stage2") -> ConfigDict:
    """configs/durian.py; reduced: a fifth of the widths, 256 px, 32 x 32 latents."""
    config = durian.get_config(stage)
    if size == "reduced":
        config.model.update(
            resolution=256, channels=(64, 128, 256, 256), heads=2, temporal_heads=2, norm_groups=16,
            context_dim=64, keypoint_channels=(8, 16, 24, 64),
            kl=dict(
                block_out_channels=(32, 64, 128, 128), norm_groups=16, latent_channels=4,
                scaling=0.18215,
            ),
            clip=dict(
                hidden_size=64, intermediate_size=256, layers=2, heads=4, patch_size=14,
                projection_dim=64,
            ),
            arcface=dict(layers=(1, 1, 1, 1), widths=(8, 16, 32, 64), embedding=64),
        )  # fmt: skip
    config.model.remat = ()
    config.model.dtype = dtype
    return config


def build(config: ConfigDict) -> tuple[System, dict]:
    """The model, and parameters of which none has a special value (numpy, float32)."""
    model = build_system(config.to_dict())
    shapes = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        noise = rng.standard_normal(leaf.shape, np.float32)
        if path[-1].key in ("scale", "var"):
            return 1 + 0.2 * np.abs(noise)
        # Sums of residual branches stay of order one, at any depth.
        return 0.2 * noise if leaf.ndim < 2 else noise / np.float32(np.prod(leaf.shape[:-1]) ** 0.5)

    return model, jax.tree_util.tree_map_with_path(draw, shapes)


def draw_batch(model: System, frames: int, clips: int = 1) -> dict[str, np.ndarray]:
    """The batch contract: noise for pictures, halves for masks."""
    rng = np.random.default_rng(1)
    size = model.size
    batch = {}
    for name, blank in model.blank_batch(clips, frames).items():
        if blank.dtype == bool:
            batch[name] = np.arange(size) < np.full(blank.shape[:-1] + (1,), size // 2)
        elif name == "keypoints":
            batch[name] = rng.uniform(0, size, blank.shape).astype(np.float32)
        else:
            batch[name] = rng.integers(0, 256, blank.shape).astype(blank.dtype)
    return batch
