"""Noise processes: schedule, prediction types and loss weights. Flows: `flow.py`.

With alpha_bar_t the cumulative signal power of step t (0 <= t < T), clean latents x_0 and noise
eps ~ N(0, 1):

    x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps      Ho et al. 2020, 2006.11239
    v_t = sqrt(alpha_bar_t) eps - sqrt(1 - alpha_bar_t) x_0      Salimans & Ho 2022, 2202.00512
    SNR_t = alpha_bar_t / (1 - alpha_bar_t)

The paper writes the eps loss (Eq. 10, 11); the code lineage it follows trains v with rescaled,
zero-terminal-SNR betas, the default here. Patches of pixels want x_0: noise fills all their
channels, which a network of few channels cannot hand on, while pictures do not (Li & He 2025,
2511.13720).
"""

import dataclasses
from collections.abc import Mapping
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from durian_jax.diffusion.flow import Flow
from input_pipeline.errors import InputError

PREDICTIONS = ("v", "eps", "x0")


class Process(Protocol):
    """What training and sampling need of a noise process: x_t = signal(t) x_0 + sigma(t) eps.

    Times t have the shape [B], or [B, F] where each frame has its own; x_0, noise, x_t and
    predictions are float32 [B, F, ...].

    Attributes:
      num_timesteps: T, the end of all times; most sampling steps.
      noise_offset: standard deviation of a per-clip, per-channel constant added to the noise.
    """

    num_timesteps: int
    noise_offset: float

    def draw(self, key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
        """Times to train at."""

    def times_at(self, u: jax.Array) -> jax.Array:
        """The time below which `draw` falls with a probability u in [0, 1]."""

    def level(self, t: jax.Array) -> jax.Array:
        """How far t is from clean (0) to noise (below 1), float32 of its shape."""

    def spaced(self, steps: int, spacing: str = "trailing") -> np.ndarray:
        """Decreasing times to sample at: `steps` of them from pure noise, where it is "trailing";
        see `Discrete.spaced`."""

    def scales(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """signal(t), sigma(t), float64 of the shape of t."""

    def add_noise(self, x_0: jax.Array, noise: jax.Array, t: jax.Array) -> jax.Array:
        """x_t."""

    def target(self, x_0: jax.Array, noise: jax.Array, t: jax.Array) -> jax.Array:
        """What the network should predict."""

    def split(self, prediction: jax.Array, x_t: jax.Array, t: jax.Array) -> tuple:
        """(x_0, eps) that a prediction at x_t stands for."""

    def loss_weight(self, t: jax.Array) -> jax.Array:
        """Of the squared error, float32 of the shape of t."""


def make_process(values: Mapping) -> Process:
    """The process of `config.diffusion`: a Flow where its `process` is "flow", else Discrete.

    Raises:
      ValueError: unknown fields, or values that do not fit together.
    """
    kind = values.get("process", "discrete")
    if kind not in ("discrete", "flow"):
        raise ValueError(f"diffusion.process {kind!r}: choose discrete or flow")
    if kind == "flow":
        return _from_fields(Flow, values)
    return _from_fields(Discrete, {k: v for k, v in values.items() if k != "process"})


def _from_fields(kind: type, values: Mapping):
    known = [field.name for field in dataclasses.fields(kind)]
    for name in values:
        if name not in known:
            raise ValueError(f"diffusion has no field {name!r}; it has {', '.join(known)}")
    return kind(**values)


@dataclasses.dataclass(frozen=True)
class Discrete:
    """A diffusion over T discrete timesteps, t = 0 .. T - 1, int32.

    Attributes:
      num_timesteps: T.
      beta_start, beta_end: ends of the scaled-linear schedule, beta = (linear in sqrt(beta))^2, as
        in Stable Diffusion.
      zero_terminal_snr: rescale so that the last step is pure noise (Lin et al. 2023, 2305.08891).
      prediction: what the network predicts, "v", "eps" or "x0".
      min_snr_gamma: gamma of the min-SNR loss weight (Hang et al. 2023, 2303.09556); 0: none.
      noise_offset: standard deviation of a per-clip, per-channel constant added to the noise.
      timestep_shift: s; training draws t / T = s u / (1 + (s - 1) u) with u uniform (Esser et al.
        2024, 2403.03206, Eq. 23): above 1 more noise than the uniform timesteps of s = 1.

    Raises:
      ValueError: unknown prediction, or eps with zero terminal SNR, where eps says nothing of x_0.
    """

    num_timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    zero_terminal_snr: bool = True
    prediction: str = "v"
    min_snr_gamma: float = 5.0
    noise_offset: float = 0.05
    timestep_shift: float = 1.0

    def __post_init__(self):
        if self.prediction not in PREDICTIONS:
            raise ValueError(f"diffusion.prediction {self.prediction!r}: choose v, eps or x0")
        if self.prediction == "eps" and self.zero_terminal_snr:
            raise ValueError(
                "diffusion.prediction 'eps' cannot work with zero_terminal_snr: "
                "set diffusion.zero_terminal_snr=False or predict 'v'"
            )
        if not self.timestep_shift > 0:
            raise ValueError(
                f"diffusion.timestep_shift is {self.timestep_shift:g}: use above 0; 1 is uniform"
            )

    @property
    def alphas_cumprod(self) -> np.ndarray:
        """float64 [T], alpha_bar_t, decreasing; the last is exactly 0 with zero terminal SNR."""
        roots = np.linspace(self.beta_start**0.5, self.beta_end**0.5, self.num_timesteps)
        signal = np.sqrt(np.cumprod(1 - roots**2))
        if self.zero_terminal_snr:
            # 2305.08891, algorithm 1: shift the last sqrt(alpha_bar) to 0, keep the first.
            signal = (signal - signal[-1]) * signal[0] / (signal[0] - signal[-1])
        return signal**2

    def draw(self, key, shape=()):
        """Timesteps to train at, int32 in [0, T)."""
        if self.timestep_shift == 1:
            return jax.random.randint(key, shape, 0, self.num_timesteps)
        return self.times_at(jax.random.uniform(key, shape))

    def times_at(self, u):
        """The timestep below which training draws a share u in [0, 1] of all, int32 in [0, T)."""
        s = self.timestep_shift
        drawn = jnp.int32(self.num_timesteps * s * u / (1 + (s - 1) * u))
        # Rounding may bring the largest u to T.
        return jnp.minimum(drawn, self.num_timesteps - 1)

    def level(self, t):
        """t / T, float32."""
        return t / jnp.float32(self.num_timesteps)

    def spaced(self, steps, spacing="trailing"):
        """Evenly spaced timesteps, see 2305.08891, table 2.

        "trailing": from T - 1. The only spacing that starts at pure noise, as a zero-terminal-SNR
        model needs. "leading": down to 1 at whole distances of T // steps, as the first code of
        latent diffusion samples; where that does not divide T, there are more of them than steps.

        Raises:
          InputError: steps outside 1 .. T, or "leading" ones that would begin beyond T - 1.
        """
        total = self.num_timesteps
        if not 1 <= steps <= total:
            raise InputError(f"steps is {steps}: use 1 to {total}")
        if spacing == "leading":
            times = np.arange(0, total, total // steps, np.int32)[::-1] + 1
            if times[0] >= total:
                fits = [n for n in range(1, total + 1) if (total - 1) % (total // n)]
                near = sorted(fits, key=lambda n: abs(n - steps))[:2]
                raise InputError(
                    f"steps is {steps}: with leading spacing the first of them would be at "
                    f"{times[0]}, beyond {total - 1}: use {' or '.join(map(str, sorted(near)))}"
                )
            return times
        return np.round(total - np.arange(steps) * (total / steps)).astype(np.int32) - 1

    def scales(self, t):
        """sqrt(alpha_bar_t), sqrt(1 - alpha_bar_t), float64."""
        alphas = self.alphas_cumprod[t]
        return np.sqrt(alphas), np.sqrt(1 - alphas)

    def add_noise(self, x_0, noise, timesteps):
        """x_t. x_0, noise [B, F, ...]; timesteps int32 [B], or [B, F], a frame's own."""
        signal, sigma = self._scales(timesteps, x_0.ndim)
        return signal * x_0 + sigma * noise

    def target(self, x_0, noise, timesteps):
        """What the network should predict, [B, ...]."""
        if self.prediction == "eps":
            return noise
        if self.prediction == "x0":
            return x_0
        signal, sigma = self._scales(timesteps, x_0.ndim)
        return signal * noise - sigma * x_0

    def split(self, prediction, x_t, timesteps):
        """(x_0, eps) that a prediction at x_t stands for, [B, ...] each."""
        signal, sigma = self._scales(timesteps, x_t.ndim)
        if self.prediction == "eps":
            return (x_t - sigma * prediction) / signal, prediction
        if self.prediction == "x0":
            return prediction, (x_t - signal * prediction) / sigma
        return signal * x_t - sigma * prediction, sigma * x_t + signal * prediction

    def loss_weight(self, timesteps):
        """float32, of the shape of `timesteps`: the min-SNR weight of the squared error.

        eps: min(SNR, gamma) / SNR. v: min(SNR + 1, gamma) / (SNR + 1), the form of the
        AnimateAnyone lineage: it keeps weight 1 at zero SNR, from where sampling starts.
        x0: min(SNR + 1, gamma), which makes it the same objective as v.
        """
        if not self.min_snr_gamma:
            return jnp.ones(timesteps.shape, jnp.float32)
        alphas = self.alphas_cumprod
        snr = alphas / (1 - alphas) + (self.prediction != "eps")
        weights = np.minimum(snr, self.min_snr_gamma)
        if self.prediction != "x0":
            weights /= snr
        return jnp.asarray(weights, jnp.float32)[timesteps]

    def _scales(self, timesteps, ndim):
        """sqrt(alpha_bar_t), sqrt(1 - alpha_bar_t), float32, shaped to multiply [B, F, ...]."""
        shape = timesteps.shape + (1,) * (ndim - timesteps.ndim)
        tables = self.scales(np.arange(self.num_timesteps))
        return tuple(jnp.asarray(x, jnp.float32)[timesteps].reshape(shape) for x in tables)
