"""Outputs of an animation: all of them or none, in the format asked for, never over an input."""

import resource
import signal
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest

from durian_jax.animation import recording
from durian_jax.animation.job import Job
from durian_jax.animation.recording import Recording
from input_pipeline.errors import InputError
from input_pipeline.media import files, video
from input_pipeline.motion.driver import MotionOptions

NOISE = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    """With the inputs of `job`."""
    for name in ("me.png", "mask.png", "her.jpg", "hers.png", "pose.png"):
        (tmp_path / name).write_bytes(b"input")
    video.write_video(tmp_path / "talk.mp4", NOISE[:3], Fraction(25))
    return tmp_path


def job(folder, driving="talk.mp4", **changes):
    worn = [(folder / "her.jpg", "hair", folder / "hers.png")]
    mask = folder / "mask.png"
    return Job(folder / "me.png", worn, folder / driving, portrait_mask=mask, **changes)


def scene(sound=None):
    motion = SimpleNamespace(
        fps=Fraction(25),
        sound=sound,
        keypoints=np.zeros((20, 478, 3)),
        frames=lambda size: iter(NOISE),
    )
    return SimpleNamespace(
        motion=motion, photos=[NOISE[0]], portrait=SimpleNamespace(image=NOISE[0]),
        landmarker=None,
    )  # fmt: skip


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("out", "changes", "hit"),
    [
        ("talk.mp4", {}, "talk.mp4"),
        ("me.png", {"driving": "pose.png"}, "me.png"),
        ("pose.png", {"driving": "pose.png"}, "pose.png"),
        ("mask.png", {"driving": "pose.png"}, "mask.png"),
        ("hers.png", {"driving": "pose.png"}, "hers.png"),
        ("sub/../talk.mp4", {}, "talk.mp4"),
        ("talk.MP4", {}, None),
        ("new.mp4", {}, None),
    ],
)
def test_no_input_is_replaced(folder, out, changes, hit):
    (folder / "sub").mkdir()
    if hit is None:
        recording.check_outputs(folder / out, job(folder, **changes))
        return
    before = (folder / hit).read_bytes()
    told = pytest.raises(InputError, match=f"would replace the input .*{hit}")
    with told, Recording(folder / out, job(folder, **changes), scene()):
        pass
    assert (folder / hit).read_bytes() == before


def test_no_further_photo_of_the_person_is_replaced(folder):
    (folder / "more.png").write_bytes(b"input")
    asked = job(folder, driving="pose.png", references=[folder / "more.png"])
    with pytest.raises(InputError, match=r"would replace the input .*more\.png"):
        recording.check_outputs(folder / "more.png", asked)


@pytest.mark.parametrize(
    ("out", "hit"),
    [
        ("masks/hair.png", "masks/hair.png"),
        ("masks/me/hat/00000.png", "masks/me/hat/00000.png"),
        ("masks/truth.png", "masks/truth.json"),
        ("run/durian.png", "run/durian.json"),
        ("masks/old.png", None),
        ("run/old.png", None),
    ],
)
def test_what_the_animator_reads_is_replaced_by_no_video(folder, out, hit):
    names = ("masks/hair.png", "masks/me/hat/00000.png", "masks/truth.json", "run/durian.json")
    for name in (*names, "masks/old.png", "run/old.json", "run/old.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"input")
    for masks, aligner in (
        (f"truth:{folder / 'masks'}", "self"),
        ("heuristic", f"files:{folder}/masks"),
    ):
        named = recording.files_of_animator(folder / "run", masks, aligner, None)
        arguments = folder / out, job(folder, driving="pose.png"), files.Inputs(named)
        if hit is None:
            recording.check_outputs(*arguments)
        else:
            with pytest.raises(InputError, match=f"would replace the input .*{hit}"):
                recording.check_outputs(*arguments)


@pytest.mark.parametrize("product", ["new_grid.mp4", "new.json", "new_report.csv"])
def test_no_input_is_replaced_by_what_is_written_beside(folder, product):
    (folder / "talk.mp4").rename(folder / product)
    asked = job(folder, driving=product, report=True)
    with pytest.raises(InputError, match=f"would replace the input .*{product}"):
        recording.check_outputs(folder / "new.mp4", asked)


def test_the_name_of_the_grid_may_be_too_long(folder):
    name = "x" * 246 + ".mp4"
    with pytest.raises(InputError, match=r"_grid\.mp4: cannot be written .*too long"):
        recording.check_outputs(folder / name, job(folder))


@pytest.mark.parametrize("bytes_left", [100, 10_000, 60_000])
def test_a_full_disk_leaves_what_was_there(folder, bytes_left):
    out = folder / "out.mp4"
    with Recording(out, job(folder), scene()) as made:
        made.write(NOISE[:2])
        made.write_settings({"take": 1})
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, hard))
    try:
        told = pytest.raises(InputError, match=r"/out\w*\.mp4: cannot be written \(File too large")
        with told, Recording(out, job(folder), scene()) as made:
            made.write(NOISE)
            made.write_settings({"take": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_folder_that_vanishes_is_one_line(folder):
    out = folder / "videos" / "out.mp4"
    told = pytest.raises(InputError, match=r"videos/out\w*\.mp4: cannot be written")
    with told, Recording(out, job(folder), scene()) as made:
        made.write(NOISE)
        made.write_settings({})
        (folder / "videos").rename(folder / "elsewhere")
    assert not (folder / "videos").exists()


@pytest.mark.parametrize(
    ("name", "codec", "sound"),
    [
        ("out.mp4", "h264", ["aac"]),
        ("out.mov", "h264", ["aac"]),
        ("out.webm", "vp9", ["opus"]),
        ("out.gif", "gif", []),
        ("OUT.MOV", "h264", ["aac"]),
    ],
)
def test_each_kind_of_output(folder, talking_head_clips, talking_head, name, codec, sound):
    frames = np.stack([x[::4, ::4] for x in talking_head(count=20)])
    with Recording(folder / name, job(folder), scene(talking_head_clips / "plain.mp4")) as made:
        made.write(frames)
        made.write_settings({})
    stem, suffix = name.split(".")
    for path in (folder / name, folder / f"{stem}_grid.{suffix}"):
        with av.open(str(path)) as container:
            assert container.streams.video[0].codec_context.name == codec
            assert [x.codec_context.name for x in container.streams.audio] == sound
        info, read = video.probe(path), list(video.read_frames(path))
        assert len(read) == 20 and info.fps == 25
    back = np.stack(list(video.read_frames(folder / name))).astype(float)
    assert np.abs(back - frames).mean() < 9


def test_a_still_driver_makes_a_clip_of_any_kind(folder):
    motion_options = MotionOptions(frames=5)
    for suffix in video.OUTPUT_SUFFIXES:
        motion_options.check_output(folder / f"a{suffix}", folder / "pose.png")
    with pytest.raises(InputError, match=r"a\.avi: ends in '\.avi'; name the output \*\.mp4 or"):
        motion_options.check_output(folder / "a.avi", folder / "pose.png")


def test_a_report_sees_frames_as_the_portrait_was_seen(folder, monkeypatch):
    seen, given = scene(), []
    seen.portrait.keypoints, seen.landmarker = np.zeros((478, 3)), object()
    monkeypatch.setattr(recording, "Steadiness", lambda *args: given.append(args))
    asked = job(folder, report=True)
    with pytest.raises(InputError, match="0 frames"), Recording(folder / "out.mp4", asked, seen):
        pass
    assert given == [(seen.portrait.keypoints, Fraction(25), seen.landmarker)]
