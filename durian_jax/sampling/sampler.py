"""Sampling a clip: solvers as one scan, classifier-free guidance, noise by seed.

`sample` is the whole of it, one pure function for jit or pmap. It is made of `encode`,
`initial_noise`, `denoise` and `decode`, which the Generator calls one by one to show progress: a
host callback inside the scan would do so too, but keeps a program out of the compilation cache.
References are encoded, and their keys and values projected, once per clip, outside the scan.
Clips longer than the model's are for `diffusion.windows`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from durian_jax.diffusion.process import Diffusion
from durian_jax.diffusion.solvers import Sampling, Schedule, Trajectory, advance, noise_of
from durian_jax.systems.durian.model import Conditions, Durian, interpolate


def sample(
    model: Durian,
    params: dict,
    batch: dict,
    seeds: jax.Array,
    schedule: Schedule,
    *,
    diffusion: Diffusion,
) -> jax.Array:
    """A video for every clip of the batch; jit or pmap it with model and diffusion fixed.

    Args:
      batch: the batch contract without `video`, see `encode`; keypoints [B, F, K, 2] set the number
        of frames, at most as many as the model takes at a time.
      seeds: uint32 [B]; the noise of a clip depends on its own alone.

    Returns:
      float32 [B, F, H, W, 3], about [-1, 1].
    """
    conditions, features = encode(model, params, batch)
    frames = jnp.arange(features.shape[1], dtype=jnp.int32)
    noise = initial_noise(model, diffusion, seeds, frames)
    start = Trajectory.start(noise, seeds, frames)
    end = denoise(model, params, start, conditions, features, schedule, diffusion=diffusion)
    return decode(model, params, end.latents)


def from_config(model: Durian, diffusion: Diffusion, settings) -> Callable:
    """`sample` by the settings of `config.sample`: a function of (params, batch, seeds)."""
    schedule = Schedule.trailing(diffusion, Sampling.from_settings(settings))

    def run(params: dict, batch: dict, seeds: jax.Array) -> jax.Array:
        return sample(model, params, batch, seeds, schedule, diffusion=diffusion)

    return run


def encode(model: Durian, params: dict, batch: dict) -> tuple[Conditions, jax.Array]:
    """What stays the same over all steps: conditions, and keypoint features [B, F, h, w, C0]."""
    return condition(model, params, batch), keypoint_features(model, params, batch["keypoints"])


def condition(model: Durian, params: dict, batch: dict) -> Conditions:
    """What the references of each clip tell the denoiser.

    Args:
      batch: as `Durian.encode_conditions` takes it. To interpolate besides `alpha` float32 [B, F]
        and `towards`, what alpha = 1 stands for: portrait and attribute with their masks and
        keypoints and, where the attributes are padded, attribute_count.
    """
    conditions = model.apply({"params": params}, batch, method="encode_conditions")
    if "alpha" not in batch:
        return conditions
    others = batch | batch["towards"]
    towards = model.apply({"params": params}, others, method="encode_conditions")
    return interpolate(conditions, towards, batch["alpha"])


def keypoint_features(model: Durian, params: dict, keypoints: jax.Array) -> jax.Array:
    """Pixel coordinates [B, F, K, 2] -> features [B, F, h, w, C0]."""
    return _per_frame(
        lambda frame: model.apply({"params": params}, frame, method="encode_keypoints"), keypoints
    )


def initial_noise(
    model: Durian, diffusion: Diffusion, seeds: jax.Array, frames: jax.Array
) -> jax.Array:
    """float32 [B, F, h, w, c]; a frame's depends on seed and place, not on the clip's length."""
    return noise_of(seeds, frames, diffusion.num_timesteps, model.config.latent_shape)


def denoise(
    model: Durian,
    params: dict,
    trajectory: Trajectory,
    conditions: Conditions,
    features: jax.Array,
    schedule: Schedule,
    *,
    diffusion: Diffusion,
) -> Trajectory:
    """The trajectory after the steps of the schedule."""

    def step(at, now):
        prediction = predict(model, params, at.latents, conditions, features, now)
        return advance(diffusion, at, prediction, now), None

    return jax.lax.scan(step, trajectory, schedule)[0]


def predict(
    model: Durian,
    params: dict,
    z: jax.Array,
    conditions: Conditions,
    features: jax.Array,
    now: Schedule,
) -> jax.Array:
    """The guided prediction at noisy latents z [B, F, h, w, c]; `now` is one step."""
    t, variables = jnp.broadcast_to(now.timesteps, z.shape[:1]), {"params": params}
    wanted = model.apply(variables, z, t, features, conditions, method="denoise")

    def guided():
        unwanted = model.apply(variables, z, t, features, None, method="denoise")
        mixed = unwanted + now.guidance * (wanted - unwanted)
        spread, target = (jnp.std(x, (2, 3, 4), keepdims=True) for x in (mixed, wanted))
        factor = target / jnp.maximum(spread, 1e-12)
        return mixed * (1 + now.rescale * (factor - 1))

    return jax.lax.cond(now.guidance == 1, lambda: wanted, guided)


def decode(model: Durian, params: dict, latents: jax.Array) -> jax.Array:
    """float32 [B, F, H, W, 3], about [-1, 1]."""
    return _per_frame(
        lambda frame: model.apply({"params": params}, frame, method="decode_video"), latents
    )


def to_uint8(video: jax.Array) -> jax.Array:
    """Pictures in [-1, 1], any shape, as uint8."""
    return jnp.round(jnp.clip(video * 127.5 + 127.5, 0, 255)).astype(jnp.uint8)


def _per_frame(function: Callable, x: jax.Array) -> jax.Array:
    """function over [B, 1, ...] slices of [B, F, ...]: bounds the memory of full-size pictures."""
    frames = jax.lax.map(lambda frame: function(frame[:, None])[:, 0], jnp.moveaxis(x, 1, 0))
    return jnp.moveaxis(frames, 0, 1)
