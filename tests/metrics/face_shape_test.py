import numpy as np
import pytest

from durian_jax.metrics import face_shape
from input_pipeline.faces import geometry
from input_pipeline.faces.geometry import posed
from input_pipeline.motion import retarget


@pytest.fixture(scope="module")
def people():
    """Pose-free shapes [478, 3]: the mean head, and a narrower one with a longer nose."""
    mean = np.load(retarget._ASSETS / "head_mesh.npy").astype(np.float64) * [1, -1, -1]
    mean = geometry.pose_free(mean, *geometry.head_pose(mean))
    nose = np.exp(-((mean - mean[4]) ** 2).sum(-1) / 0.05)[:, None]
    return mean, mean * [0.94, 1.0, 1.0] + 0.06 * nose * [0, 1, 0]


def _filmed(shape, angles):
    """The face [T, 478, 3] in pixels at yaws in degrees, nodding along, in several sizes."""
    yaw = np.radians(angles)
    turn = np.zeros((len(yaw), 3, 3))
    turn[:, 0, 0] = turn[:, 2, 2] = np.cos(yaw)
    turn[:, 0, 2], turn[:, 2, 0], turn[:, 1, 1] = np.sin(yaw), -np.sin(yaw), 1
    size = np.linspace(30, 60, len(yaw))
    return posed(np.broadcast_to(shape, (len(yaw), 478, 3)), turn, size, np.full((len(yaw), 3), 64))


def test_the_portraits_own_shape_leaks_nothing_and_the_drivers_all(people):
    own, other = people
    portrait, driver = face_shape.face_shape(own[None]), face_shape.face_shape(other[None])
    assert face_shape.leak(portrait, portrait, driver) == 0
    assert face_shape.leak(driver, portrait, driver) == pytest.approx(1)
    assert face_shape.distance(portrait, portrait) == 0 < face_shape.distance(portrait, driver)


def test_pose_size_and_place_do_not_count(people):
    own, other = people
    portrait, driver = face_shape.face_shape(own[None]), face_shape.face_shape(other[None])
    turned = [face_shape.face_shape(_filmed(one, np.linspace(-30, 30, 7))) for one in people]
    assert face_shape.leak(turned[0], portrait, driver) < 0.02
    assert face_shape.leak(turned[1], portrait, driver) > 0.98


def test_a_face_half_way_leaks_a_half_and_beyond_the_ends_is_at_the_ends(people):
    one, other = people
    portrait, driver = face_shape.face_shape(one[None]), face_shape.face_shape(other[None])
    for share, wanted in ((0.5, 0.5), (-0.3, 0.0), (1.4, 1.0)):
        between = portrait + share * (driver - portrait)
        assert face_shape.leak(between, portrait, driver) == pytest.approx(wanted)
    assert np.isnan(face_shape.leak(driver, portrait, portrait))


def test_a_change_that_is_neither_s_counts_for_neither(people):
    one, other = people
    portrait, driver = face_shape.face_shape(one[None]), face_shape.face_shape(other[None])
    way = (driver - portrait).ravel()
    aside = np.random.default_rng(0).normal(size=way.shape)
    aside -= way * (aside @ way) / (way @ way)
    moved = portrait + 0.05 * aside.reshape(portrait.shape)
    assert face_shape.leak(moved, portrait, driver) == pytest.approx(0, abs=1e-9)
    assert face_shape.distance(moved, portrait) > 0.02


def test_an_open_mouth_counts_for_nothing(people):
    one, other = people
    portrait, driver = face_shape.face_shape(one[None]), face_shape.face_shape(other[None])
    speaking = retarget.retarget(_speaking(one), _filmed(one, [0.0])[0])
    assert face_shape.leak(face_shape.face_shape(speaking), portrait, driver) < 0.05


def _speaking(shape):
    """The face whose mouth opens by a fifth of the eye distance."""
    opening = np.linspace(0, 0.2, 9)[:, None, None]
    shapes = shape + opening * retarget._JAW
    return _filmed(shapes, np.zeros(9))
