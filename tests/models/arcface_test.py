import jax
import jax.numpy as jnp
import numpy as np
import pytest

from durian_jax.models.arcface import IResNet, IResNetConfig

TINY = IResNetConfig((2, 1), (4, 8), image_size=16, embedding=6, dtype="float32")


@pytest.fixture(scope="module")
def faces():
    return np.random.default_rng(0).uniform(-1, 1, (3, 16, 16, 3)).astype(np.float32)


def test_full_size_is_insightfaces_r100():
    """65.16 M weights; the running statistics, buffers in torch, come on top."""
    faces = jax.ShapeDtypeStruct((1, 112, 112, 3), jnp.float32)
    params = jax.eval_shape(IResNet(IResNetConfig()).init, jax.random.key(0), faces)["params"]
    leaves = jax.tree_util.tree_leaves_with_path(params)
    statistics = sum(leaf.size for path, leaf in leaves if path[-1].key in ("mean", "var"))
    assert sum(leaf.size for _, leaf in leaves) - statistics == 65_156_160
    assert params["fc"]["kernel"].shape == (512 * 7 * 7, 512)
    assert sorted(params["layer3_0"]) == [
        "bn1", "bn2", "bn3", "conv1", "conv2", "downsample_0", "downsample_1", "prelu",
    ]  # fmt: skip
    assert "layer3_29" in params
    assert "layer3_30" not in params


def test_embeddings_are_unit_vectors_of_single_faces(fill, faces):
    network = IResNet(TINY)
    params = fill(jax.eval_shape(network.init, jax.random.key(0), faces))
    apply = jax.jit(network.apply)
    out = apply(params, faces)
    np.testing.assert_allclose(np.linalg.norm(out, axis=-1), 1, rtol=1e-6)
    # Stored statistics: a face's embedding does not depend on the others in its batch.
    other = np.concatenate([faces[:1], 3 * faces[1:]])
    np.testing.assert_allclose(apply(params, other)[0], out[0], rtol=0, atol=1e-6)
    assert np.abs(out[0] - out[1]).max() > 0.01


def test_stages_without_a_width_are_refused():
    with pytest.raises(ValueError, match="3 stages in layers, 4 in widths"):
        IResNetConfig(layers=(1, 1, 1))
