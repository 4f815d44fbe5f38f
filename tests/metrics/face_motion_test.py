import numpy as np
import pytest
from skimage.data import astronaut

from durian_jax.metrics import face_motion
from input_pipeline.faces import geometry
from input_pipeline.faces.landmarker import Track

MISSING = face_motion.MissingFace(keypoints=1.0, pose=45.0, blink=0.5, mouth=0.25)


@pytest.fixture(scope="module")
def face(landmarker):
    """float32 [3, 478, 3]: the astronaut's, three times."""
    return np.repeat(landmarker.track([astronaut()]).keypoints, 3, 0)


def _errors(points, reference, found=(True, True, True), usable=(True, True, True)):
    return face_motion.errors(
        Track(points, np.array(found), 1), reference, np.array(usable), MISSING
    )


def test_the_right_face_has_no_error(face):
    assert set(_errors(face, face).values()) == {0.0}


def test_a_shift_is_measured_in_eye_distances_of_the_head(face):
    scale = geometry.head_pose(face[0])[1]
    errors = _errors(face + np.float32([0.3 * scale, 0.4 * scale, 0]), face)
    assert errors["keypoints"] == pytest.approx(0.5, abs=1e-5)
    assert errors["pose"] == pytest.approx(0, abs=1e-4) and errors["mouth"] < 1e-6


def test_a_turn_is_measured_in_degrees(face):
    angle = np.radians(9)
    roll = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    turned = face.copy()
    turned[..., :2] = face[..., :2] @ roll
    assert _errors(turned, face)["pose"] == pytest.approx(9 / 3, abs=0.05)


def test_openings_of_eyes_and_mouth(face):
    scale = geometry.head_pose(face[0])[1]
    opened = face.copy()
    opened[:, 14, 1] += 0.2 * scale
    opened[:, 145, 1] += 0.1 * scale
    errors = _errors(opened, face)
    assert errors["mouth"] == pytest.approx(0.2, abs=0.01)
    assert errors["blink"] == pytest.approx(0.05, abs=0.005)


def test_a_missing_face_costs_and_is_counted(face):
    lost = face.copy()
    lost[1] = np.nan
    errors = _errors(lost, face, found=(True, False, True))
    assert errors["no_face"] == pytest.approx(1 / 3)
    assert errors["keypoints"] == pytest.approx(MISSING.keypoints / 3)
    assert errors["pose"] == pytest.approx(15)
    assert errors["mouth"] == pytest.approx(MISSING.mouth / 3)


def test_frames_without_a_reference_do_not_count(face):
    off = face.copy()
    off[1] += 100
    assert _errors(off, face, usable=(True, False, True))["keypoints"] == 0
    assert all(np.isnan(v) for v in _errors(off, face, usable=(False,) * 3).values())
