"""The diffusion process: noise schedule, prediction types and loss weights.

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

import jax
import jax.numpy as jnp
import numpy as np

PREDICTIONS = ("v", "eps", "x0")


@dataclasses.dataclass(frozen=True)
class Diffusion:
    """A discrete diffusion process.

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

    def draw_timesteps(self, key, shape=()):
        """Timesteps to train at, int32 in [0, T)."""
        if self.timestep_shift == 1:
            return jax.random.randint(key, shape, 0, self.num_timesteps)
        return self.timesteps_at(jax.random.uniform(key, shape))

    def timesteps_at(self, u):
        """The timestep below which training draws a share u in [0, 1] of all, int32 in [0, T)."""
        s = self.timestep_shift
        drawn = jnp.int32(self.num_timesteps * s * u / (1 + (s - 1) * u))
        # Rounding may bring the largest u to T.
        return jnp.minimum(drawn, self.num_timesteps - 1)

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
        alphas = self.alphas_cumprod
        shape = timesteps.shape + (1,) * (ndim - timesteps.ndim)
        signal = jnp.asarray(np.sqrt(alphas), jnp.float32)[timesteps].reshape(shape)
        sigma = jnp.asarray(np.sqrt(1 - alphas), jnp.float32)[timesteps].reshape(shape)
        return signal, sigma
