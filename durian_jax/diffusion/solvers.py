"""Solvers (DDIM, DPM-Solver++, LCM), their schedule and the sampler state; no model."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from durian_jax.diffusion.process import Process
from input_pipeline.errors import InputError

# Stands for a signal of 0 where its logarithm is needed; diffusers takes the same.
ZERO_SIGNAL = 2.0**-12
SOLVERS = ("ddim", "dpm++", "lcm")
SPACINGS = ("trailing", "leading")
STARTS = ("noise", "source")
WINDOWS = ("overlapping", "circular", "chained")


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How clips are sampled. Guidance is data; other steps, solvers to or from "lcm", and windows
    compile programs of their own.

    Solvers: "ddim", eta = 0 (2010.02502, Eq. 12), on a flow Euler's method; "dpm++",
    DPM-Solver++(2M) (2211.01095, algorithm 2), of first order at both ends; "lcm": each step
    predicts the clean clip and adds new noise (2303.01469, algorithm 1), what consistency models
    are made for; others get blurred by it.

    Attributes:
      steps: denoising steps, 1 to those of training.
      solver: ddim, dpm++ for about half the steps, or lcm for 1 to 8 of a distilled model.
      guidance: classifier-free guidance scale (2207.12598), 1 = none; of a system with several
        conditions a scale for each.
      guidance_interval: fraction of the steps, from noise (0) to picture (1), where guidance
        acts (2404.07724), such as 0.2:0.8; 0:1 = always; steps outside it cost half as much.
      guidance_rescale: against the contrast that much guidance adds: how far a frame takes the
        standard deviation of the prediction without it (2305.08891, Eq. 15-16), 0 = off, to 1.
      window: frames denoised together; a longer clip goes in several.
      overlap: least number of frames that neighbouring windows share.
      windows: overlapping, in constant memory, or circular: through the end to the beginning, from
        another frame at each step; that holds the whole clip's latents; or chained: one after the
        other, in constant memory, each told how the one before it ends, by models that can be.
      spacing: of the steps: trailing, from pure noise down to clean latents, or leading, as a model
        of X-Portrait's kind was made for: from some signal, often one step more, down to little
        noise.
      start: noise, or source: the portrait under as much noise as there is in training.

    Raises:
      InputError: a value out of range, or an unknown name.
    """

    steps: int = 30
    solver: Literal[SOLVERS] = "ddim"
    guidance: float | tuple[float, ...] = 3.5
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    guidance_rescale: float = 0.0
    window: int = 24
    overlap: int = 4
    windows: Literal[WINDOWS] = "overlapping"
    spacing: Literal[SPACINGS] = "trailing"
    start: Literal[STARTS] = "noise"

    def __post_init__(self):
        names = {"solver": SOLVERS, "windows": WINDOWS, "spacing": SPACINGS, "start": STARTS}
        for name, known in names.items():
            if getattr(self, name) not in known:
                raise InputError(f"{name} {getattr(self, name)!r}: choose {', '.join(known)}")
        for scale in self.scales:
            if not np.isfinite(scale) or scale < 0:
                raise InputError(f"guidance {scale:g}: use 0 or more; 1 is none, 2 to 5 usual")
        begin, end = self.guidance_interval
        if not 0 <= begin <= end <= 1:
            raise InputError(
                f"guidance interval {begin:g}:{end:g}: use fractions of the steps from 0 to 1, "
                "such as 0.2:0.8"
            )
        if not 0 <= self.guidance_rescale <= 1:
            raise InputError(f"guidance rescale {self.guidance_rescale:g}: use 0 (off) to 1")
        if self.window < 1:
            raise InputError(f"window {self.window}: use 1 frame or more")
        if not 0 <= self.overlap < self.window:
            raise InputError(
                f"overlap {self.overlap}: use 0 to {self.window - 1} for windows of {self.window}"
            )

    @property
    def scales(self) -> tuple[float, ...]:
        """The guidance scale of each condition."""
        return tuple(np.atleast_1d(self.guidance).tolist())

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
    """Denoising steps as data, solver and guidance included.

    A step of DDIM takes (x_0, eps) from one noise level to the next. DPM-Solver++(2M) does the same
    once it has moved x_0 on by its change since the step before, and eps by what keeps x_t. LCM
    takes new noise for eps.

    Attributes:
      times: [S], decreasing, as the process has them.
      signal_next, sigma_next: float32 [S], scales after each step; after the last 1 and 0, with
        leading spacing those of time 0.
      clean_weights, noise_weights: float32 [S], how much of that change is added to x_0, and taken
        from eps; 0 for DDIM.
      renewed: int32 [S], the draw of new noise that is taken for eps; None for solvers without.
      guidance: float32 [S, K], the scale of each of a system's K `parts`.
      rescale: float32 [S], see Sampling.
    """

    times: np.ndarray
    signal_next: np.ndarray
    sigma_next: np.ndarray
    clean_weights: np.ndarray
    noise_weights: np.ndarray
    renewed: np.ndarray | None
    guidance: np.ndarray
    rescale: np.ndarray

    @classmethod
    def build(cls, process: Process, sampling: Sampling) -> "Schedule":
        """The steps of `Process.spaced`.

        Raises:
          InputError: steps that the process does not have.
        """
        times = process.spaced(sampling.steps, sampling.spacing)
        steps = len(times)
        signal, sigma = process.scales(times)
        clean = np.zeros(steps)
        if sampling.solver == "dpm++":
            # Log of the amplitude's signal-to-noise ratio; order 1 where the signal is 0.
            stride = np.diff(np.log(np.maximum(signal, ZERO_SIGNAL) / sigma))
            clean[1:-1] = stride[1:] / (2 * stride[:-1])
        noise = clean * signal / sigma
        begin, end = sampling.guidance_interval
        fraction = np.arange(steps) / steps
        inside = ((begin <= fraction) & (fraction < end))[:, None]
        ends = process.scales(np.array(0)) if sampling.spacing == "leading" else (1.0, 0.0)
        after = np.append(signal[1:], ends[0]), np.append(sigma[1:], ends[1])
        return cls(
            times,
            *(x.astype(np.float32) for x in (*after, clean, noise)),
            renewed=np.arange(steps, dtype=np.int32) if sampling.solver == "lcm" else None,
            guidance=np.where(inside, sampling.scales, 1).astype("f4"),
            rescale=np.full(steps, sampling.guidance_rescale, np.float32),
        )

    def __len__(self) -> int:
        return len(self.times)

    def step(self, i: int) -> "Schedule":
        """One step, without the axis S."""
        return jax.tree.map(lambda x: x[i], self)


def branch_weights(scales: jax.Array) -> jax.Array:
    """Weights of the predictions whose sum is the guided one.

    Conditions are nested: branch k is given the first k parts, and scale k says how far to go from
    branch k - 1 to branch k. The guided prediction p_0 + sum_k s_k (p_k - p_{k-1}) has the weights
    s_k - s_{k+1}, with s_0 = 1 and s_{K+1} = 0; with one part that is classifier-free guidance.

    Args:
      scales: float32 [K].

    Returns:
      float32 [K + 1], that sum to 1.
    """
    ends = jnp.concatenate([jnp.ones(1), scales, jnp.zeros(1)])
    return ends[:-1] - ends[1:]


@struct.dataclass
class SamplerState:
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
    def start(cls, noise, seeds=None, frames=None) -> "SamplerState":
        """At pure noise, nothing predicted. Seeds (0) and frames (all) matter to "lcm" alone."""
        if seeds is None:
            seeds = jnp.zeros(noise.shape[0], jnp.uint32)
        if frames is None:
            frames = jnp.arange(noise.shape[1], dtype=jnp.int32)
        return cls(noise, jnp.zeros_like(noise), seeds, frames)


def noise_of(seeds: jax.Array, frames: jax.Array, number, shape: tuple) -> jax.Array:
    """float32 [B, F, *shape]; that of a frame depends on seed, place and number alone.

    Args:
      seeds: uint32 [B]. frames: int32 [F], places in the clip.
      number: which draw of them.
    """

    def draw(seed, frame):
        key = jax.random.fold_in(jax.random.key(seed), frame)
        return jax.random.normal(jax.random.fold_in(key, number), shape, jnp.float32)

    return jax.vmap(jax.vmap(draw, (None, 0)), (0, None))(seeds, frames)


def advance(
    process: Process, at: SamplerState, prediction: jax.Array, now: Schedule
) -> SamplerState:
    """The state after one step, each frame by itself."""
    x_0, eps = process.split(prediction, at.latents, now.times[None])
    change = x_0 - at.clean
    clean, noise = x_0 + now.clean_weights * change, eps - now.noise_weights * change
    if now.renewed is not None:
        noise = noise_of(at.seeds, at.frames, now.renewed, noise.shape[2:])
    return at.replace(latents=now.signal_next * clean + now.sigma_next * noise, clean=x_0)
