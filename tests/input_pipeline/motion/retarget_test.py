import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from skimage.data import astronaut

from input_pipeline.faces import geometry
from input_pipeline.faces.landmarker import FaceLandmarker
from input_pipeline.motion.retarget import ease_to, neutral, retarget

UPPER_LIDS = [246, 161, 160, 159, 158, 157, 173, 466, 388, 387, 386, 385, 384, 398]
LOWER_LIDS = [7, 163, 144, 145, 153, 154, 155, 249, 390, 373, 374, 380, 381, 382]
UPPER_LIPS = [191, 80, 81, 82, 13, 312, 311, 310, 415]
LOWER_LIPS = [95, 88, 178, 87, 14, 317, 402, 318, 324]


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


def neck(points):
    """Where head meets neck: behind and below the head's origin."""
    rotation, scale, place = geometry.head_pose(points)
    return place + scale * rotation @ [0, 0.6, 1.0]


@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_a_turn_about_the_neck_and_a_shift_are_handed_on(face, driver, axis):
    start, turn = driver[0], Rotation.from_euler(axis, 20, degrees=True).as_matrix()
    shift = np.array([30.0, -12.0, 0])
    moved = (start - neck(start)) @ turn.T + neck(start) + shift
    result = retarget(np.stack([start, moved]), face)[1]
    ratio = geometry.head_pose(face)[1] / geometry.head_pose(start)[1]
    expected = (face - neck(face)) @ turn.T + neck(face) + shift * ratio
    np.testing.assert_allclose(result, expected, atol=1e-2)


@pytest.mark.parametrize("motion", ["relative", "absolute"])
def test_where_and_how_large_the_driver_is_does_not_matter(face, driver, motion):
    elsewhere = 3.0 * driver + np.array([500.0, -70.0, 12.0])
    expected = retarget(driver, face, motion)
    np.testing.assert_allclose(retarget(elsewhere, face, motion), expected, atol=2e-3)


@pytest.mark.parametrize("motion", ["relative", "absolute"])
def test_the_portrait_moves_where_it_is(face, driver, motion):
    moved = 0.5 * face + np.array([40.0, 9.0, 0])
    expected = 0.5 * retarget(driver, face, motion) + np.array([40.0, 9.0, 0])
    np.testing.assert_allclose(retarget(driver, moved, motion), expected, atol=2e-3)


def test_an_expression_keeps_the_portraits_shape_and_pose(face, driver):
    start, raised = driver[0], driver[0].copy()
    rotation, driver_scale, _ = geometry.head_pose(start)
    raised[105] -= 10 * rotation[:, 1]
    result = retarget(np.stack([start, raised]), face)[1]
    change = np.linalg.norm(result - face, axis=1)
    assert np.delete(change, 105).max() < 1e-3
    # The portrait's face is 1 / 0.95 times as high as the driver's, in its own units.
    ratio = change[105] / (10 * geometry.head_pose(face)[1] / driver_scale)
    assert 1.0 < ratio < 1.15


def opening(points, upper, lower):
    """[...]: how far one point lies below another in the head's axes, in eye distances."""
    shape = geometry.pose_free(points, *geometry.head_pose(points))
    return shape[..., lower, 1] - shape[..., upper, 1]


def with_eyes(face, share):
    """Lids as far open as `share` of what they are; the lower ones stay."""
    face = face.copy()
    for upper, lower in zip(UPPER_LIDS, LOWER_LIDS):
        face[upper] = face[lower] + share * (face[upper] - face[lower])
    return face


def with_mouth(face, gap):
    """Inner lips `gap` eye distances apart in the middle, less towards the corners."""
    face = face.copy()
    rotation, scale, _ = geometry.head_pose(face)
    profile = 1 - np.linspace(-0.9, 0.9, len(UPPER_LIPS)) ** 2
    for upper, lower, share in zip(UPPER_LIPS, LOWER_LIPS, profile):
        face[lower] = face[upper] + gap * share * scale * rotation[:, 1]
    return face


@pytest.mark.parametrize("motion", ["relative", "absolute"])
@pytest.mark.parametrize("share", [0.7, 1.0, 1.5])
def test_a_blink_closes_on_eyes_of_any_size(face, driver, motion, share):
    open_eyes = driver[0]
    clip = np.stack([with_eyes(open_eyes, s) for s in (1, 1, 1, 0.5, 0, 0.5, 1, 1)])
    portrait = with_eyes(face, share)
    result = retarget(clip, portrait, motion)
    for upper, lower in ((159, 145), (386, 374)):
        gaps, own = opening(result, upper, lower), opening(portrait, upper, lower)
        np.testing.assert_allclose(gaps[4], 0, atol=1e-3)
        np.testing.assert_allclose(gaps[[0, -1]], own, atol=3e-3)
        assert 0.2 * own < gaps[3] < 0.8 * own


def test_eyes_that_begin_in_a_blink_open_as_usual(face, driver):
    clip = np.stack([with_eyes(driver[0], s) for s in (0, 0.5, 1, 1, 1, 1, 1)])
    gaps = opening(retarget(clip, face), 159, 145)
    np.testing.assert_allclose(gaps[0], 0, atol=1e-3)
    np.testing.assert_allclose(gaps[-1], opening(face, 159, 145), atol=1e-3)


@pytest.mark.parametrize("motion", ["relative", "absolute"])
def test_a_mouth_closes_on_a_face_whose_lips_are_open(face, driver, motion):
    clip = np.stack([with_mouth(driver[0], gap) for gap in (0.2, 0.3, 0.1, 0, 0, 0)])
    portrait = with_mouth(face, 0.25)
    gaps = opening(retarget(clip, portrait, motion), 13, 14)
    np.testing.assert_allclose(gaps[3:], 0, atol=1e-3)
    assert gaps[1] > gaps[0] > gaps[2] > 0.02


def test_lips_and_lids_never_cross(face, driver):
    clip = np.stack([with_mouth(with_eyes(driver[0], s), s / 5) for s in (1, 0.6, 0.2, 0)])
    result = retarget(clip, with_mouth(with_eyes(face, 0.4), 0.02))
    gaps = opening(result, UPPER_LIDS + UPPER_LIPS, LOWER_LIDS + LOWER_LIPS)
    assert gaps.min() > -1e-3


def test_the_drivers_own_calm_face_keeps_its_absolute_motion(driver):
    turn, scale, place = geometry.head_pose(driver)
    shape = geometry.pose_free(driver, turn, scale, place)
    shape[:8] = shape[0]
    clip = geometry.posed(shape, turn, np.full(len(turn), scale[0]), place)
    for calm in (0, 5):
        apart = retarget(clip, clip[calm], "absolute") - clip
        np.testing.assert_allclose(apart - apart.mean((0, 1)), 0, atol=1e-2)


def test_absolute_motion_turns_the_head_as_the_driver_does_where_the_portrait_is(face, driver):
    result = retarget(driver, face, "absolute")
    turn, _, place = geometry.head_pose(result)
    driver_turn, _, driver_place = geometry.head_pose(driver)
    angles = geometry.euler_angles(turn) - geometry.euler_angles(driver_turn)
    assert np.abs(angles).max() < 2.5
    middles = (result.min(1) + result.max(1)) / 2 - (face.min(0) + face.max(0)) / 2
    # The portrait's eyes are some 50 pixels apart.
    assert np.abs(np.median(middles, 0)[:2]).max() < 3
    ratio = geometry.head_pose(face)[1] / np.median(geometry.head_pose(driver)[1])
    moved, expected = np.diff(place, axis=0), ratio * np.diff(driver_place, axis=0)
    assert np.abs(moved - expected)[:, :2].max() < 0.5


def test_the_neutral_face_is_found_between_words_and_blinks(driver):
    rng = np.random.default_rng(0)
    turn, scale, place = geometry.head_pose(driver[0])
    calm = geometry.pose_free(driver[0], turn, scale, place)
    mouths = np.concatenate([np.full(30, 0.02), rng.uniform(0.02, 0.3, 70)])
    eyes = rng.permutation(np.concatenate([np.zeros(10), np.ones(90)]))
    clip = [with_mouth(with_eyes(driver[0], e), m) for e, m in zip(eyes, mouths)]
    shapes = geometry.pose_free(np.array(clip), turn, scale, place)
    found = neutral(shapes[rng.permutation(100)])
    assert abs(found[14, 1] - found[13, 1]) < 0.03
    assert found[145, 1] - found[159, 1] == pytest.approx(calm[145, 1] - calm[159, 1], abs=1e-3)


def test_a_portrait_approaches_its_pose_slowly_at_both_ends(face, driver):
    target = retarget(driver, face)[11]
    result = ease_to(face, target, 9)
    np.testing.assert_allclose(result[[0, -1]], [face, target], atol=1e-2)
    steps = np.linalg.norm(np.diff(result, axis=0), axis=(1, 2))
    assert steps[3] > 2 * steps[0] and steps[4] > 2 * steps[-1]
    np.testing.assert_allclose(ease_to(face, target, 1)[0], target, atol=1e-2)


def test_irises_keep_their_place_between_the_corners_of_the_eye(face, driver):
    start, looking = driver[0], driver[0].copy()
    corner = {"outer": 33, "inner": 133}
    looking[468:473] += 0.2 * (start[corner["inner"]] - start[corner["outer"]])
    result = retarget(np.stack([start, looking]), face)[1]
    expected = face[468:473] + 0.2 * (face[corner["inner"]] - face[corner["outer"]])
    np.testing.assert_allclose(result[468:473], expected, atol=1)
    np.testing.assert_allclose(result[473:], face[473:], atol=1e-3)
