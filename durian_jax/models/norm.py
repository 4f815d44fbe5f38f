"""Normalisation of pictures, clips and tokens."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class GroupNorm(nn.Module):
    """GroupNorm (arXiv 1803.08494) with the parameters of flax's: scale and bias [C].

    Equal to flax's but for rounding. That one sums over pixels and over the channels of a group at
    once, for which XLA's CPU code takes up to twice as long as channel by channel. Statistics
    are float32 whatever the dtype.

    Attributes:
        groups: number of groups, a divisor of C.
        epsilon: added to the variance.
        axes: what the statistics are taken over besides the channels of a group.
        dtype: of the result.
    """

    groups: int
    epsilon: float
    axes: tuple[int, ...] = (-3, -2)
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x [..., h, w, C] -> the same shape."""
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        x = x.astype(jnp.float32)
        mean, square = (self._mean(each) for each in (x, jnp.square(x)))
        # Rounding can bring the difference below zero.
        variance = jnp.maximum(square - jnp.square(mean), 0.0)
        factor = jax.lax.rsqrt(variance + self.epsilon) * scale
        return ((x - mean) * factor + bias).astype(self.dtype)

    def _mean(self, x: jax.Array) -> jax.Array:
        """Of every channel its group's, [..., C] with 1 along `axes`."""
        means = x.mean(self.axes, keepdims=True)
        grouped = means.reshape(*means.shape[:-1], self.groups, -1).mean(-1)
        return jnp.repeat(grouped, x.shape[-1] // self.groups, axis=-1)


def plain_layer_norm(x: jax.Array) -> jax.Array:
    """LayerNorm of tokens [..., C] without parameters (1607.06450), epsilon 1e-6; of x's dtype."""
    wide = x.astype(jnp.float32)
    wide = wide - wide.mean(-1, keepdims=True)
    variance = jnp.square(wide).mean(-1, keepdims=True)
    return (wide * jax.lax.rsqrt(variance + 1e-6)).astype(x.dtype)
