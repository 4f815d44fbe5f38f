import dataclasses

import jax
import numpy as np

from input_pipeline.faces import geometry
from input_pipeline.synthetic import motion

SECONDS = np.arange(50) / 12.5


def test_more_frames_begin_like_fewer():
    long, short = (
        motion.sample_clip(np.random.default_rng(4), SECONDS[:count]) for count in (50, 16)
    )
    for name, curve in vars(short).items():
        np.testing.assert_array_equal(curve, getattr(long, name)[:16])


def test_clips_move_smoothly_within_the_limits():
    for seed in range(20):
        clip = motion.sample_clip(np.random.default_rng(seed), SECONDS)
        for name, (low, high) in motion.LIMITS.items():
            curve = getattr(clip, name)
            assert curve.dtype == np.float32 and curve.min() >= low and curve.max() <= high
        assert np.abs(np.diff(clip.pose, axis=0)).max() < 12  # degrees a frame


def test_eyes_blink_now_and_then():
    clips = [motion.sample_clip(np.random.default_rng(s), np.arange(250) / 25) for s in range(5)]
    for clip in clips:
        closed = clip.blink > 0.5
        assert 1 <= np.sum(np.diff(closed.astype(int)) == 1) <= 6  # in ten seconds


def test_a_calm_start_is_the_calm_face():
    clip = motion.sample_clip(np.random.default_rng(1), SECONDS, calm_start=True)
    for name, value in vars(clip.at(0)).items():
        assert value == 0, name
    assert np.abs(clip.pose[5:]).max() > 1


def test_pose_angles_are_those_of_the_keypoint_code():
    pose = np.float32([[20, -10, 5], [-30, 15, -8], [0, 0, 0]])
    still = motion.CALM
    driver = motion.Motion(**{name: np.zeros(3, np.float32) for name in vars(still)})
    driver = dataclasses.replace(driver, yaw=pose[:, 0], pitch=pose[:, 1], roll=pose[:, 2])
    turned = geometry.euler_angles(motion.rotation(driver.pose))
    np.testing.assert_allclose(turned, pose, atol=1e-4)


def test_composed_motion_starts_at_the_portrait_and_repeats_a_calm_portrait_s_driver():
    own = motion.sample_still(np.random.default_rng(7), calm=True)
    driver = motion.sample_clip(np.random.default_rng(8), SECONDS, calm_start=True)
    moved = motion.compose(own, driver)
    for name, value in vars(moved.at(0)).items():
        np.testing.assert_allclose(value, getattr(own, name), atol=1e-4)
    same = motion.compose(motion.CALM, driver)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), same, driver)
