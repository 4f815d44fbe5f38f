"""Decoding large pictures tile by tile: memory follows the tile, not the picture.

diffusers' `AutoencoderKL.enable_tiling`: tiles overlap by a quarter and are blended linearly. The
autoencoder's norms and its attention then see a tile only, so colours may differ a little from
tile to tile; a picture that fits into memory is better decoded whole.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from durian_jax.diffusion.windows import blend, spread


def decode(function: Callable, latents: jax.Array, tile: int, factor: int) -> jax.Array:
    """function over overlapping tiles of the latents, blended.

    Args:
      function: latents [b, k, k, c] to pictures [b, k * factor, k * factor, 3].
      latents: [b, h, w, c].
      tile: side k in latent cells, at least 4; one that is not below h and w decodes all at once.
      factor: pixels per latent cell, each way.

    Returns:
      float32 [b, h * factor, w * factor, 3].
    """
    height, width = latents.shape[1:3]
    if tile >= max(height, width):
        return function(latents)
    rows, down = _line(height, tile, factor)
    columns, across = _line(width, tile, factor)
    places = [(i, j) for i in range(len(rows)) for j in range(len(columns))]
    starts = jnp.array([(rows[i], columns[j]) for i, j in places])
    weights = jnp.array([np.outer(down[i], across[j]) for i, j in places])[..., None]
    size = (min(tile, height), min(tile, width))

    def add(whole, now):
        (y, x), weight = now
        part = jax.lax.dynamic_slice(latents, (0, y, x, 0), (len(latents), *size, latents.shape[3]))
        at = (0, y * factor, x * factor, 0)
        picture = function(part) * weight
        before = jax.lax.dynamic_slice(whole, at, picture.shape)
        return jax.lax.dynamic_update_slice(whole, before + picture, at), None

    blank = jnp.zeros((len(latents), height * factor, width * factor, 3), jnp.float32)
    return jax.lax.scan(add, blank, (starts, weights))[0]


def _line(cells: int, tile: int, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """First cells of the tiles along a line, and their weights at each pixel, which sum to 1."""
    length, overlap = min(tile, cells), tile // 4
    starts = spread(cells, tile, overlap)
    return starts, blend(starts * factor, length * factor, cells * factor, overlap * factor)
