import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from skimage.data import astronaut

from input_pipeline.faces import geometry
from input_pipeline.faces.landmarker import FaceLandmarker, Track


@pytest.fixture(scope="module")
def face():
    """float32 [478, 3], the astronaut's."""
    return FaceLandmarker().track([astronaut()]).keypoints[0]


def test_short_gaps_are_bridged_by_straight_lines_and_long_ones_are_left():
    found = np.ones(20, bool)
    found[[0, 4, 5, 10, 11, 12, 13, 14, 15, 19]] = False
    keypoints = np.full((20, 478, 3), np.nan, np.float32)
    keypoints[found] = np.arange(20, dtype=np.float32)[found, None, None] ** 2
    filled, usable = geometry.fill_gaps(Track(keypoints, found, 1), limit=5)
    assert usable.tolist() == [False, *[True] * 9, *[False] * 6, *[True] * 3, False]
    np.testing.assert_allclose(filled[4:6, 0, 0], [9 + 9, 9 + 18])
    np.testing.assert_array_equal(filled[found], keypoints[found])
    assert np.isnan(filled[~usable]).all() and np.isnan(keypoints[4]).all()


@pytest.mark.parametrize(
    ("axis", "degrees", "expected"),
    [
        ("y", -30, (30, 0, 0)),  # right-handed about y (down): the nose goes to the left
        ("x", 20, (0, -20, 0)),  # about x (right): the nose goes down
        ("z", 15, (0, 0, 15)),  # about z (away): clockwise
    ],
)
def test_signs_of_yaw_pitch_and_roll(axis, degrees, expected):
    rotation = Rotation.from_euler(axis, degrees, degrees=True).as_matrix()
    np.testing.assert_allclose(geometry.euler_angles(rotation), expected, atol=1e-9)
    nose = rotation @ [0, 0, -1]
    assert np.sign(nose[0]) == np.sign(expected[0]), "yaw > 0 turns the nose to the right"
    assert np.sign(-nose[1]) == np.sign(expected[1]), "pitch > 0 lifts the nose"


def test_euler_angles_rebuild_the_rotation():
    yaw, pitch, roll = 25.0, -40.0, 70.0
    rotation = Rotation.from_euler("ZYX", [roll, -yaw, -pitch], degrees=True).as_matrix()
    np.testing.assert_allclose(geometry.euler_angles(rotation), (yaw, pitch, roll), atol=1e-9)


def test_head_pose_follows_a_similarity_exactly(face):
    rotation, scale, translation = geometry.head_pose(face)
    assert np.abs(geometry.euler_angles(rotation)).max() < 15, "the astronaut looks at the camera"
    turn = Rotation.from_euler("yxz", [20, -10, 30], degrees=True).as_matrix()
    moved = 1.7 * face @ turn.T + [5, 6, 7]
    rotation2, scale2, translation2 = geometry.head_pose(moved)
    np.testing.assert_allclose(rotation2, turn @ rotation, atol=1e-6)
    np.testing.assert_allclose(scale2, 1.7 * scale, rtol=1e-6)
    np.testing.assert_allclose(translation2, 1.7 * turn @ translation + [5, 6, 7], rtol=1e-5)


def test_head_pose_is_a_rotation_even_for_a_mirrored_face(face):
    rotation, *_ = geometry.head_pose(face * [1, 1, -1])
    assert np.linalg.det(rotation) == pytest.approx(1)


def test_crop_moves_points_and_pixels_alike(face):
    image = np.zeros((512, 512, 3), np.uint8)
    spot = np.round(face[4]).astype(int)
    image[spot[1] - 1 : spot[1] + 2, spot[0] - 1 : spot[0] + 2] = 255
    for size in (64, 400):
        crop = geometry.Crop.around(face[None], 512, 512)
        seen = crop.apply(image, size)[..., 0].astype(float)
        y, x = np.mgrid[:size, :size]
        centre = np.array([(x * seen).sum(), (y * seen).sum()]) / seen.sum()
        points = crop.points(np.float32([[*spot]]), size)[0]
        np.testing.assert_allclose(centre, points[:2], atol=0.1)
        assert points[2] == pytest.approx(spot[2] * size / crop.side)


def test_crop_is_steady_holds_the_head_and_stays_in_the_picture(face):
    sway = np.stack([face + [dx, 0, 0] for dx in np.linspace(-40, 40, 50)])
    crop = geometry.Crop.around(sway, 512, 512)
    length = np.ptp(face[:, 1])
    assert 2.2 * length < crop.side < 3 * length
    low, high = sway[..., :2].min((0, 1)), sway[..., :2].max((0, 1))
    assert crop.cx - crop.side / 2 >= -0.5 and crop.cy - crop.side / 2 >= -0.5
    assert crop.cx - crop.side / 2 < low[0] and crop.cx + crop.side / 2 > high[0]
    outlier = sway.copy()
    outlier[25] += 200
    assert geometry.Crop.around(outlier, 512, 512).side < crop.side * 1.05


def test_crop_shrinks_without_aliasing():
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 255
    small = geometry.Crop(255.5, 255.5, 512.0).apply(stripes, 100)
    by_area = cv2.resize(stripes, (100, 100), interpolation=cv2.INTER_AREA)
    inner = (slice(10, -10), slice(10, -10))
    assert np.ptp(small[inner].astype(int)) <= np.ptp(by_area[inner].astype(int))


def test_aligned_face_has_eyes_and_mouth_where_arcface_expects_them(face):
    turn = cv2.getRotationMatrix2D((223, 120), 30, 1.3)
    image = cv2.warpAffine(astronaut(), turn, (512, 512))
    moved = np.column_stack([face[:, :2] @ turn[:, :2].T + turn[:, 2], face[:, 2]])
    aligned = geometry.align_face(image, moved.astype(np.float32))
    assert aligned.shape == (112, 112, 3) and aligned.dtype == np.uint8
    np.testing.assert_array_less(
        np.abs(aligned.astype(int) - geometry.align_face(astronaut(), face)).mean(), 4
    )
    # Five points of one face never fit the mean face's exactly: a smile is wide.
    points = FaceLandmarker().track([aligned]).keypoints[0]
    np.testing.assert_allclose(points[[468, 473], :2], [(38.3, 51.7), (73.5, 51.5)], atol=3)
    np.testing.assert_allclose(points[[61, 291], :2].mean(0), (56.1, 92.3), atol=6)


def test_contours_are_keypoints_and_the_oval_goes_round_the_face(face):
    for chains in geometry.CONTOURS.values():
        for chain in chains:
            assert len(set(chain)) >= 4 and min(chain) >= 0 and max(chain) < 478
    (oval,) = geometry.CONTOURS["oval"]
    outline = np.round(face[list(oval), :2]).astype(np.int32)
    inside = [cv2.pointPolygonTest(outline, tuple(map(float, p)), False) for p in face[:, :2]]
    assert np.mean(np.array(inside) >= 0) > 0.9
