"""Pictures come when the time stamps say, at an even rate, in time with the sound."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from input_pipeline.media import timing, video

JITTER = np.cumsum([0, *np.random.default_rng(3).integers(30, 38, 29)])
VP8 = {"codec": "libvpx", "codec_options": {"deadline": "realtime", "cpu-used": "8"}}


def numbers(path):
    """Which of `grey_steps` each picture shows."""
    return [round((240 - frame.mean()) / 6) for frame in video.read_frames(path)]


def assert_in_time(path, times):
    """At any time the picture is shown that the stamps (ms) ask for, to half a step."""
    info = video.probe(path)
    shown = numbers(path)
    assert len(shown) == info.frame_count
    length = times[-1] / 1000
    assert length - 0.02 < len(shown) / info.fps < length + 0.1
    for place, number in enumerate(shown):
        seconds, step = place / float(info.fps), 0.5 / float(info.fps) + 0.002
        assert times[number] / 1000 <= seconds + step
        assert number == len(times) - 1 or seconds <= times[number + 1] / 1000 + step


@pytest.mark.parametrize(
    ("name", "times", "how"),
    [
        ("jitter.webm", JITTER, VP8),
        ("lost.webm", np.delete(JITTER, [7, 8, 20, 21, 27]), VP8),
        ("states_1000.mkv", np.delete(JITTER, [3, 4]), {"rate": 1000}),
        ("half_the_rate.mkv", np.arange(20) * 80, {"rate": 25}),
        ("slows_down.mp4", np.r_[0:400:40, 400:1200:100], {}),
    ],
)
def test_uneven_stamps(tmp_path, film, grey_steps, name, times, how):
    film(tmp_path / name, grey_steps(len(times)), times=times, **how)
    assert_in_time(tmp_path / name, times)


def test_no_picture_is_lost_and_sound_stays_beside_its_picture(
    tmp_path, film, grey_steps, beep, heard
):
    times = np.delete(JITTER, [7, 8, 20, 21, 27])
    source, out = tmp_path / "browser.webm", tmp_path / "out.mp4"
    sound = beep(times[20] / 1000)
    film(source, grey_steps(len(times)), times=times, sounds=[sound], sound_codec="libopus", **VP8)
    assert set(numbers(source)) == set(range(len(times)))
    fps = video.probe(source).fps
    video.write_video(out, video.read_frames(source), fps, audio_from=source)
    place = numbers(out).index(20)
    assert abs(heard(out) - place / float(fps)) < 1 / float(fps)


@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30000, 1001), Fraction(60)])
def test_an_even_clip_is_read_frame_by_frame_at_the_rate_of_its_header(tmp_path, grey_steps, rate):
    for name in ("a.mp4", "a.mov"):
        video.write_video(tmp_path / name, grey_steps(12), rate)
        info = video.probe(tmp_path / name)
        assert (info.fps, info.frame_count) == (rate, 12)
        assert numbers(tmp_path / name) == list(range(12))


def test_frames_that_an_edit_list_hides_are_not_shown(tmp_path, film, grey_steps, beep, heard):
    path, out = tmp_path / "edited.mp4", tmp_path / "out.mp4"
    film(path, grey_steps(20), sounds=[beep(0.4)], codec_options={"bf": "0", "g": "1"})
    data = bytearray(path.read_bytes())
    entry = data.index(b"elst") + 12  # of the picture track: duration, then where it begins
    scale = 25 * 512  # of PyAV's tracks at 25 fps
    struct.pack_into(">Ii", data, entry, 600, 5 * scale // 25)
    path.write_bytes(data)
    with av.open(str(path)) as container:
        assert container.streams.video[0].time_base == Fraction(1, scale)
    assert numbers(path) == list(range(5, 20))
    video.write_video(out, video.read_frames(path), Fraction(25), audio_from=path)
    # The sound of this file was not cut, so its beep falls later than the picture it was made for.
    assert heard(out) == pytest.approx(0.4, abs=0.03)


def test_pictures_that_begin_after_the_sound(tmp_path, film, grey_steps, beep, heard):
    source, out = tmp_path / "late.mkv", tmp_path / "out.mp4"
    film(source, grey_steps(20), times=np.arange(20) * 40, sounds=[beep(0.4)], start=700)
    video.write_video(out, video.read_frames(source), Fraction(25), audio_from=source)
    assert numbers(out).index(10) == 10 and heard(out) == pytest.approx(0.4, abs=0.04)


@pytest.mark.parametrize("name", ["a.h264", "a.avi", "a.ts"])
def test_files_with_few_or_no_stamps(tmp_path, film, grey_steps, name):
    film(tmp_path / name, grey_steps(12))
    assert numbers(tmp_path / name) == list(range(12)) and video.probe(tmp_path / name).fps == 25


def test_times_that_cannot_be_are_not_followed():
    leap = np.array([0.0, 0.04, 0.08, 0.12, 86_400.0])
    found = timing.of_times(leap, 0.04, stated=[Fraction(25)])
    assert (found.rate, found.count, found.stamped) == (25, 5, False)
