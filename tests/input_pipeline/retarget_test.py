import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from skimage.data import astronaut

from input_pipeline import faces
from input_pipeline.landmarker import FaceLandmarker
from input_pipeline.retarget import retarget


@pytest.fixture(scope="module")
def face():
    """float32 [478, 3], the astronaut's."""
    return FaceLandmarker().track([astronaut()]).keypoints[0]


@pytest.fixture(scope="module")
def driver(face):
    """[12, 478, 3]: another face shape, turning about all axes, moving, its mouth opening."""
    rng = np.random.default_rng(0)
    centred = (face - face.mean(0)) * [1.1, 0.95, 1.0]
    motion = []
    for i in range(12):
        turn = Rotation.from_euler("yxz", [3 * i - 15, 2 * i, 10 - 2 * i], degrees=True).as_matrix()
        talking = centred.copy()
        talking[[13, 14, 17, 152], 1] += [-i / 2, i / 2, i / 2, i / 2]
        place = 300 + np.array([4.0 * i, -3.0 * i, 0]) + rng.normal(size=3)
        motion.append((1.5 + 0.02 * i) * talking @ turn.T + place)
    return np.array(motion)


def turned_about_z(points, degrees):
    return points @ Rotation.from_euler("z", degrees, degrees=True).as_matrix().T


def test_the_first_frame_of_a_retargeted_motion_is_the_portrait(face, driver):
    np.testing.assert_allclose(retarget(driver, face)[0], face, atol=1e-3)


def test_a_driver_of_itself_keeps_its_motion(driver):
    result = retarget(driver, driver[0])
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, driver, atol=1e-3)


def test_motion_in_the_picture_plane_is_handed_on(face, driver):
    start = driver[0]
    _, driver_scale, driver_place = faces.head_pose(start)
    _, scale, place = faces.head_pose(face)
    shift = np.array([30.0, -12.0, 0])
    moved = turned_about_z(start - driver_place, 20) + driver_place + shift
    result = retarget(np.stack([start, moved]), face)[1]
    expected = turned_about_z(face - place, 20) + place + shift * scale / driver_scale
    np.testing.assert_allclose(result, expected, atol=1e-2)


def test_an_expression_keeps_the_portraits_shape_and_pose(face, driver):
    start, opened = driver[0], driver[0].copy()
    _, driver_scale, _ = faces.head_pose(start)
    _, scale, _ = faces.head_pose(face)
    rotation, _, _ = faces.head_pose(start)
    down = rotation[:, 1]
    opened[14] += 10 * down
    result = retarget(np.stack([start, opened]), face)[1]
    change = np.linalg.norm(result - face, axis=1)
    assert np.delete(change, 14).max() < 1e-3
    # The portrait's face is 1 / 0.95 times as high as the driver's, in its own units.
    ratio = change[14] / (10 * scale / driver_scale)
    assert 1.0 < ratio < 1.15


def test_irises_keep_their_place_between_the_corners_of_the_eye(face, driver):
    start, looking = driver[0], driver[0].copy()
    corner = {"outer": 33, "inner": 133}
    looking[468:473] += 0.2 * (start[corner["inner"]] - start[corner["outer"]])
    result = retarget(np.stack([start, looking]), face)[1]
    expected = face[468:473] + 0.2 * (face[corner["inner"]] - face[corner["outer"]])
    np.testing.assert_allclose(result[468:473], expected, atol=1)
    np.testing.assert_allclose(result[473:], face[473:], atol=1e-3)
