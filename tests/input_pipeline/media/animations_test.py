"""Pictures that move are clips."""

import numpy as np
import pytest
from PIL import Image

from input_pipeline.errors import InputError
from input_pipeline.media import animations, video
from input_pipeline.media.pictures import read_picture

SAVED = {"a.webp": {"quality": 95}, "a.png": {}, "a.gif": {}, "a.avif": {"quality": 95}}


def save(path, frames, duration, **options):
    first, *rest = [Image.fromarray(frame) for frame in frames]
    first.save(path, save_all=True, append_images=rest, duration=duration, **options)


def numbers(path):
    return [round((240 - frame.mean()) / 6) for frame in video.read_frames(path)]


@pytest.mark.parametrize("name", SAVED)
def test_each_kind_is_read_with_its_frames_and_rate(tmp_path, grey_steps, name):
    save(tmp_path / name, grey_steps(12), 40, **SAVED[name])
    info = video.probe(tmp_path / name)
    assert (info.width, info.height, info.fps, info.frame_count) == (64, 64, 25, 12)
    assert not info.has_audio and numbers(tmp_path / name) == list(range(12))


@pytest.mark.parametrize("name", ["a.webp", "a.png", "a.gif"])
def test_frames_stand_as_long_as_they_say(tmp_path, grey_steps, name):
    save(tmp_path / name, grey_steps(5), [100, 100, 300, 100, 200], **SAVED[name])
    assert video.probe(tmp_path / name).fps == 10
    assert numbers(tmp_path / name) == [0, 1, 2, 2, 2, 3, 4, 4]


def test_frames_that_do_not_say_how_long_stand_for_a_tenth_of_a_second(tmp_path, grey_steps):
    save(tmp_path / "a.gif", grey_steps(5), 10)
    info = video.probe(tmp_path / "a.gif")
    assert (info.fps, info.frame_count) == (10, 5)


def test_transparent_frames_lie_on_white(tmp_path):
    frames = np.zeros((3, 64, 64, 4), np.uint8)
    for i, frame in enumerate(frames):
        frame[: 20 * (i + 1)] = (200, 10, 10, 255)
    save(tmp_path / "a.png", frames, 40)
    for i, frame in enumerate(video.read_frames(tmp_path / "a.png")):
        assert (frame[: 20 * (i + 1)] == (200, 10, 10)).all()
        assert (frame[20 * (i + 1) :] == 255).all()


def test_a_picture_that_does_not_move_is_none(tmp_path, grey_steps):
    for name in SAVED:
        Image.fromarray(grey_steps(1)[0]).save(tmp_path / name)
        assert not animations.is_animation(tmp_path / name)
    assert not animations.is_animation(tmp_path / "nothing.webp")


def test_as_a_photo_the_first_frame_counts(tmp_path, grey_steps):
    save(tmp_path / "a.webp", grey_steps(3), 40, lossless=True)
    assert round(read_picture(tmp_path / "a.webp").mean()) == 240


def test_a_damaged_animation_is_named_with_its_frame(tmp_path, grey_steps):
    save(
        tmp_path / "a.png",
        [frame + np.eye(64, dtype=np.uint8)[..., None] for frame in grey_steps(9)],
        40,
    )
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(InputError, match=r"a\.png: frame \d+: damaged animation"):
        list(video.read_frames(tmp_path / "a.png"))
