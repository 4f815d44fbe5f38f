import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from skimage.data import astronaut

from input_pipeline.faces import geometry
from input_pipeline.faces.landmarker import FaceLandmarker
from input_pipeline.motion.smoothing import smooth


@pytest.fixture(scope="module")
def face():
    """float64 [478, 3], the astronaut's, its outer eye corners some 50 pixels apart."""
    return FaceLandmarker().track([astronaut()]).keypoints[0].astype(np.float64)


def test_constant_and_uniform_motion_stay_as_they_are(face):
    still = np.repeat(face[None], 20, 0)
    np.testing.assert_allclose(smooth(still, 25, 2.0), still, atol=1e-3)
    moving = still + np.linspace(0, 60, 20)[:, None, None] * [1.0, -0.5, 0.0]
    np.testing.assert_allclose(smooth(moving, 25, 2.0), moving, atol=1e-3)


def test_strength_0_and_single_frames_change_nothing(face):
    noisy = face + np.random.default_rng(0).normal(0, 1, (9, 478, 3))
    np.testing.assert_allclose(smooth(noisy, 25, 0), noisy, rtol=1e-6)
    np.testing.assert_allclose(smooth(noisy[:1], 25, 1.0), noisy[:1], rtol=1e-6)


def test_jitter_becomes_less_with_strength(face):
    rng = np.random.default_rng(0)
    place, jitter = rng.normal(0, 0.4, (60, 1, 3)), rng.normal(0, 0.15, (60, 478, 3))
    errors = [
        np.abs(smooth(face + place + jitter, 25, strength) - face).mean()
        for strength in (0, 0.5, 1, 2)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < 0.55 * errors[0]


def test_blinks_and_closing_lips_survive(face):
    clip = np.repeat(face[None], 40, 0)
    clip[:, 14] += [0, 12, 0]
    for frame, share in ((19, 0.5), (20, 0.0), (21, 0.5)):
        clip[frame, 159] = face[145] + share * (face[159] - face[145])
        clip[frame, 14] = face[13] + share * (clip[0, 14] - face[13])
    result = smooth(clip, 25, 1.0)
    for upper, lower in ((159, 145), (13, 14)):
        gaps = np.linalg.norm(result[:, upper] - result[:, lower], axis=-1)
        assert gaps[20] < 0.1 * gaps[0]


def test_it_lags_neither_way(face):
    angles = 20 * np.exp(-(((np.arange(41) - 20) / 6) ** 2))
    turns = Rotation.from_euler("y", angles[:, None], degrees=True).as_matrix()
    clip = (face - face.mean(0)) @ turns.swapaxes(1, 2) + face.mean(0)
    result = smooth(clip, 25, 1.0)
    np.testing.assert_allclose(result, smooth(clip[::-1], 25, 1.0)[::-1], atol=1e-3)
    yaw = geometry.euler_angles(geometry.head_pose(result)[0])[:, 0]
    assert np.abs(yaw - yaw[0]).argmax() == 20


def test_it_depends_on_seconds_not_on_frames(face):
    rng = np.random.default_rng(1)
    noisy = face + rng.normal(0, 0.3, (50, 478, 3))
    fast, slow = smooth(noisy, 50, 1.0), smooth(noisy, 12.5, 1.0)
    assert np.abs(fast - face).mean() < np.abs(slow - face).mean()
