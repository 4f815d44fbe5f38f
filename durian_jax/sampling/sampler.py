"""What a sampler computes: encoded inputs, noise, guided predictions, steps, pictures.

`sample` is the whole of it for clips that fit in one window, one pure function for jit or pmap. The
Generator calls its parts one by one, for clips of any length.
References are encoded, and their keys and values projected, once per clip, outside all steps.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from durian_jax.diffusion.process import Process
from durian_jax.diffusion.solvers import (
    SamplerState,
    Sampling,
    Schedule,
    advance,
    branch_weights,
    noise_of,
)
from durian_jax.systems.system import System, Tree
from input_pipeline.errors import InputError


def sample(
    system: System,
    params: dict,
    batch: dict,
    seeds: jax.Array,
    schedule: Schedule,
    *,
    process: Process,
    start: str = "noise",
) -> jax.Array:
    """A video for every clip of the batch; jit or pmap it with system and process fixed.

    Args:
      batch: the batch contract without `video`; its `frame_inputs` set the number of frames, at
        most as many as the system takes at a time.
      seeds: uint32 [B]; the noise of a clip depends on its own alone.
      start: see `Sampling`.

    Returns:
      float32 [B, F, H, W, 3], about [-1, 1].
    """
    clip, frames = encode_clip(system, params, batch), encode_frames(system, params, batch)
    places = jnp.arange(jax.tree.leaves(frames)[0].shape[1], dtype=jnp.int32)
    latents = initial_noise(system, process, seeds, places)
    if start == "source":
        latents = noised(process, encode_source(system, params, batch), latents)
    state = SamplerState.start(latents, seeds, places)
    end = denoise(system, params, state, clip, frames, schedule, process=process)
    return decode(system, params, end.latents)


def from_config(system: System, process: Process, settings) -> Callable:
    """`sample` by the settings of `config.sample`: a function of (params, batch, seeds)."""
    sampling = Sampling.from_settings(settings)
    schedule = make_schedule(system, process, sampling)

    def run(params: dict, batch: dict, seeds: jax.Array) -> jax.Array:
        return sample(system, params, batch, seeds, schedule, process=process, start=sampling.start)

    return run


def make_schedule(system: System, process: Process, sampling: Sampling) -> Schedule:
    """The schedule, for as many conditions as the system has.

    Raises:
      InputError: more or fewer guidance scales than conditions, or too many steps.
    """
    if len(sampling.scales) != len(system.parts):
        raise InputError(
            f"guidance has {len(sampling.scales)} scales, the model {len(system.parts)} "
            f"conditions: give one each for {', '.join(system.parts)}"
        )
    return Schedule.build(process, sampling)


def encode_clip(system: System, params: dict, batch: dict) -> Tree:
    """See `System.encode_clip`."""
    return system.apply({"params": params}, batch, method="encode_clip")


def at_time(system: System, params: dict, clip: Tree, now: Schedule) -> Tree:
    """The clip as `predict` takes it at a step; see `System.at_time`."""
    if not system.timed:
        return clip
    t = jnp.broadcast_to(now.times, jax.tree.leaves(clip)[0].shape[:1])
    return system.apply({"params": params}, clip, t, method="at_time")


def encode_frames(system: System, params: dict, batch: dict) -> Tree:
    """See `System.encode_frames`; frame by frame, as control pictures may be large."""
    inputs = {name: batch[name] for name in system.frame_inputs if name in batch}
    return _per_frame(
        lambda one: system.apply({"params": params}, one, method="encode_frames"), inputs
    )


def initial_noise(
    system: System, process: Process, seeds: jax.Array, places: jax.Array
) -> jax.Array:
    """float32 [B, F, h, w, c]; a frame's depends on seed and place, not on the clip's length."""
    return noise_of(seeds, places, process.num_timesteps, system.latent_shape)


def encode_source(system: System, params: dict, batch: dict) -> jax.Array:
    """Clean latents of the batch's `portrait`, float32 [B, 1, h, w, c]."""
    video = batch["portrait"][:, None]
    return system.apply({"params": params}, video, method="encode_video")


def noised(process: Process, source: jax.Array, noise: jax.Array) -> jax.Array:
    """The source [B, 1, h, w, c] under as much noise [B, F, h, w, c] as there is in training."""
    most = jnp.full(len(source), process.num_timesteps - 1, jnp.int32)
    return process.add_noise(source, noise, most)


def denoise(
    system: System,
    params: dict,
    state: SamplerState,
    clip: Tree,
    frames: Tree,
    schedule: Schedule,
    *,
    process: Process,
) -> SamplerState:
    """The state after the steps of the schedule."""

    def step(at, now):
        this = at_time(system, params, clip, now)
        prediction = predict(system, params, at.latents, this, frames, now)
        return advance(process, at, prediction, now), None

    return jax.lax.scan(step, state, schedule)[0]


def encode_history(system: System, params: dict, latents: jax.Array) -> Tree:
    """See `System.encode_history`."""
    return system.apply({"params": params}, latents, method="encode_history")


def predict(
    system: System,
    params: dict,
    z: jax.Array,
    clip: Tree,
    frames: Tree,
    now: Schedule,
    history: Tree | None = None,
) -> jax.Array:
    """The guided prediction at noisy latents z [B, F, h, w, c]; `now` is one step, clip `at_time`.

    The branches are those of `branch_weights`; one whose weight is 0 is not run.

    Args:
      history: of `encode_history`; None where no frames came before.
    """
    parts, scales = system.parts, now.guidance
    if history is not None:
        clip = {**clip, "history": history}
    elif system.history:
        parts, scales = parts[:-1], scales[:-1]
    t, weights = jnp.broadcast_to(now.times, z.shape[:1]), branch_weights(scales)

    def branch(count: int) -> jax.Array:
        given = parts[:count]
        return system.apply({"params": params}, z, t, clip, frames, given, method="predict")

    whole = branch(len(parts))
    mixed = weights[-1] * whole
    for count, weight in enumerate(weights[:-1]):
        mixed += jax.lax.cond(
            weight == 0, lambda: jnp.zeros_like(z), lambda n=count, w=weight: w * branch(n)
        )

    def rescaled():
        spread, target = (jnp.std(x, (2, 3, 4), keepdims=True) for x in (mixed, whole))
        factor = target / jnp.maximum(spread, 1e-12)
        return mixed * (1 + now.rescale * (factor - 1))

    return jax.lax.cond(now.rescale == 0, lambda: mixed, rescaled)


def decode(system: System, params: dict, latents: jax.Array) -> jax.Array:
    """float32 [B, F, H, W, 3], about [-1, 1]."""
    return _per_frame(
        lambda frame: system.apply({"params": params}, frame, method="decode_video"), latents
    )


def to_uint8(video: jax.Array) -> jax.Array:
    """Pictures in [-1, 1], any shape, as uint8."""
    return jnp.round(jnp.clip(video * 127.5 + 127.5, 0, 255)).astype(jnp.uint8)


def _per_frame(function: Callable, tree: Tree) -> Tree:
    """function over [B, 1, ...] slices of [B, F, ...]: bounds the memory of full-size pictures."""
    moved = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), tree)

    def one(frame):
        result = function(jax.tree.map(lambda x: x[:, None], frame))
        return jax.tree.map(lambda x: x[:, 0], result)

    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), jax.lax.map(one, moved))
