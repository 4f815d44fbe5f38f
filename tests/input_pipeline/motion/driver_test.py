import dataclasses
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from input_pipeline.errors import InputError
from input_pipeline.faces import geometry
from input_pipeline.media import video
from input_pipeline.motion import driver


def test_a_driver_that_loses_the_face_is_named_with_frame_and_time(
    tmp_path, talking_head, landmarker
):
    frames = list(talking_head(np.eye(3), False, 0.0))
    frames[20:30] = [np.zeros_like(frames[0])] * 10
    path = tmp_path / "lost.mp4"
    video.write_video(path, frames, Fraction(25))
    with pytest.raises(InputError, match=r"lost.mp4: frame 20 \(0.8 s\).*cut the clip"):
        driver.read_motion(path, landmarker)


def test_a_short_loss_is_bridged_and_noted(tmp_path, talking_head, landmarker):
    frames = list(talking_head(np.eye(3), False, 0.0))
    frames[20:23] = [np.zeros_like(frames[0])] * 3
    path = tmp_path / "blink.mp4"
    video.write_video(path, frames, Fraction(25))
    motion = driver.read_motion(path, landmarker)
    assert motion.bridged == 3 and np.isfinite(motion.keypoints).all()


def test_a_driver_without_a_face_is_named(tmp_path, landmarker):
    path = tmp_path / "empty.mp4"
    video.write_video(path, [np.full((128, 128, 3), 60, np.uint8)] * 20, Fraction(25))
    with pytest.raises(InputError, match="no face found in 20 frames"):
        driver.read_motion(path, landmarker)


@pytest.fixture(scope="module")
def motion(talking_head_clips, landmarker):
    return driver.read_motion(talking_head_clips / "cool.mp4", landmarker)


@pytest.fixture(scope="module")
def portrait(portrait_picture, landmarker):
    """float32 [478, 3] in a crop of 64 pixels."""
    read = driver.read_motion(portrait_picture, landmarker)
    return read.crop.points(read.keypoints[0], 64)


def test_a_template_gives_the_motion_back(tmp_path, motion, landmarker):
    path = tmp_path / "folder" / "motion.npz"
    driver.write_template(path, motion)
    again = driver.read_motion(path, landmarker)
    np.testing.assert_array_equal(again.keypoints, motion.keypoints)
    assert (again.fps, again.crop) == (motion.fps, motion.crop)
    assert (again.height, again.width) == (motion.height, motion.width)
    assert motion.sound == motion.path and again.sound is None
    second = tmp_path / "second.npz"
    driver.write_template(second, again)
    assert driver.read_motion(second, landmarker).crop == motion.crop


def test_a_template_shows_drawn_keypoints(tmp_path, motion, landmarker):
    path = tmp_path / "motion.npz"
    driver.write_template(path, motion)
    frames = list(driver.read_motion(path, landmarker).frames(96))
    assert len(frames) == len(motion.keypoints)
    points = motion.crop.points(motion.keypoints[7], 96)[:, :2]
    lit = np.argwhere(frames[7].any(-1))[:, ::-1]
    assert np.abs(lit.min(0) - points.min(0)).max() < 3
    assert np.abs(lit.max(0) - points.max(0)).max() < 3


def _template(path, **changes):
    content = dict(
        version=1,
        keypoints=np.ones((4, 478, 3), np.float32),
        size=(64, 64),
        fps=(25, 1),
        source="a",
    )
    content |= changes
    np.savez(path, **{name: value for name, value in content.items() if value is not None})
    return path


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": 2}, "version 2, but 1 is needed"),
        ({"version": None}, "lacks 'version'"),
        ({"keypoints": np.ones((4, 68, 3), np.float32)}, r"\(4, 68, 3\), must be \(frames, 478, 3"),
        ({"keypoints": np.ones((0, 478, 3), np.float32)}, r"\(0, 478, 3\)"),
        ({"keypoints": np.full((1, 478, 3), np.nan, np.float32)}, "float32 and finite"),
        ({"keypoints": np.ones((1, 478, 3), np.int32)}, "float32 and finite"),
        ({"fps": (25, 0)}, r"fps \[25  0\], must be two numbers from 1 on"),
        ({"fps": 25.0}, "fps 25.0, must be two numbers"),
        ({"size": None}, "lacks 'size'"),
        ({"keypoints": np.array([{}])}, "not a motion template"),
    ],
)
def test_a_bad_template_is_named_with_the_reason(tmp_path, landmarker, changes, reason):
    path = _template(tmp_path / "bad.npz", **changes)
    with pytest.raises(InputError, match=f"bad.npz: .*{reason}") as error:
        driver.read_motion(path, landmarker)
    assert "\n" not in str(error.value) and "save it again" in str(error.value)


def test_other_files_are_no_templates(tmp_path, landmarker, motion):
    path = tmp_path / "other.npz"
    for content in (b"", b"text", (np.lib.format.magic(1, 0) + b"cut")):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"other.npz: not a motion template"):
            driver.read_motion(path, landmarker)
    driver.write_template(path, motion)
    path.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises(InputError, match=r"other.npz: not a motion template"):
        driver.read_motion(path, landmarker)
    with pytest.raises(InputError, match="no such file"):
        driver.read_motion(tmp_path / "none.npz", landmarker)
    with pytest.raises(InputError, match=r"name the output \*.npz"):
        driver.write_template(tmp_path / "motion.pkl", motion)


def test_a_photo_is_a_motion_of_one_frame(portrait_picture, landmarker, portrait):
    photo = driver.read_motion(portrait_picture, landmarker)
    assert len(photo.keypoints) == 1 and photo.sound is None
    (frame,) = photo.frames(64)
    assert frame.shape == (64, 64, 3) and frame.any()


def test_a_portrait_moves_into_the_pose_of_a_photo(portrait, motion):
    turned = dataclasses.replace(motion, path=Path("a.jpg"), keypoints=motion.keypoints[20:21])
    (single,) = driver.MotionOptions().retarget(turned, portrait)
    template = dataclasses.replace(turned, path=Path("a.npz"))
    np.testing.assert_array_equal(driver.MotionOptions().retarget(template, portrait)[0], single)
    several = driver.MotionOptions(frames=8).retarget(turned, portrait)
    assert several.shape == (8, 478, 3)
    np.testing.assert_allclose(several[0], portrait, atol=0.05)
    np.testing.assert_allclose(several[-1], single, atol=1e-3)
    angles = geometry.euler_angles(geometry.head_pose(single)[0])
    np.testing.assert_allclose(
        angles, geometry.euler_angles(geometry.head_pose(turned.keypoints[0])[0]), atol=3
    )
    with pytest.raises(InputError, match=r"a.jpg: a photo has no motion.*motion absolute"):
        driver.MotionOptions("relative").retarget(turned, portrait)


def test_a_clip_is_followed_relatively_unless_told_otherwise(portrait, motion):
    usual = driver.MotionOptions(smooth=0).retarget(motion, portrait)
    np.testing.assert_allclose(usual[0], portrait, atol=0.02)
    absolute = driver.MotionOptions("absolute", smooth=0).retarget(motion, portrait)
    turns = [geometry.head_pose(points)[0] for points in (absolute, usual, motion.keypoints)]
    angles, others, drivers = (geometry.euler_angles(turn) for turn in turns)
    assert np.abs(angles - drivers).max() < 3
    assert np.abs(others - drivers).max() > 3


def test_smoothing_is_on_by_default(portrait, motion):
    rng = np.random.default_rng(0)
    noisy = motion.keypoints + rng.normal(0, 0.2, motion.keypoints.shape).astype(np.float32)
    motion = dataclasses.replace(motion, keypoints=noisy)

    def jitter(motion_options):
        return np.abs(np.diff(motion_options.retarget(motion, portrait), 2, axis=0)).mean()

    assert jitter(driver.MOTION_OPTIONS) < 0.7 * jitter(driver.MotionOptions(smooth=0))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"motion": "mirrored"}, "motion 'mirrored': unknown: choose from relative, absolute"),
        ({"smooth": -1.0}, r"smooth -1: must be 0 \(off\) to 100"),
        ({"smooth": float("nan")}, "smooth nan"),
        ({"frames": 0}, "frames 0: must be 1 to 100000"),
        ({"frames": 10**11}, "frames 100000000000: must be 1 to 100000"),
    ],
)
def test_settings_that_make_no_sense_are_named(settings, reason):
    with pytest.raises(InputError, match=reason):
        driver.MotionOptions(**settings)


def test_a_number_of_frames_is_for_photos(portrait, motion):
    with pytest.raises(InputError, match=r"^frames 9 goes with a photo.*cool.mp4, 60 frames"):
        driver.MotionOptions(frames=9).retarget(motion, portrait)


def test_a_hard_cut_is_named_with_its_frame(tmp_path, talking_head, landmarker):
    frames = list(talking_head(np.eye(3), False, 0.0))[:20]
    other = [np.roll(255 - frame, 90, axis=1) for frame in frames]
    path = tmp_path / "cut.mp4"
    video.write_video(path, frames[:12] + other[12:], Fraction(25))
    with pytest.raises(InputError, match=r"cut\.mp4: frame 12: hard cut"):
        driver.read_motion(path, landmarker)


@pytest.mark.parametrize("lost", [slice(0, 3), slice(17, 20)])
def test_the_nearest_face_is_held_at_either_end(tmp_path, talking_head, landmarker, lost):
    frames = list(talking_head(np.eye(3), False, 0.0))[:20]
    frames[lost] = [np.zeros_like(frames[0])] * 3
    path = tmp_path / "late.mp4"
    video.write_video(path, frames, Fraction(25))
    motion = driver.read_motion(path, landmarker)
    nearest = 3 if lost.start == 0 else 16
    assert motion.bridged == 3
    assert (motion.keypoints[lost] == motion.keypoints[nearest]).all()


@pytest.mark.parametrize(
    ("lost", "reason"),
    [
        (slice(0, 8), r"begins without a face, up to frame 8 \(0\.3 s\).*cut the beginning off"),
        (slice(12, 20), r"ends without a face, from frame 12 \(0\.5 s\) of 20.*cut the end off"),
    ],
)
def test_longer_gaps_at_the_ends_are_named_as_such(
    tmp_path, talking_head, landmarker, lost, reason
):
    frames = list(talking_head(np.eye(3), False, 0.0))[:20]
    frames[lost] = [np.zeros_like(frames[0])] * 8
    path = tmp_path / "late.mp4"
    video.write_video(path, frames, Fraction(25))
    with pytest.raises(InputError, match=reason):
        driver.read_motion(path, landmarker)


@pytest.mark.parametrize("name", ["a.webp", "a.png", "a.gif"])
def test_a_picture_that_moves_is_a_clip(tmp_path, talking_head, landmarker, name):
    first, *rest = map(Image.fromarray, list(talking_head(np.eye(3), False, 0.0))[:6])
    first.save(tmp_path / name, save_all=True, append_images=rest, duration=40)
    assert not driver.is_still(tmp_path / name)
    assert driver.MOTION_OPTIONS.suffix(tmp_path / name) == ".mp4"
    motion = driver.read_motion(tmp_path / name, landmarker)
    assert len(motion.keypoints) == 6 and motion.fps == 25 and motion.sound is None
    assert len(list(motion.frames(64))) == 6


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_clip_filmed_on_its_side_is_followed_upright(
    tmp_path, talking_head, landmarker, quarters
):
    frames = list(talking_head(np.eye(3), False, 0.0))[:6]
    upright, turned = tmp_path / "upright.mp4", tmp_path / "turned.mp4"
    video.write_video(upright, frames, Fraction(25), lossless=True)
    lying = [np.rot90(frame, -quarters) for frame in frames]
    video.write_video(turned, lying, Fraction(25), lossless=True)
    wanted, found = (driver.read_motion(path, landmarker) for path in (upright, turned))
    np.testing.assert_array_equal(found.keypoints, wanted.keypoints)
    np.testing.assert_array_equal(list(found.frames(64)), list(wanted.frames(64)))
    assert found.turns == quarters and "turned by" in found.notes[0] and not wanted.notes
