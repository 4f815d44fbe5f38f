from fractions import Fraction

import numpy as np
import pytest

from input_pipeline import driving, video
from input_pipeline.errors import InputError


def test_a_driver_that_loses_the_face_is_named_with_frame_and_time(
    tmp_path, talking_head, landmarker
):
    frames = list(talking_head(np.eye(3), False, 0.0))
    frames[20:30] = [np.zeros_like(frames[0])] * 10
    path = tmp_path / "lost.mp4"
    video.write_video(path, frames, Fraction(25))
    with pytest.raises(InputError, match=r"lost.mp4: frame 20 \(0.8 s\).*cut the clip"):
        driving.read_motion(path, landmarker)


def test_a_short_loss_is_bridged_and_noted(tmp_path, talking_head, landmarker):
    frames = list(talking_head(np.eye(3), False, 0.0))
    frames[20:23] = [np.zeros_like(frames[0])] * 3
    path = tmp_path / "blink.mp4"
    video.write_video(path, frames, Fraction(25))
    motion = driving.read_motion(path, landmarker)
    assert motion.bridged == 3 and np.isfinite(motion.keypoints).all()


def test_a_driver_without_a_face_is_named(tmp_path, landmarker):
    path = tmp_path / "empty.mp4"
    video.write_video(path, [np.full((128, 128, 3), 60, np.uint8)] * 20, Fraction(25))
    with pytest.raises(InputError, match="no face found in 20 frames"):
        driving.read_motion(path, landmarker)
