"""Tiles, on a decoder that sees nothing but its cell, and on the real one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from durian_jax import tiles
from durian_jax.models.autoencoder import AutoencoderConfig, AutoencoderKL


def _enlarge(latents):
    """Twice the size, every pixel a function of its own cell alone."""
    return jnp.sin(latents[..., :3]).repeat(2, 1).repeat(2, 2)


@pytest.mark.parametrize("height,width,tile", [(16, 16, 6), (9, 21, 8), (8, 8, 8), (5, 16, 8)])
def test_a_decoder_that_sees_only_its_cell_gives_the_same_in_tiles(height, width, tile):
    latents = jax.random.normal(jax.random.key(0), (2, height, width, 4))
    whole = _enlarge(latents)
    seen = []

    def decode(part):
        seen.append(part.shape)
        return _enlarge(part)

    np.testing.assert_allclose(tiles.decode(decode, latents, tile, 2), whole, atol=1e-6)
    assert max(max(shape[1:3]) for shape in seen) <= tile


def test_tiles_of_the_autoencoder_join_without_a_step():
    config = AutoencoderConfig((8, 8), 1, norm_groups=4, dtype="float32")
    model = AutoencoderKL(config)
    rng = np.random.default_rng(0)
    images = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
    shapes = jax.eval_shape(
        lambda x: model.init(
            jax.random.key(0), x, method=lambda m, x: m.decode(m.encode(x))
        ),
        images,
    )  # fmt: skip
    variables = jax.tree.map(lambda leaf: rng.normal(0, 0.2, leaf.shape).astype("f4"), shapes)

    def decode(latents):
        return model.apply(variables, latents, method="decode")

    # A smooth scene, whose parts are alike: what steps there are would come from the tiles.
    y, x = np.mgrid[:24, :24] / 24
    latents = jnp.asarray(np.stack([y, x, y * x, x - y], -1)[None], jnp.float32)
    whole, tiled = (jax.jit(decode)(latents), tiles.decode(decode, latents, 16, 2))
    assert tiled.shape == whole.shape == (1, 48, 48, 3)

    def largest_step(picture):
        return max(float(np.abs(np.diff(picture, axis=axis)).max()) for axis in (1, 2))

    assert largest_step(tiled) <= 1.1 * largest_step(whole)
    assert np.abs(tiled - whole).mean() < 0.2 * np.std(whole)
