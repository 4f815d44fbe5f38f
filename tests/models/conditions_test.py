import jax
import jax.numpy as jnp
import numpy as np
import pytest

from durian_jax.models.conditions import (
    _ANCHORS,
    FaceProjection,
    KeypointEncoder,
    face_coordinates,
    position_features,
    rasterize_keypoints,
)

SIZE = 64
CHIN = 152
draw = jax.jit(rasterize_keypoints, static_argnums=1)


@pytest.fixture(scope="module")
def face():
    """Keypoints [1, 1, 478, 2] on a circle of radius 20 about (32, 30), shuffled along it."""
    angle = np.random.default_rng(0).permutation(478) / 478 * 2 * np.pi
    circle = np.stack([32 + 20 * np.cos(angle), 30 + 20 * np.sin(angle)], axis=-1)
    return circle[None, None].astype(np.float32)


def _line(start, stop):
    """Every point at `start` but the chin, at `stop`: two white edges of the oval meet there."""
    points = np.broadcast_to(np.float32(start), (1, 1, 478, 2)).copy()
    points[..., CHIN, :] = stop
    return points


@pytest.mark.parametrize("size", [64, 512])
def test_lines_lie_where_the_points_are_without_gaps(size):
    """A level line through pixel centres, as long as any edge of a face that fills the picture."""
    row, start, stop = size // 3, size // 2, size // 2 + int(0.08 * size)
    picture = np.array(draw(_line((start, row), (stop, row)), size))[0, 0]
    assert picture.shape == (size, size, 3)
    inside = picture[row, start + 1 : stop - 1]
    assert inside.min() > 0.85
    assert inside.max() - inside.min() < 0.05
    picture[row - 2 : row + 3, start - 3 : stop + 3] = 0
    assert picture.max() < 0.01


def test_pictures_move_with_the_points(face):
    still = np.asarray(draw(face, SIZE))
    moved = np.asarray(draw(face + np.float32([3, -2]), SIZE))
    np.testing.assert_allclose(moved[:, :, 5:-5, 5:-5], still[:, :, 7:-3, 2:-8], rtol=0, atol=1e-4)
    half = np.asarray(draw(face + np.float32([0.5, 0]), SIZE))
    assert np.abs(half - still).max() > 0.1


def test_points_off_screen_leave_no_trace(face):
    for shift in ([100, 0], [-100, 0], [0, 100], [0, -100]):
        assert draw(face + np.float32(shift), SIZE).max() == 0


def test_colours_tell_the_eyes_apart_and_stay_in_range(face):
    picture = np.asarray(draw(face, SIZE))
    assert picture.min() >= 0
    assert picture.max() <= 1
    right, left = np.zeros((2, 1, 1, 478, 2), np.float32) - 100
    right[..., [33, 133], :] = left[..., [263, 362], :] = 30
    right, left = (np.asarray(draw(points, SIZE)).sum((0, 1, 2, 3)) for points in (right, left))
    assert right[0] > 1
    assert left[2] > 1
    assert right[2] == left[0] == 0


def test_frames_are_drawn_independently(face):
    clip = np.concatenate([face, face + 5], axis=1)
    out = draw(clip, SIZE)
    np.testing.assert_allclose(out[:, :1], draw(face, SIZE), rtol=0, atol=1e-6)
    np.testing.assert_allclose(out[:, 1:], draw(face + 5, SIZE), rtol=0, atol=1e-6)


def test_keypoint_encoder_size_stride_and_silent_start():
    """The pose guider of Animate Anyone's public re-implementation: 1,086,480 parameters."""
    full = KeypointEncoder((16, 32, 96, 256), 320)
    pictures = jax.ShapeDtypeStruct((2, 512, 512, 3), jnp.float32)
    out, params = jax.eval_shape(full.init_with_output, jax.random.key(0), pictures)
    assert out.shape == (2, 64, 64, 320)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 1_086_480
    assert sorted(params["params"]) == [*(f"blocks_{i}" for i in range(6)), "conv_in", "conv_out"]

    tiny = KeypointEncoder((4, 8), 6)
    out, _ = jax.jit(tiny.init_with_output)(jax.random.key(0), np.ones((1, 8, 8, 3), np.float32))
    assert np.abs(out).max() == 0


def _mean_face(angle=0.0, scale=10.0, shift=(32.0, 30.0)):
    """Keypoints [1, 1, 478, 2]: the mean face, turned, scaled and moved; others far away."""
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    points = np.full((478, 2), -1e3)
    points[list(_ANCHORS)] = scale * np.array(list(_ANCHORS.values())) @ turn + shift
    return np.float32(points[None, None]), turn


def test_face_coordinates_undo_a_similarity_everywhere():
    points, turn = _mean_face(angle=0.3, scale=12.0, shift=(28.0, 35.0))
    found = np.asarray(face_coordinates(points, SIZE, 16))[0, 0]
    centres = (np.arange(16) + 0.5) * 4 - 0.5
    x, y = np.meshgrid(centres, centres)
    expected = (np.stack([x, y], -1) - [28.0, 35.0]) @ turn.T / 12.0
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_face_coordinates_follow_a_point_that_moves_near_it_and_not_far_away():
    points, _ = _mean_face()
    lip = 17
    # Onto the centre of a cell, 2 pixels below where it was.
    cell = np.round((points[0, 0, lip] + [0, 2] + 0.5) / 4 - 0.5).astype(int)
    opened = points.copy()
    opened[0, 0, lip] = (cell + 0.5) * 4 - 0.5
    plain, bent = (np.asarray(face_coordinates(p, SIZE, 16))[0, 0] for p in (points, opened))
    at_lip = bent[cell[1], cell[0]]
    assert np.abs(at_lip - _ANCHORS[lip]).max() < 0.05
    changes = np.abs(bent - plain).max(-1)
    assert changes[cell[1], cell[0]] > 0.1
    assert changes[0].max() < 0.25 * changes[cell[1], cell[0]]  # above the head


def test_near_places_have_like_features_and_far_ones_not():
    line = np.stack([np.linspace(0, 4, 81), np.zeros(81)], -1)
    features = np.asarray(position_features(line, 8.0, 5))
    assert features.shape == (81, 20)
    likeness = features @ features[0] / features.shape[1]
    assert likeness[0] > likeness[1] > likeness[2] > 0.8 * likeness[0]
    assert likeness[20:].max() < 0.85 * likeness[0]


def test_coordinates_change_features_where_asked_for():
    encoder = KeypointEncoder((4, 8, 8), 6, coordinates=True)
    pictures = np.zeros((1, 16, 16, 3), np.float32)
    places = np.random.default_rng(0).standard_normal((2, 1, 4, 4, 2)).astype(np.float32)
    one, params = jax.jit(encoder.init_with_output)(jax.random.key(0), pictures, places[0])
    other = jax.jit(encoder.apply)(params, pictures, places[1])
    assert one.shape == (1, 4, 4, 6) and np.abs(one - other).max() > 0.1


def test_face_projection_makes_four_normalised_tokens():
    faces = np.random.default_rng(0).standard_normal((2, 32)).astype(np.float32)
    tokens, _ = jax.jit(FaceProjection(24).init_with_output)(jax.random.key(0), faces)
    assert tokens.shape == (2, 4, 24)
    np.testing.assert_allclose(tokens.mean(-1), 0, atol=1e-6)
    np.testing.assert_allclose(tokens.std(-1), 1, rtol=1e-3)
