"""Sampling: DDIM or DPM-Solver++(2M) as one scan, classifier-free guidance, overlapping windows.

`sample` is the whole of it, one pure function to jit. It is made of `encode`, `denoise` and
`decode`, which the Animator calls one by one to show progress: a host callback inside the scan
would do so too, but keeps a program out of the compilation cache.
References are encoded, and their keys and values projected, once per clip, outside the scan.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from durian_jax.diffusion import Diffusion
from durian_jax.models.durian import Conditions, Durian
from input_pipeline.errors import InputError

# Stands for an alpha_bar of 0 where its logarithm is needed; diffusers takes the same.
ZERO_SNR_ALPHA = 2.0**-24


@dataclasses.dataclass(frozen=True)
class SamplerOptions:
    """What shapes the program; each value compiles its own.

    Attributes:
      window: frames denoised together; clips no longer than this are one window.
      overlap: least number of frames that neighbouring windows share.
      guided: run the unconditional branch too; without it the guidance scale has no effect.

    Raises:
      InputError: the overlap does not lie below the window.
    """

    window: int = 24
    overlap: int = 4
    guided: bool = True

    def __post_init__(self):
        if not 0 <= self.overlap < self.window:
            raise InputError(
                f"overlap {self.overlap}: use 0 to {self.window - 1} for windows of {self.window}"
            )


SOLVERS = ("ddim", "dpm++")


@struct.dataclass
class Schedule:
    """Denoising steps as data, solver included; a slice of it is a part of the way.

    A step of DDIM takes (x_0, eps) from one noise level to the next. DPM-Solver++(2M) does the same
    once it has moved x_0 on by its change since the step before, and eps by what keeps x_t.

    Attributes:
      timesteps: int32 [S], decreasing.
      alphas_next: float32 [S], alpha_bar after each step; 1 after the last.
      clean_weights, noise_weights: float32 [S], how much of that change is added to x_0, and taken
        from eps; 0 for DDIM.
    """

    timesteps: np.ndarray
    alphas_next: np.ndarray
    clean_weights: np.ndarray
    noise_weights: np.ndarray

    @classmethod
    def trailing(cls, diffusion: Diffusion, steps: int, solver: str = "ddim") -> "Schedule":
        """Evenly spaced steps from T - 1: the "trailing" spacing of 2305.08891, table 2.

        The only spacing that starts at pure noise, as a zero-terminal-SNR model needs.

        Args:
          solver: "ddim", eta = 0 (2010.02502, Eq. 12), or "dpm++" for fewer steps: DPM-Solver++(2M)
            (2211.01095, algorithm 2), of first order at both ends.

        Raises:
          InputError: steps outside 1 .. T, or an unknown solver.
        """
        if solver not in SOLVERS:
            raise InputError(f"solver {solver!r}: choose {' or '.join(SOLVERS)}")
        total = diffusion.num_timesteps
        if not 1 <= steps <= total:
            raise InputError(f"steps is {steps}: use 1 to {total}")
        timesteps = np.round(total - np.arange(steps) * (total / steps)).astype(np.int32) - 1
        alphas = diffusion.alphas_cumprod[timesteps]
        clean = np.zeros(steps)
        if solver == "dpm++":
            # Log signal-to-noise ratio; the last alpha_bar may be 0, where the order is 1 anyway.
            half_log = np.log(np.maximum(alphas, ZERO_SNR_ALPHA) / (1 - alphas)) / 2
            stride = np.diff(half_log)
            clean[1:-1] = stride[1:] / (2 * stride[:-1])
        noise = clean * np.sqrt(alphas / (1 - alphas))
        alphas_next = np.append(alphas[1:], 1.0)
        return cls(timesteps, *(x.astype(np.float32) for x in (alphas_next, clean, noise)))

    def slices(self, count: int) -> list["Schedule"]:
        """Equal parts, so that one program serves all; at least `count`, or single steps."""
        steps = len(self.timesteps)
        longest = max(1, steps // count)
        length = max(n for n in range(1, longest + 1) if steps % n == 0)
        starts = range(0, steps, length)
        return [jax.tree.map(lambda x, i=i: x[i : i + length], self) for i in starts]


@struct.dataclass
class Trajectory:
    """How far a clip is denoised.

    Attributes:
      latents: float32 [B, F, h, w, c].
      clean: the last prediction of the clean latents, the same shape.
    """

    latents: jax.Array
    clean: jax.Array

    @classmethod
    def start(cls, noise: jax.Array) -> "Trajectory":
        """At pure noise, nothing predicted."""
        return cls(noise, jnp.zeros_like(noise))


def windows(num_frames: int, window: int, overlap: int) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping windows that cover a clip evenly.

    Returns:
      int32 [n, w], the frames of each window, w = min(window, num_frames); float32 [n, w], weights
      that ramp linearly over the overlaps and sum to 1 at every frame.
    """
    if num_frames <= window:
        return np.arange(num_frames)[None].astype(np.int32), np.ones((1, num_frames), np.float32)
    count = int(np.ceil((num_frames - overlap) / (window - overlap)))
    starts = np.round(np.linspace(0, num_frames - window, count)).astype(np.int32)
    indices = starts[:, None] + np.arange(window, dtype=np.int32)
    ramp = np.minimum(np.arange(1, window + 1), np.arange(window, 0, -1)).clip(max=overlap + 1)
    weights = np.tile(ramp.astype(np.float64), (count, 1))
    weights[0, : window // 2] = weights[-1, window // 2 :] = overlap + 1
    total = np.zeros(num_frames)
    np.add.at(total, indices, weights)
    return indices, (weights / total[indices]).astype(np.float32)


def sample(
    model: Durian,
    params: dict,
    batch: dict,
    key: jax.Array,
    guidance: jax.Array,
    schedule: Schedule,
    *,
    diffusion: Diffusion,
    options: SamplerOptions,
) -> jax.Array:
    """A video for every clip of the batch; jit it with model and keywords fixed.

    Args:
      batch: the batch contract without `video`; keypoints [B, F, K, 2] set the number of frames.
      guidance: float32 scalar, classifier-free guidance scale (2207.12598); 1 = no guidance.

    Returns:
      float32 [B, F, H, W, 3], about [-1, 1].
    """
    conditions, features = encode(model, params, batch)
    start = Trajectory.start(initial_noise(model, key, *features.shape[:2]))
    end = denoise(
        model, params, start, conditions, features, guidance, schedule,
        diffusion=diffusion, options=options,
    )  # fmt: skip
    return decode(model, params, end.latents)


def from_config(model: Durian, diffusion: Diffusion, settings) -> Callable:
    """`sample` by the settings of `config.sample`.

    Args:
      settings: steps, solver, guidance, window and overlap.

    Returns:
      A function of (params, batch, key) to videos, as `sample` gives them.
    """
    options = SamplerOptions(settings.window, settings.overlap, guided=settings.guidance != 1)
    schedule = Schedule.trailing(diffusion, settings.steps, settings.solver)

    def run(params: dict, batch: dict, key: jax.Array) -> jax.Array:
        guidance = jnp.float32(settings.guidance)
        return sample(
            model, params, batch, key, guidance, schedule, diffusion=diffusion, options=options
        )

    return run


def encode(model: Durian, params: dict, batch: dict) -> tuple[Conditions, jax.Array]:
    """What stays the same over all steps: conditions, and keypoint features [B, F, h, w, C0]."""
    variables = {"params": params}
    conditions = model.apply(variables, batch, method="encode_conditions")
    features = _per_frame(
        lambda keypoints: model.apply(variables, keypoints, method="encode_keypoints"),
        batch["keypoints"],
    )
    return conditions, features


def initial_noise(model: Durian, key: jax.Array, clips: int, frames: int) -> jax.Array:
    """float32 [B, F, h, w, c]."""
    return jax.random.normal(key, (clips, frames, *model.config.latent_shape), jnp.float32)


def denoise(
    model: Durian,
    params: dict,
    trajectory: Trajectory,
    conditions: Conditions,
    features: jax.Array,
    guidance: jax.Array,
    schedule: Schedule,
    *,
    diffusion: Diffusion,
    options: SamplerOptions,
) -> Trajectory:
    """The trajectory after the steps of the schedule.

    Clips longer than a window are predicted window by window at each step and the predictions
    blended, so that all windows share one noise and one trajectory.
    """
    indices, weights = windows(trajectory.latents.shape[1], options.window, options.overlap)

    def predict(z, t, features):
        t = jnp.broadcast_to(t, z.shape[:1])
        variables = {"params": params}
        wanted = model.apply(variables, z, t, features, conditions, method="denoise")
        if not options.guided:
            return wanted
        unwanted = model.apply(variables, z, t, features, None, method="denoise")
        return unwanted + guidance * (wanted - unwanted)

    def predict_clip(z, t):
        if len(indices) == 1:
            return predict(z, t, features)
        parts = jax.lax.map(lambda i: predict(z[:, i], t, features[:, i]), jnp.asarray(indices))
        parts = jnp.moveaxis(parts * weights[:, None, :, None, None, None], 0, 1)
        return jnp.zeros_like(z).at[:, indices].add(parts)

    def step(at, now):
        z = at.latents
        x_0, eps = diffusion.split(predict_clip(z, now.timesteps), z, now.timesteps[None])
        change = x_0 - at.clean
        clean, noise = x_0 + now.clean_weights * change, eps - now.noise_weights * change
        z = jnp.sqrt(now.alphas_next) * clean + jnp.sqrt(1 - now.alphas_next) * noise
        return Trajectory(z, x_0), None

    return jax.lax.scan(step, trajectory, schedule)[0]


def decode(model: Durian, params: dict, latents: jax.Array) -> jax.Array:
    """float32 [B, F, H, W, 3], about [-1, 1]."""
    return _per_frame(lambda z: model.apply({"params": params}, z, method="decode_video"), latents)


def to_uint8(video: jax.Array) -> jax.Array:
    """Pictures in [-1, 1], any shape, as uint8."""
    return jnp.round(jnp.clip(video * 127.5 + 127.5, 0, 255)).astype(jnp.uint8)


def _per_frame(function: Callable, x: jax.Array) -> jax.Array:
    """function over [B, 1, ...] slices of [B, F, ...]: bounds the memory of full-size pictures."""
    frames = jax.lax.map(lambda frame: function(frame[:, None])[:, 0], jnp.moveaxis(x, 1, 0))
    return jnp.moveaxis(frames, 0, 1)
