import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from skimage.data import astronaut

from input_pipeline.errors import InputError
from input_pipeline.faces import geometry
from input_pipeline.faces.landmarker import FaceLandmarker
from input_pipeline.kinds import KINDS
from input_pipeline.masks import alignment

SIZE = 160


@pytest.fixture(scope="module")
def head():
    """float [478, 3]: the astronaut's face without its pose, outer-canthal distance 1."""
    points = FaceLandmarker().track([astronaut()]).keypoints[0]
    turn, size, place = geometry.head_pose(points)
    return (points - place) @ turn / size


def posed(head, yaw=0.0, pitch=0.0, roll=0.0, span=28.0, place=(80.0, 85.0)):
    turn = Rotation.from_euler("ZYX", [roll, -yaw, -pitch], degrees=True).as_matrix()
    return span * head @ turn.T + [*place, 0]


def disc(x, y, radius):
    rows, columns = np.mgrid[:SIZE, :SIZE]
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


def centre(mask):
    return np.argwhere(mask).mean(0)[::-1]


def overlap(first, second):
    return (first & second).sum() / (first | second).sum()


def shell(points, radius=1.15):
    """Silhouette of a cap of hair: an ellipsoid round the skull, drawn from its own points."""
    turn, size, place = geometry.head_pose(points)
    ball = np.random.default_rng(0).normal(size=(200_000, 3))
    ball /= np.linalg.norm(ball, axis=1, keepdims=True)
    surface = ball * np.array([0.95, 1.3, 1.05]) * radius + [0, 0, 1.0]
    x, y = np.round(size * (surface @ turn.T)[:, :2] + place[:2]).astype(int).T
    mask = np.zeros((SIZE, SIZE), bool)
    inside = (x >= 0) & (y >= 0) & (x < SIZE) & (y < SIZE)
    mask[y[inside], x[inside]] = True
    return mask


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_stays_where_it_is_on_the_same_head(head, kind):
    points = posed(head, yaw=15, pitch=-5)
    mask = disc(85, 45, 30) if kind in ("hair", "hat") else disc(80, 90, 15)
    assert overlap(alignment.align(mask, points, points, kind, SIZE), mask) > 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_shift_scale_and_tilt_of_the_head_move_the_mask_alike(head, kind):
    source = posed(head, yaw=10)
    tilt = Rotation.from_euler("z", 12, degrees=True).as_matrix()
    middle = np.array([80, 85, 0])
    portrait = 1.2 * (source - middle) @ tilt.T + middle + [6, -4, 0]
    top = source[10, :2] if kind in ("hair", "hat") else source[[168, 152]][:, :2].mean(0)
    expected = 1.2 * ([*top, 0] - middle) @ tilt.T + middle + [6, -4, 0]
    carried = alignment.align(disc(*top, 12), source, portrait, kind, SIZE)
    assert overlap(carried, disc(*expected[:2], 12 * 1.2)) > 0.9


def beard(points):
    """The lower half of the face, drawn from its keypoints."""
    lower = [i for i in geometry.CONTOURS["oval"][0] if points[i, 1] > points[2, 1]] + [2]
    mask = np.zeros((SIZE, SIZE), np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(np.float32(points[lower, :2])).astype(int), 1)
    return mask > 0


def in_the_plane(mask, source, portrait):
    """The peer: a similarity of all keypoints."""
    matrix = geometry.similarity(source[:, :2], portrait[:, :2])
    return cv2.warpAffine(np.float32(mask), matrix, (SIZE, SIZE)) > 0.5


def test_a_beard_stays_on_a_turning_face(head):
    source, portrait = posed(head, yaw=-17, pitch=8), posed(head, yaw=16, pitch=-6)
    truth, flat = beard(portrait), in_the_plane(beard(source), source, portrait)
    carried = alignment.align(beard(source), source, portrait, "beard", SIZE)
    assert overlap(carried, truth) > overlap(flat, truth) + 0.2


def test_the_mask_follows_the_shape_of_another_face(head):
    long_chin = head.copy()
    low = head[:, 1] > head[1, 1]
    long_chin[low, 1] += 0.4 * (head[low, 1] - head[1, 1])
    source, portrait = posed(head), posed(long_chin)
    carried = alignment.align(disc(*source[152, :2], 6), source, portrait, "beard", SIZE)
    assert np.linalg.norm(centre(carried) - portrait[152, :2]) < 4
    assert portrait[152, 1] - source[152, 1] > 6


def test_hair_keeps_its_outline_on_a_turning_head(head):
    source, portrait = posed(head, yaw=-18), posed(head, yaw=17, pitch=4)
    carried = alignment.align(shell(source), source, portrait, "hair", SIZE)
    assert overlap(carried, shell(portrait)) > 0.93
    flat = in_the_plane(shell(source), source, portrait)
    assert overlap(flat, shell(portrait)) < 0.8


def test_the_result_may_be_of_another_size(head):
    source, portrait = posed(head, yaw=10), 2 * posed(head, yaw=-5) + [0.5, 0.5, 0]
    mask = disc(*source[152, :2], 10)
    large = alignment.align(mask, source, portrait, "beard", 2 * SIZE)
    small = alignment.align(mask, source, posed(head, yaw=-5), "beard", SIZE)
    assert large.shape == (2 * SIZE, 2 * SIZE)
    assert overlap(large.reshape(SIZE, 2, SIZE, 2).mean((1, 3)) > 0.5, small) > 0.9


def test_hats_that_the_picture_cuts_go_on_above_it(head):
    source = posed(head, place=(80.0, 40.0))
    mask = np.zeros((SIZE, SIZE), bool)
    mask[:25, 50:110] = True
    carried = alignment.align(mask, source, posed(head, place=(80.0, 90.0)), "hat", SIZE)
    assert carried[:60, 80].all()


def test_an_unknown_kind_is_refused(head):
    with pytest.raises(InputError, match="'scarf': use one of"):
        alignment.align(disc(80, 80, 9), posed(head), posed(head), "scarf", SIZE)
