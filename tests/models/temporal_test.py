import jax
import numpy as np
import pytest

from durian_jax.models.temporal import MotionModule, frame_positions

MODULE = MotionModule(width=8, heads=2, groups=2, max_frames=4)


@pytest.fixture(scope="module")
def clip():
    return np.random.default_rng(0).standard_normal((2, 4, 3, 3, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def params(fill, clip):
    return fill(jax.eval_shape(MODULE.init, jax.random.key(0), clip))


def test_a_fresh_module_is_the_identity(clip):
    params = jax.jit(MODULE.init)(jax.random.key(0), clip)
    np.testing.assert_array_equal(jax.jit(MODULE.apply)(params, clip), clip)


def test_frames_see_each_other_at_the_same_pixel_only(params, clip):
    apply = jax.jit(MODULE.apply)
    # A perturbation that leaves the statistics of both groups of channels as they were: of eighths
    # sums are exact in any order.
    clip = np.round(8 * clip) / 8
    other = clip.copy()
    other[0, 1, 0, 0], other[0, 1, 2, 2] = clip[0, 1, 2, 2], clip[0, 1, 0, 0]
    changed = np.abs(apply(params, other) - apply(params, clip)).max(-1)
    assert (changed[0, :, 0, 0] > 1e-4).all()
    assert (changed[0, :, 2, 2] > 1e-4).all()
    changed[0, :, 0, 0] = changed[0, :, 2, 2] = 0
    assert changed.max() < 1e-6


def test_the_order_of_frames_matters(params, clip):
    apply = jax.jit(MODULE.apply)
    backwards = apply(params, clip[:, ::-1])[:, ::-1]
    assert np.abs(backwards - apply(params, clip)).max() > 1e-3


def test_statistics_belong_to_one_frame(params, clip):
    """Otherwise a frame would change with the brightness of its neighbours in the window."""
    outer = jax.tree.map(np.copy, params)
    outer["params"]["transformer_blocks_0"] = jax.tree.map(
        np.zeros_like, outer["params"]["transformer_blocks_0"]
    )
    apply = jax.jit(MODULE.apply)
    scaled = clip * np.array([1, 1, 1, 5], np.float32)[:, None, None, None]
    out = apply(outer, scaled)[:, :3]
    np.testing.assert_array_equal(out, apply(outer, clip)[:, :3])


def test_positions_alternate_sine_and_cosine():
    positions = frame_positions(5, 6)
    np.testing.assert_allclose(positions[0], [0, 1, 0, 1, 0, 1])
    np.testing.assert_allclose(positions[3, :2], [np.sin(3), np.cos(3)], rtol=1e-6)
    np.testing.assert_allclose(positions[3, 2], np.sin(3 / 10000 ** (1 / 3)), rtol=1e-6)


def test_too_long_a_clip_is_refused(params, clip):
    with pytest.raises(ValueError, match=r"5 frames exceeds max_frames=4"):
        MODULE.apply(params, np.zeros((1, 5, 3, 3, 8), np.float32))
