import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.data import astronaut

from durian_jax.models.autoencoder import (
    AutoencoderConfig,
    AutoencoderKL,
    CosinePatches,
    Patchify,
    _cosines,
)

TINY = AutoencoderKL(AutoencoderConfig((8, 8), 1, 4, norm_groups=4, dtype="float32"))


def _round_trip(module, images):
    return module.decode(module.encode(images))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(-1, 1, (2, 3, 8, 8, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def params(fill, images):
    return fill(jax.eval_shape(lambda: TINY.init(jax.random.key(0), images, method=_round_trip)))


def test_full_size_is_stable_diffusions():
    module = AutoencoderKL(AutoencoderConfig())
    images = jax.ShapeDtypeStruct((1, 512, 512, 3), jnp.float32)
    out, params = jax.eval_shape(
        lambda x: module.init_with_output(jax.random.key(0), x, method=_round_trip), images
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 83_653_863
    assert out.shape == images.shape
    assert (module.channels, module.factor) == (4, 8)
    attention = params["params"]["decoder"]["mid_block"]["attentions_0"]
    assert sorted(attention) == ["group_norm", "to_k", "to_out_0", "to_q", "to_v"]


def test_latents_are_scaled_moments(params, images):
    mean, logvar = jax.jit(lambda p, x: TINY.apply(p, x, method="moments"))(params, images)
    encode = jax.jit(lambda p, x, noise: TINY.apply(p, x, noise, method="encode"))
    latents = encode(params, images, None)
    assert latents.shape == (2, 3, 4, 4, 4)
    np.testing.assert_allclose(latents, mean * 0.18215, rtol=1e-5)

    noise = jax.random.normal(jax.random.key(0), latents.shape)
    sample = encode(params, images, noise) / 0.18215
    np.testing.assert_allclose((sample - mean) / np.exp(0.5 * logvar), noise, atol=1e-4)


def test_the_encoder_pads_after_the_last_pixel_only(params):
    """A stride-2 convolution of the VAE reads pixels 2i to 2i+2; a U-Net's reads 2i-1 to 2i+1."""

    def down(module, x):
        return module.encoder.down_blocks[0].downsamplers[0](x)

    x = np.zeros((1, 6, 6, 8), np.float32)
    x[0, 2, 2] = 1
    touched = np.abs(TINY.apply(params, x, method=down) - TINY.apply(params, 0 * x, method=down))
    cells = np.argwhere(touched[0].max(-1) > 0)
    np.testing.assert_array_equal(cells, [[0, 0], [0, 1], [1, 0], [1, 1]])


def test_frames_and_batches_fold_away(params, images):
    apply = jax.jit(lambda p, x: TINY.apply(p, x, method=_round_trip))
    out = apply(params, images)
    assert out.shape == images.shape
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out[1, 2], apply(params, images[1, 2]), rtol=0, atol=1e-5)


def test_patches_come_back_exactly():
    images = np.random.default_rng(0).uniform(-1, 1, (2, 3, 12, 8, 3)).astype(np.float32)
    patchify = Patchify(4)
    latents = patchify.encode(images)
    assert latents.shape == (2, 3, 12 // patchify.factor, 8 // patchify.factor, patchify.channels)
    np.testing.assert_array_equal(patchify.decode(latents), images)
    # A cell holds its own patch of the picture.
    np.testing.assert_array_equal(
        np.sort(latents[1, 2, 2, 1]), np.sort(2 * images[1, 2, 8:12, 4:8].ravel())
    )


def test_patches_have_unit_variance():

    latents = Patchify(8).encode(astronaut()[None].astype(np.float32) / 127.5 - 1)
    assert 0.7 < latents.std() < 1.4


def test_groups_that_do_not_divide_a_width_are_refused():
    with pytest.raises(ValueError, match="norm_groups=5 does not divide the width 8"):
        AutoencoderConfig((8, 8), norm_groups=5)


@pytest.mark.parametrize("patch", [2, 4, 8])
def test_cosine_patches_are_an_orthogonal_map_of_the_frequencies_they_keep(patch):
    model = CosinePatches(patch)
    shape = (2, 3, 4, 4, patch**2 + 2 * (patch // 2) ** 2)
    assert model.channels == shape[-1] and model.factor == patch
    latents = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    images = model.decode(latents)
    assert images.shape == (2, 3, 4 * patch, 4 * patch, 3)
    np.testing.assert_allclose(model.encode(images), latents, atol=1e-4)


def test_cosine_patches_keep_all_brightness_and_flat_colour():
    rng = np.random.default_rng(0)
    model = CosinePatches(4)
    grey = np.repeat(rng.uniform(-1, 1, (1, 1, 16, 16, 1)), 3, axis=-1).astype(np.float32)
    np.testing.assert_allclose(model.decode(model.encode(grey)), grey, atol=1e-5)
    flat = rng.uniform(-1, 1, (1, 1, 4, 4, 3)).repeat(4, axis=2).repeat(4, axis=3)
    np.testing.assert_allclose(model.decode(model.encode(np.float32(flat))), flat, atol=1e-5)


def test_cosine_patches_of_a_photo_have_about_unit_variance_and_lose_little():
    photo = np.float32(astronaut()[:256, 96:352]) / 127.5 - 1
    small = photo.reshape(64, 4, 64, 4, 3).mean((1, 3))[None, None]
    model = CosinePatches(4)
    latents = np.asarray(model.encode(small))
    assert 0.5 < latents.std() < 2
    # Orthonormal frequencies of this photo differ 142 times in strength.
    raw = np.asarray(model.encode(small)) / _cosines(4)[1]
    spread = [x.max() / x.min() for x in (latents.std((0, 1, 2, 3)), raw.std((0, 1, 2, 3)))]
    assert spread[0] < spread[1] / 5
    error = np.square(np.asarray(model.decode(model.encode(small))) - small).mean() / 4
    assert -10 * np.log10(error) > 32
