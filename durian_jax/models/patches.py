"""Patches of latents as tokens, with positions."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class PositionTable:
    """Sinusoids of two coordinates, diffusers' `get_2d_sincos_pos_embed`.

    Attributes:
        side: of the table, in tokens.
        step: between neighbours.
        width: channels C; 4 divides it.
    """

    side: int
    step: float
    width: int

    def window(self, rows: int, columns: int, place: int = 0) -> np.ndarray:
        """Positions of a picture's tokens, float32 [rows * columns, C].

        Its first half of channels tells the column, its second the row, sines before cosines.

        Args:
            place: how many widths the window stands to the right of the middle one.
        """
        down = self._waves((self.side - rows) // 2, rows)
        across = self._waves((self.side - columns) // 2 + place * columns, columns)
        shape = rows, columns, self.width // 2
        halves = np.broadcast_to(across[None], shape), np.broadcast_to(down[:, None], shape)
        return np.concatenate(halves, axis=-1).reshape(rows * columns, -1).astype(np.float32)

    def _waves(self, first: int, count: int) -> np.ndarray:
        """float64 [count, C / 2]."""
        half = self.width // 4
        coordinates = (first + np.arange(count)) * self.step
        angles = coordinates[:, None] / 10000.0 ** (np.arange(half) / half)
        return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


class Patches(nn.Module):
    """Latents [..., h, w, c] -> tokens [..., S, C] of patches, with their positions."""

    patch: int
    positions: PositionTable
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, latents: jax.Array, place: int = 0) -> jax.Array:
        """place: see `PositionTable.window`."""
        *lead, height, width, channels = latents.shape
        p, rows, columns = self.patch, height // self.patch, width // self.patch
        x = latents.astype(self.dtype).reshape(*lead, rows, p, columns, p, channels)
        x = jnp.moveaxis(x, -4, -3).reshape(*lead, rows * columns, p * p * channels)
        tokens = _PatchKernel(p, self.positions.width, self.dtype, name="proj")(x)
        return (tokens + self.positions.window(rows, columns, place)).astype(self.dtype)


def unpatched(tokens: jax.Array, patch: int, shape: tuple[int, ...]) -> jax.Array:
    """Tokens [..., S, patch * patch * c], row by row -> pictures of the shape [..., h, w, c]."""
    *lead, height, width, channels = shape
    x = tokens.reshape(*lead, height // patch, width // patch, patch, patch, channels)
    return jnp.moveaxis(x, -3, -4).reshape(shape)


class _PatchKernel(nn.Module):
    """A convolution whose strides are its window, on windows that were laid out before."""

    patch: int
    width: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = self.patch, self.patch, x.shape[-1] // self.patch**2, self.width
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        return x @ kernel.astype(self.dtype).reshape(-1, self.width) + bias.astype(self.dtype)
