"""Solvers (DDIM, DPM-Solver++, LCM), their schedule and the sampler state; no model."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from durian_jax.diffusion.process import Diffusion
from input_pipeline.errors import InputError

# Stands for an alpha_bar of 0 where its logarithm is needed; diffusers takes the same.
ZERO_SNR_ALPHA = 2.0**-24
SOLVERS = ("ddim", "dpm++", "lcm")


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How clips are sampled. Guidance is data; other steps, solvers to or from "lcm", and windows
    compile programs of their own.

    Attributes:
      steps: denoising steps, 1 to T.
      solver: "ddim", eta = 0 (2010.02502, Eq. 12); "dpm++" for fewer steps: DPM-Solver++(2M)
        (2211.01095, algorithm 2), of first order at both ends; "lcm" for 1 to 8 steps: each
        predicts the clean clip and adds new noise (2303.01469, algorithm 1), what consistency
        models and their kin are made for. Others get blurred by it.
      guidance: classifier-free guidance scale (2207.12598); 1 = none.
      guidance_interval: share of the way (from, to), 0 to 1, where guidance acts (2404.07724);
        steps outside it cost half as much.
      guidance_rescale: 0 to 1, how far the guided prediction takes the standard deviation of the
        conditional one (2305.08891, Eq. 15-16), frame by frame.
      window: frames denoised together; a longer clip goes in several, see `windows`.
      overlap: least number of frames that neighbouring windows share.

    Raises:
      InputError: a value out of range, or an unknown solver.
    """

    steps: int = 30
    solver: str = "ddim"
    guidance: float = 3.5
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    guidance_rescale: float = 0.0
    window: int = 24
    overlap: int = 4

    def __post_init__(self):
        if self.solver not in SOLVERS:
            raise InputError(f"solver {self.solver!r}: choose {', '.join(SOLVERS)}")
        if not np.isfinite(self.guidance) or self.guidance < 0:
            raise InputError(f"guidance {self.guidance:g}: use 0 or more; 1 is none, 2 to 5 usual")
        begin, end = self.guidance_interval
        if not 0 <= begin <= end <= 1:
            raise InputError(
                f"guidance interval {begin:g}:{end:g}: use shares of the way from 0 to 1, such as "
                "0.2:0.8"
            )
        if not 0 <= self.guidance_rescale <= 1:
            raise InputError(f"guidance rescale {self.guidance_rescale:g}: use 0 (off) to 1")
        if self.window < 1:
            raise InputError(f"window {self.window}: use 1 frame or more")
        if not 0 <= self.overlap < self.window:
            raise InputError(
                f"overlap {self.overlap}: use 0 to {self.window - 1} for windows of {self.window}"
            )

    @classmethod
    def from_settings(cls, settings) -> "Sampling":
        """Those fields that `config.sample` has."""
        fields = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in settings.items() if name in fields})

    def changed(self, **values) -> "Sampling":
        """With other values where they are not None."""
        return dataclasses.replace(self, **{k: v for k, v in values.items() if v is not None})


@struct.dataclass
class Schedule:
    """Denoising steps as data, solver and guidance included; a slice of it is a part of the way.

    A step of DDIM takes (x_0, eps) from one noise level to the next. DPM-Solver++(2M) does the same
    once it has moved x_0 on by its change since the step before, and eps by what keeps x_t. LCM
    takes new noise for eps.

    Attributes:
      timesteps: int32 [S], decreasing.
      alphas_next: float32 [S], alpha_bar after each step; 1 after the last.
      clean_weights, noise_weights: float32 [S], how much of that change is added to x_0, and taken
        from eps; 0 for DDIM.
      renewed: int32 [S], the draw of new noise that is taken for eps; None for solvers without.
      guidance, rescale: float32 [S], see Sampling; a guidance of 1 spares the unconditional half.
    """

    timesteps: np.ndarray
    alphas_next: np.ndarray
    clean_weights: np.ndarray
    noise_weights: np.ndarray
    renewed: np.ndarray | None
    guidance: np.ndarray
    rescale: np.ndarray

    @classmethod
    def trailing(cls, diffusion: Diffusion, sampling: Sampling) -> "Schedule":
        """Evenly spaced steps from T - 1: the "trailing" spacing of 2305.08891, table 2.

        The only spacing that starts at pure noise, as a zero-terminal-SNR model needs.

        Raises:
          InputError: steps outside 1 .. T.
        """
        total, steps = diffusion.num_timesteps, sampling.steps
        if not 1 <= steps <= total:
            raise InputError(f"steps is {steps}: use 1 to {total}")
        timesteps = np.round(total - np.arange(steps) * (total / steps)).astype(np.int32) - 1
        alphas = diffusion.alphas_cumprod[timesteps]
        clean = np.zeros(steps)
        if sampling.solver == "dpm++":
            # Log signal-to-noise ratio; the last alpha_bar may be 0, where the order is 1 anyway.
            half_log = np.log(np.maximum(alphas, ZERO_SNR_ALPHA) / (1 - alphas)) / 2
            stride = np.diff(half_log)
            clean[1:-1] = stride[1:] / (2 * stride[:-1])
        noise = clean * np.sqrt(alphas / (1 - alphas))
        alphas_next = np.append(alphas[1:], 1.0)
        begin, end = sampling.guidance_interval
        way = np.arange(steps) / steps
        return cls(
            timesteps,
            *(x.astype(np.float32) for x in (alphas_next, clean, noise)),
            renewed=timesteps if sampling.solver == "lcm" else None,
            guidance=np.where((begin <= way) & (way < end), sampling.guidance, 1).astype("f4"),
            rescale=np.full(steps, sampling.guidance_rescale, np.float32),
        )

    def slices(self, count: int) -> list["Schedule"]:
        """Equal parts, so that one program serves all; at least `count`, or single steps."""
        steps = len(self.timesteps)
        longest = max(1, steps // count)
        length = max(n for n in range(1, longest + 1) if steps % n == 0)
        return [self.part(slice(i, i + length)) for i in range(0, steps, length)]

    def part(self, which: int | slice) -> "Schedule":
        """One step, without the axis S, or some."""
        return jax.tree.map(lambda x: x[which], self)


@struct.dataclass
class Trajectory:
    """How far some frames of each clip are denoised.

    Attributes:
      latents: float32 [B, F, h, w, c].
      clean: the last prediction of the clean latents, the same shape.
      seeds: uint32 [B], of each clip's noise.
      frames: int32 [F], their places in the clip.
    """

    latents: jax.Array
    clean: jax.Array
    seeds: jax.Array
    frames: jax.Array

    @classmethod
    def start(cls, noise, seeds=None, frames=None) -> "Trajectory":
        """At pure noise, nothing predicted. Seeds (0) and frames (all) matter to "lcm" alone."""
        if seeds is None:
            seeds = jnp.zeros(noise.shape[0], jnp.uint32)
        if frames is None:
            frames = jnp.arange(noise.shape[1], dtype=jnp.int32)
        return cls(noise, jnp.zeros_like(noise), seeds, frames)


def noise_of(seeds: jax.Array, frames: jax.Array, timestep, shape: tuple) -> jax.Array:
    """float32 [B, F, *shape]: seeds uint32 [B], numbers of frames int32 [F]; each frame's own."""

    def draw(seed, frame):
        key = jax.random.fold_in(jax.random.key(seed), frame)
        return jax.random.normal(jax.random.fold_in(key, timestep), shape, jnp.float32)

    return jax.vmap(jax.vmap(draw, (None, 0)), (0, None))(seeds, frames)


def advance(
    diffusion: Diffusion, at: Trajectory, prediction: jax.Array, now: Schedule
) -> Trajectory:
    """The trajectory after one step, frame by frame alone."""
    x_0, eps = diffusion.split(prediction, at.latents, now.timesteps[None])
    change = x_0 - at.clean
    clean, noise = x_0 + now.clean_weights * change, eps - now.noise_weights * change
    if now.renewed is not None:
        noise = noise_of(at.seeds, at.frames, now.renewed, noise.shape[2:])
    z = jnp.sqrt(now.alphas_next) * clean + jnp.sqrt(1 - now.alphas_next) * noise
    return at.replace(latents=z, clean=x_0)
