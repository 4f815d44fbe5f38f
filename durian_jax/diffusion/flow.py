"""Rectified flow: straight lines from data to noise, as Stable Diffusion 3 takes them.

With sigma = t / 1000 in [0, 1]:

    x_t = (1 - sigma) x_0 + sigma eps       Liu et al. 2022, 2209.03003; Esser et al. 2024,
    v   = eps - x_0                         2403.03206, Eq. 13, which the network predicts

A step of DDIM from sigma to sigma' is then one of Euler: x + (sigma' - sigma) v. A network on
patches of pixels predicts x_0 instead and is trained by the error of the v that this stands for
(Li & He 2025, 2511.13720).
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri

from input_pipeline.errors import InputError

_CLEAN = 0.05  # sigma below which a picture counts as clean, as in 2511.13720


@dataclasses.dataclass(frozen=True)
class Flow:
    """A `Process` whose times t are float32 in [0, 1000], of any value.

    Attributes:
      process: "flow".
      prediction: what the network predicts, "v" or "x0".
      shift: s; sigma = s u / (1 + (s - 1) u), above 1 more noise (2403.03206, Eq. 23), in training
        and sampling alike. 3 is Stable Diffusion 3.5's.
      logit_mean, logit_std: training draws u as the sigmoid of such a normal number (Eq. 19).

    Raises:
      ValueError: unknown prediction, or a value out of range.
    """

    process: str = "flow"
    prediction: str = "v"
    shift: float = 3.0
    logit_mean: float = 0.0
    logit_std: float = 1.0

    num_timesteps: ClassVar[int] = 1000
    noise_offset: ClassVar[float] = 0.0

    def __post_init__(self):
        if self.prediction not in ("v", "x0"):
            raise ValueError(f"diffusion.prediction {self.prediction!r}: a flow has v or x0")
        for name in ("shift", "logit_std"):
            if not getattr(self, name) > 0:
                raise ValueError(f"diffusion.{name} is {getattr(self, name):g}: use above 0")

    def draw(self, key, shape=()):
        """Times to train at."""
        return self.times_at(jax.random.uniform(key, shape))

    def times_at(self, u):
        """The time below which training draws a share u in [0, 1] of all."""
        normal = self.logit_mean + self.logit_std * ndtri(jnp.asarray(u, jnp.float32))
        return self.num_timesteps * self._shifted(jax.nn.sigmoid(normal))

    def level(self, t):
        """sigma, below 1."""
        return jnp.minimum(t / jnp.float32(self.num_timesteps), 1 - 1e-6)

    def spaced(self, steps, spacing="trailing"):
        """The times of diffusers' FlowMatchEulerDiscreteScheduler, float32.

        Evenly from 1 to the shifted 1 / 1000, and then all shifted, that end a second time.

        Raises:
          InputError: steps outside 1 .. 1000, or another spacing than "trailing".
        """
        if not 1 <= steps <= self.num_timesteps:
            raise InputError(f"steps is {steps}: use 1 to {self.num_timesteps}")
        if spacing != "trailing":
            raise InputError(
                f"spacing {spacing!r}: this model is a flow from pure noise: use 'trailing'"
            )
        least = self._shifted(1 / self.num_timesteps)
        return (self.num_timesteps * self._shifted(np.linspace(1, least, steps))).astype("f4")

    def scales(self, t):
        """1 - sigma, sigma, float64."""
        sigma = np.asarray(t, np.float64) / self.num_timesteps
        return 1 - sigma, sigma

    def add_noise(self, x_0, noise, t):
        """x_t. x_0, noise [B, F, ...]; t [B] or [B, F]."""
        sigma = self._sigma(t, x_0.ndim)
        return (1 - sigma) * x_0 + sigma * noise

    def target(self, x_0, noise, t):
        """The velocity, or x_0."""
        del t
        return x_0 if self.prediction == "x0" else noise - x_0

    def split(self, prediction, x_t, t):
        """(x_0, eps) that a prediction at x_t stands for."""
        sigma = self._sigma(t, x_t.ndim)
        if self.prediction == "x0":
            return prediction, (x_t - (1 - sigma) * prediction) / jnp.maximum(sigma, _CLEAN)
        return x_t - sigma * prediction, x_t + (1 - sigma) * prediction

    def loss_weight(self, t):
        """1 where v is predicted: how often a time is drawn is its weight. 1 / sigma^2, at most
        400, where x_0 is: the error of v then."""
        if self.prediction == "x0":
            return jnp.maximum(self._sigma(t, t.ndim), _CLEAN) ** -2
        return jnp.ones(t.shape, jnp.float32)

    def _shifted(self, u):
        return self.shift * u / (1 + (self.shift - 1) * u)

    def _sigma(self, t, ndim):
        t = jnp.asarray(t, jnp.float32)
        return t.reshape(t.shape + (1,) * (ndim - t.ndim)) / self.num_timesteps
