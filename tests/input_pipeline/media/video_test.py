import struct
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from PIL import Image, ImageSequence

from input_pipeline.errors import InputError
from input_pipeline.media import video
from input_pipeline.media.pictures import read_picture


def sliding(photo, count):
    return [np.roll(photo, 3 * i, axis=1) for i in range(count)]


def durations(path):
    with av.open(str(path)) as container:
        return {s.type: float(s.duration * s.time_base) for s in container.streams}


def test_written_frames_come_back_in_order_and_no_darker(tmp_path, photo):
    frames = sliding(photo, 9)
    video.write_video(tmp_path / "a.mp4", iter(frames), Fraction(30000, 1001), crf=8)
    read = list(video.read_frames(tmp_path / "a.mp4"))
    assert len(read) == 9 and read[0].dtype == np.uint8
    for frame, back in zip(frames, read):
        difference = back.astype(float) - frame
        assert np.abs(difference).mean() < 3.5
        assert abs(difference.mean()) < 0.5
    info = video.probe(tmp_path / "a.mp4")
    assert (info.width, info.height, info.frame_count) == (128, 96, 9)
    assert info.fps == Fraction(30000, 1001) and not info.has_audio


def test_odd_sides_are_made_even_by_repeating_the_edge(tmp_path, photo):
    video.write_video(tmp_path / "a.mp4", [photo[:95, :127]], Fraction(25), crf=4)
    (frame,) = video.read_frames(tmp_path / "a.mp4")
    assert frame.shape == (96, 128, 3)
    assert np.abs(frame[:95, :127].astype(float) - photo[:95, :127]).mean() < 3.5


def test_sound_is_copied_and_cut_to_the_frames(tmp_path, talking_head_clips, photo):
    source = talking_head_clips / "plain.mp4"
    video.write_video(tmp_path / "a.mp4", sliding(photo, 25), Fraction(25), audio_from=source)
    length = durations(tmp_path / "a.mp4")
    assert length["video"] == pytest.approx(1.0)
    assert length["audio"] == pytest.approx(1.0, abs=0.05)
    with av.open(str(source)) as a, av.open(str(tmp_path / "a.mp4")) as b:
        first, copy = next(a.demux(audio=0)), next(b.demux(audio=0))
        assert bytes(first) == bytes(copy)


def test_sound_that_mp4_players_lack_is_encoded_to_aac(tmp_path, talking_head_clips, photo):
    pcm = tmp_path / "pcm.mov"
    with av.open(str(pcm), "w") as output:
        picture = output.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        picture.width, picture.height, picture.pix_fmt = 128, 96, "yuv420p"
        sound = output.add_stream("pcm_s16le", rate=22_050, layout="mono")
        for frame in sliding(photo, 10):
            output.mux(picture.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        output.mux(picture.encode())
        tone = av.AudioFrame.from_ndarray(np.zeros((1, 22_050), np.int16), "s16", "mono")
        tone.sample_rate = 22_050
        output.mux(sound.encode(tone))
    video.write_video(tmp_path / "a.mp4", sliding(photo, 10), Fraction(25), audio_from=pcm)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
    assert durations(tmp_path / "a.mp4")["audio"] == pytest.approx(0.4, abs=0.05)


def test_a_source_without_sound_is_no_error(tmp_path, talking_head_clips, photo):
    source = talking_head_clips / "cool.mp4"
    video.write_video(tmp_path / "a.mp4", [photo], Fraction(25), audio_from=source)
    assert not video.probe(tmp_path / "a.mp4").has_audio


def test_phone_rotation_is_honoured(tmp_path, photo):
    path = tmp_path / "a.mp4"
    video.write_video(path, [photo], Fraction(25), crf=8)
    data = bytearray(path.read_bytes())
    header = data.index(b"tkhd") + 4 + 40  # version 0: the matrix follows 40 bytes of fields
    one = 1 << 16
    # ISO/IEC 14496-12: x' = -y, y' = x, i.e. a quarter turn clockwise.
    data[header : header + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    (frame,) = video.read_frames(path)
    assert frame.shape == (128, 96, 3)
    assert np.abs(frame.astype(float) - np.rot90(photo, -1)).mean() < 3.5
    assert (video.probe(path).width, video.probe(path).height) == (96, 128)


def test_broken_clips_are_named_with_the_frame(tmp_path, talking_head_clips):
    whole = (talking_head_clips / "cool.mp4").read_bytes()
    short = tmp_path / "short.mp4"
    short.write_bytes(whole[: len(whole) * 6 // 10])
    frames = video.read_frames(short)
    count = 0
    with pytest.raises(InputError, match=r"short\.mp4: frame (\d+): broken stream") as caught:
        for _ in frames:
            count += 1
    assert 10 < count < 60 and f"frame {count}:" in str(caught.value)


def test_damage_in_the_middle_is_named_with_the_frame(tmp_path, photo):
    path = tmp_path / "a.mp4"
    video.write_video(path, sliding(photo, 30), Fraction(25), crf=8)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 300] = np.random.default_rng(0).bytes(300)
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.mp4: frame \d+: broken stream"):
        list(video.read_frames(path))


def test_names_that_look_like_links_or_patterns_are_files(tmp_path, photo, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("take:1.mp4", "a%03d.mp4", "two\nlines.mp4"):
        video.write_video(name, [photo] * 3, Fraction(25))
        assert len(list(video.read_frames(name))) == 3
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("name", ["a.avi", "a.mp4", "a.mkv"])
def test_tags_in_another_alphabet_are_no_reason_to_fail(tmp_path, film, grey_steps, name):
    path = tmp_path / name
    film(path, grey_steps(5), tags={"title": "TITLE"})
    data = path.read_bytes()
    assert b"TITLE" in data
    path.write_bytes(data.replace(b"TITLE", "Th\xe9\xe2t".encode("latin-1")))
    assert video.probe(path).width == 64
    assert len(list(video.read_frames(path))) == 5


@pytest.mark.parametrize(("fps", "kept"), [(25, 12), (50, 12), (60, 6), (120, 4)])
def test_a_gif_takes_as_long_as_its_frames(tmp_path, fps, kept):
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (16, 16, 3), np.uint8) for _ in range(12)]
    video.write_video(tmp_path / "a.gif", frames, Fraction(fps))
    with Image.open(tmp_path / "a.gif") as gif:
        delays = [shown.info["duration"] for shown in ImageSequence.Iterator(gif)]
    assert len(delays) == kept and min(delays) >= 20  # players slow down what is shorter
    assert sum(delays) == pytest.approx(1000 * 12 / fps, abs=10)


def test_of_several_picture_tracks_the_largest_is_read(tmp_path, photo):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as output:
        for side in (64, 128, 32):
            stream = output.add_stream("mjpeg", rate=25)
            stream.width = stream.height = side
            stream.pix_fmt = "yuvj420p"
        for stream in output.streams:
            frame = av.VideoFrame.from_ndarray(
                cv2.resize(photo, (stream.width, stream.height)), format="rgb24"
            )
            output.mux([*stream.encode(frame), *stream.encode()])
    assert video.probe(path).width == 128


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("text.mp4", b"no video at all\n" * 50, "not a readable video: text"),
        ("page.mp4", b"<!doctype html><html>" + b" " * 500, "a web page"),
        ("pointer.mp4", b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        ("empty.mp4", b"", "0 bytes"),
        ("missing.mp4", None, "no such file"),
    ],
)
def test_what_is_no_video_gives_one_line(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    for read in (video.probe, lambda path: next(video.read_frames(path))):
        with pytest.raises(InputError, match=message) as caught:
            read(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)


def test_a_clip_without_its_index_is_refused(tmp_path, photo):
    video.write_video(tmp_path / "a.mp4", [photo] * 5, Fraction(25))
    data = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(data.replace(b"moov", b"junk"))
    with pytest.raises(InputError, match=r"a\.mp4"):
        video.probe(tmp_path / "a.mp4")


def test_sound_alone_is_refused(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as output:
        sound = output.add_stream("aac", rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 48_000
        output.mux([*sound.encode(frame), *sound.encode()])
    with pytest.raises(InputError, match="no picture track"):
        video.probe(tmp_path / "a.mp4")


def test_an_unwritable_place_is_found_before_any_frame_is_made(tmp_path, photo):
    (tmp_path / "file").write_text("in the way")

    def never():
        raise AssertionError("a frame was asked for")
        yield

    for path in (tmp_path / "file" / "a.mp4", tmp_path / "a.avi"):
        with pytest.raises(InputError, match=str(path.name)):
            video.write_video(path, never(), Fraction(25))


def test_a_failed_write_leaves_nothing_and_keeps_the_old_file(tmp_path, photo):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")

    def fails():
        yield photo
        raise RuntimeError("sampler died")

    with pytest.raises(RuntimeError):
        video.write_video(path, fails(), Fraction(25))
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"] and path.read_bytes() == b"old"


def save_cmyk(photo, path):
    Image.fromarray(photo).convert("CMYK").save(path, quality=98)


def save_grey16(photo, path):
    Image.fromarray(photo[..., 1].astype(np.uint16) * 257).save(path)


def save_rgb16(photo, path):
    cv2.imwrite(str(path), photo[..., ::-1].astype(np.uint16) * 257)


def save_exif_rotated(photo, path):
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn 90 degrees clockwise to view"
    Image.fromarray(np.rot90(photo)).save(path, exif=exif, quality=98)


@pytest.mark.parametrize(
    ("name", "save", "grey", "tolerance"),
    [
        ("cmyk.jpg", save_cmyk, False, 3),
        ("grey16.png", save_grey16, True, 0),
        ("rgb16.png", save_rgb16, False, 0),
        ("exif.jpg", save_exif_rotated, False, 4),
        ("grey.png", lambda p, path: Image.fromarray(p[..., 1]).save(path), True, 0),
        ("lossless.webp", lambda p, path: Image.fromarray(p).save(path, lossless=True), False, 0),
    ],
)
def test_kinds_of_pictures(tmp_path, photo, name, save, grey, tolerance):
    save(photo, tmp_path / name)
    picture = read_picture(tmp_path / name)
    wanted = np.repeat(photo[..., 1:2], 3, 2) if grey else photo
    assert picture.shape == wanted.shape and picture.dtype == np.uint8
    assert np.abs(picture.astype(float) - wanted).mean() <= tolerance


def test_transparency_is_laid_over_white(tmp_path, photo):
    alpha = np.full(photo.shape[:2], 255, np.uint8)
    alpha[:20], alpha[20:40] = 0, 128
    Image.fromarray(np.dstack([photo, alpha])).save(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png")
    assert (picture[:20] == 255).all()
    half = 0.5 * photo[20:40] + 127.5
    assert np.abs(picture[20:40] - half).max() <= 1.5
    np.testing.assert_array_equal(picture[40:], photo[40:])


def test_picture_sizes_have_limits(tmp_path, photo):
    Image.fromarray(photo).resize((16, 16)).save(tmp_path / "small.png")
    with pytest.raises(InputError, match=r"small\.png: 16x16 pixels.* 64"):
        read_picture(tmp_path / "small.png")
    Image.fromarray(photo).resize((7680, 4320)).save(tmp_path / "8k.jpg")
    assert read_picture(tmp_path / "8k.jpg").shape == (2304, 4096, 3)


def test_damaged_or_foreign_pictures_give_one_line(tmp_path, photo, portrait_picture):
    (tmp_path / "cut.png").write_bytes(portrait_picture.read_bytes()[:50_000])
    (tmp_path / "text.png").write_text("not a picture")
    for name in ("cut.png", "text.png"):
        with pytest.raises(InputError, match=name):
            read_picture(tmp_path / name)


def test_a_video_as_picture_gives_its_first_frame(tmp_path, talking_head_clips):
    path = talking_head_clips / "cool.mp4"
    np.testing.assert_array_equal(read_picture(path), next(video.read_frames(path)))


def test_lossless_video_gives_the_very_frames_back(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (4, 66, 68, 3), dtype=np.uint8)
    for name in ("once.mp4", "again.mp4"):
        video.write_video(tmp_path / name, frames, Fraction(25), lossless=True)
    np.testing.assert_array_equal(list(video.read_frames(tmp_path / "once.mp4")), frames)
    assert (tmp_path / "once.mp4").read_bytes() == (tmp_path / "again.mp4").read_bytes()


@pytest.mark.parametrize("lossless", [True, False])
def test_a_reproducible_video_has_the_same_bytes_every_time(tmp_path, lossless):
    y, x = np.mgrid[:64, :64]
    waves = [np.sin((x + 3 * i) / 5) * np.cos(y / (4 + i / 9)) for i in range(24)]
    frames = [np.repeat((120 * w + 128)[..., None], 3, -1).astype(np.uint8) for w in waves]
    path, written, kept = tmp_path / "clip.mp4", set(), []
    for i in range(12):
        kept.append(np.full(7919 * (i + 1), i, np.uint8))  # other memory for every run
        video.write_video(path, frames, Fraction(25), lossless=lossless, reproducible=True)
        written.add(path.read_bytes())
    assert len(written) == 1


def test_a_long_video_is_written_while_it_is_made(tmp_path):
    # Noise cannot be compressed: what is not in the file must be in memory.
    frames = np.random.default_rng(0).integers(0, 256, (150, 128, 128, 3), dtype=np.uint8)

    def size():
        return sum(path.stat().st_size for path in tmp_path.iterdir())

    with (
        video.VideoWriter(tmp_path / "a.mp4", Fraction(25), lossless=True) as one,
        video.VideoWriter(tmp_path / "b.mp4", Fraction(25), lossless=True) as two,
    ):
        sizes = []
        for frame in frames:
            one.write(frame)
            two.write(frame[::-1])
            sizes.append(size())
        assert not {"a.mp4", "b.mp4"} & {path.name for path in tmp_path.iterdir()}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]
    assert sizes[-1] > 0.8 * size()
    for name, step in (("a.mp4", 1), ("b.mp4", -1)):
        for frame, back in zip(frames, video.read_frames(tmp_path / name), strict=True):
            np.testing.assert_array_equal(frame[::step], back)


@pytest.mark.parametrize(
    ("shapes", "failure", "error", "message"),
    [
        ([], None, InputError, r"a\.mp4: 0 frames to write"),
        ([96, 64], None, ValueError, r"frame 1 is \(64, 128, 3\), frame 0 is \(96, 128, 3\)"),
        ([96, 96], KeyboardInterrupt("stop"), KeyboardInterrupt, "stop"),
        ([], RuntimeError("no model"), RuntimeError, "no model"),
    ],
)
def test_a_writer_that_fails_leaves_nothing(tmp_path, photo, shapes, failure, error, message):
    writing = video.VideoWriter(tmp_path / "a.mp4", Fraction(25))
    with pytest.raises(error, match=message), writing as writer:
        for height in shapes:
            writer.write(photo[:height])
        if failure is not None:
            raise failure
    assert not list(tmp_path.iterdir())


def test_sound_that_cannot_be_read_is_found_before_any_frame(tmp_path):
    writing = video.VideoWriter(tmp_path / "a.mp4", Fraction(25), audio_from=tmp_path / "b.mp4")
    with pytest.raises(InputError, match=r"b\.mp4: no such file"):
        writing.__enter__()
    assert not list(tmp_path.iterdir())
