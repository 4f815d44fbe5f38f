import jax
import jax.numpy as jnp
import numpy as np
import pytest

from durian_jax.models.clip import ClipConfig, CLIPVisionTower, clip_pixels

TINY = ClipConfig(16, 32, 2, 2, image_size=8, patch_size=4, projection_dim=6, dtype="float32")


def test_full_size_is_vit_l_14():
    images = jax.ShapeDtypeStruct((2, 512, 512, 3), jnp.float32)
    tower = CLIPVisionTower(ClipConfig())
    embeds, params = jax.eval_shape(tower.init_with_output, jax.random.key(0), images)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 303_966_208
    assert (embeds.shape, embeds.dtype) == ((2, 768), jnp.float32)


def test_pixels_are_the_centre_crop_normalised():
    """A wide picture: grey left and right, white in the middle square."""
    image = np.full((1, 32, 64, 3), 0.2, np.float32)
    image[:, :, 16:48] = 1
    pixels = np.asarray(clip_pixels(image, 16))
    assert pixels.shape == (1, 16, 16, 3)
    white = (1 - np.array([0.48145466, 0.4578275, 0.40821073])) / np.array(
        [0.26862954, 0.26130258, 0.27577711]
    )
    # Bicubic weights reach two pixels across the edge.
    np.testing.assert_allclose(pixels[0, :, 2:-2], np.broadcast_to(white, (16, 12, 3)), atol=1e-4)


def test_shrinking_averages_instead_of_skipping():
    stripes = np.zeros((1, 64, 64, 3), np.float32)
    stripes[:, :, ::2] = 1
    grey = clip_pixels(np.full((1, 64, 64, 3), 0.5, np.float32), 16)
    inner = np.asarray(clip_pixels(stripes, 16) - grey)[:, 2:-2, 2:-2]
    assert np.abs(inner).max() < 0.1


def test_embeddings_are_those_of_transformers(fill):
    """Golden: CLIPVisionModelWithProjection of transformers 5 with these very parameters."""
    tower = CLIPVisionTower(TINY)
    images = np.random.default_rng(0).random((2, 8, 8, 3)).astype(np.float32)
    params = fill(jax.eval_shape(tower.init, jax.random.key(0), images))
    embeds = jax.jit(tower.apply)(params, images)
    golden = [1.648877, 0.7404768, 0.29536214, -1.9155717, 0.42017546, -0.03416833]
    np.testing.assert_allclose(embeds[0], golden, rtol=0, atol=1e-5)


def test_sizes_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="patch_size=14 does not divide image_size=225"):
        ClipConfig(image_size=225)
    with pytest.raises(ValueError, match="heads=7 does not divide hidden_size=1024"):
        ClipConfig(heads=7)
