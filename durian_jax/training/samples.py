"""The picture of samples with fixed noise that a run draws."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from durian_jax.diffusion.process import Process
from durian_jax.distributed import sharding
from durian_jax.sampling import sampler
from durian_jax.systems.system import System
from durian_jax.training.state import TrainState
from durian_jax.weights.trees import merge

_COLUMNS = 4  # frames of a clip


def make_sample_grid(
    system: System,
    process: Process,
    config,
    local_batch: dict,
    mesh: jax.sharding.Mesh,
) -> Callable[[TrainState], np.ndarray]:
    """A function of a state to a picture of samples with fixed noise, uint8 [H, W, 3].

    One row per clip: the photos of the batch | target frames | the same frames sampled with the
    averaged weights, by `config.sample`. All processes call it, and all get the picture.

    Args:
      local_batch: this process's part of a batch on the host; the first `config.sample.clips` of
        the whole are shown. Every device samples at least one, or it would idle.
    """
    sample = sampler.from_config(system, process, config.sample)
    clips = min(-(-config.sample.clips // mesh.size) * mesh.size, config.batch_size)
    batch = sharding.put_batch(
        {name: x[: clips // jax.process_count()] for name, x in local_batch.items()}, mesh
    )

    # Pictures [B, S, S, 3], or several of a clip: [B, N, S, S, 3].
    picture = (system.size, system.size, 3)
    photos = [name for name, x in local_batch.items() if x.shape[-3:] == picture]
    photos.remove("video")

    @functools.partial(jax.jit, out_shardings=sharding.replicated(mesh))
    def run(params: dict, batch: dict) -> tuple:
        seeds = jnp.uint32(config.seed) + jnp.arange(len(batch["video"]), dtype=jnp.uint32)
        videos = sample(params, batch, seeds)
        return sampler.to_uint8(videos), {name: batch[name] for name in (*photos, "video")}

    def draw(state: TrainState) -> np.ndarray:
        videos, shown = jax.device_get(run(merge(state.frozen, state.ema), batch))
        frames = np.linspace(0, videos.shape[1] - 1, min(_COLUMNS, videos.shape[1])).astype(int)
        rows = [
            np.hstack([*(one for name in photos for one in shown[name][i].reshape(-1, *picture)),
                       *shown["video"][i, frames], *videos[i, frames]])
            for i in range(min(len(videos), config.sample.clips))
        ]  # fmt: skip
        return np.vstack(rows)

    return draw
