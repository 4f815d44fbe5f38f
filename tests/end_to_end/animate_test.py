import json
from fractions import Fraction

import av
import numpy as np
import pytest

from durian_jax import Animator
from durian_jax.animation.job import Job
from durian_jax.cli.main import main
from durian_jax.diffusion.windows import Overlapping
from input_pipeline.errors import InputError
from input_pipeline.media import video
from input_pipeline.media.pictures import read_picture, write_picture
from input_pipeline.motion import driver
from tests import smallest


@pytest.fixture(scope="module")
def animator(stage2_run):
    return Animator.load(stage2_run[0])


def _streams(path):
    """Codec, frames, frame rate and width of the picture; codec and seconds of the sound."""
    with av.open(str(path)) as container:
        picture = container.streams.video[0]
        codec, rate = picture.codec_context.name, picture.average_rate
        sound = container.streams.audio[0] if container.streams.audio else None
        seconds = float(sound.duration * sound.time_base) if sound else None
        name = sound.codec_context.name if sound else None
        count = sum(1 for _ in container.decode(picture))
        return (codec, count, rate, picture.width), (name, seconds)


def _picture(path):
    return next(video.read_frames(path))


def test_command_line_makes_video_grid_and_settings(
    stage2_run, portrait_picture, talking_head_clips, tmp_path, capsys
):
    out = tmp_path / "new_folder" / "out.mp4"
    driver, source = talking_head_clips / "plain.mp4", talking_head_clips / "warm.mp4"
    code = main(
        ["animate", "--portrait", str(portrait_picture), "--attribute", f"{source}:hair",
         "--driving", str(driver), "--checkpoint", str(stage2_run[0]), "--out", str(out),
         "--steps", "3", "--seed", "5"]
    )  # fmt: skip
    assert code == 0
    # 60 frames in overlapping windows of 8.
    picture, sound = _streams(out)
    assert picture == ("h264", 60, Fraction(25), 32)
    assert sound[0] == "aac" and abs(sound[1] - 60 / 25) < 0.05
    grid, grid_sound = _streams(out.with_name("out_grid.mp4"))
    assert grid == ("h264", 60, Fraction(25), 4 * 32) and grid_sound[0] == "aac"
    settings = json.loads(out.with_suffix(".json").read_text())
    assert settings["seed"] == 5 and settings["steps"] == 3 and settings["frames"] == 60
    assert settings["attributes"] == [f"{source}:hair"]
    assert len(settings["weights_sha256"]) == 64
    assert settings["grow_mask"] == smallest.get_config().data.grow / 2
    assert "compiling denoiser" in capsys.readouterr().out
    assert sorted(path.name for path in out.parent.iterdir()) == [
        "out.json", "out.mp4", "out_grid.mp4"
    ]  # fmt: skip


def test_same_seed_same_video_and_no_new_compilation(
    animator, portrait_picture, talking_head_clips, capsys
):
    inputs = (
        portrait_picture,
        [(talking_head_clips / "dark.mp4", "hair"), (talking_head_clips / "cool.mp4", "glasses")],
        talking_head_clips / "cool.mp4",
    )
    first = animator(*inputs, steps=2, seed=1)
    assert first.frames.shape == (60, 32, 32, 3) and first.frames.dtype == np.uint8
    assert first.grid.shape == (60, 32, 5 * 32, 3)
    capsys.readouterr()
    again, other = animator(*inputs, steps=2, seed=1), animator(*inputs, steps=4, seed=2)
    assert "compiling" not in capsys.readouterr().out
    np.testing.assert_array_equal(again.frames, first.frames)
    assert (other.frames != first.frames).any()
    assert _weights(first) == _weights(other)


def _weights(video):
    return video.settings["weights_sha256"]


def test_the_attribute_changes_the_result(animator, portrait_picture, talking_head_clips):
    driver = talking_head_clips / "cool.mp4"
    warm, dark = (
        animator(
            portrait_picture, [(talking_head_clips / f"{name}.mp4", "hair")], driver,
            steps=2, guidance=8.0,
        )
        for name in ("warm", "dark")
    )  # fmt: skip
    assert np.abs(warm.frames.astype(int) - dark.frames).mean() > 0.3


def test_windows_join_without_a_visible_seam(animator, portrait_picture, talking_head_clips):
    hair, driver = (talking_head_clips / f"{name}.mp4" for name in ("warm", "plain"))
    clip = animator(portrait_picture, [(hair, "hair")], driver, steps=4, solver="dpm++")
    change = np.abs(np.diff(clip.frames.astype(float), axis=0)).mean((1, 2, 3))
    windows = Overlapping(60, smallest.get_config("stage2").sample.window, 2)
    assert len(windows) > 5
    # Between these frames and the one before a window begins or has ended.
    seams = np.unique([*windows.starts[1:], *(windows.starts[:-1] + windows.length)])
    assert change[seams - 1].mean() <= 1.1 * change.mean()


def test_a_recording_is_the_video_and_bad_jobs_stand_alone(
    untrained, portrait_picture, talking_head_clips, tmp_path
):
    hair = (talking_head_clips / "dark.mp4", "hair")
    good = Job(portrait_picture, [hair], portrait_picture, seed=3)
    other = Job(portrait_picture, [hair], portrait_picture, seed=4)
    bad = Job(tmp_path / "nobody.png", [hair], portrait_picture)
    jobs = [(good, tmp_path / "a.png"), (bad, tmp_path / "b.png"), (other, tmp_path / "c.png")]
    first, failed, last = untrained.record(jobs, steps=2)
    assert "nobody.png: no such file" in str(failed.error) and failed.settings is None
    assert first.error is None and last.settings["seed"] == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.json", "a.png", "a_grid.png", "c.json", "c.png", "c_grid.png"
    ]  # fmt: skip
    (alone,) = untrained.animate([good], steps=2)
    np.testing.assert_array_equal(_picture(tmp_path / "a.png"), alone.frames[0])


def test_pasted_back_the_photo_keeps_its_size_and_its_surroundings(
    untrained, talking_head_clips, tmp_path
):
    photo = read_picture(talking_head_clips / "plain.mp4")
    wide = np.pad(photo, ((20, 0), (150, 60), (0, 0)), "edge")  # a portrait that is not square
    write_picture(tmp_path / "wide.png", wide)
    hair = (talking_head_clips / "dark.mp4", "hair")
    job = Job(tmp_path / "wide.png", [hair], tmp_path / "wide.png", paste_back=True, report=True)
    (made,) = untrained.record([(job, tmp_path / "out.png")], steps=2)
    assert made.error is None
    out = read_picture(tmp_path / "out.png")
    assert out.shape == wide.shape
    crop = made.scene.portrait.crop
    left = int(crop.cx - crop.side / 2)
    assert left > 20
    np.testing.assert_array_equal(out[:, :left], wide[:, :left])
    middle = slice(int(crop.cy) - 20, int(crop.cy) + 20), slice(int(crop.cx) - 20, int(crop.cx))
    assert np.abs(out[middle].astype(int) - wide[middle]).mean() > 5
    second = (tmp_path / "out_report.csv").read_text().splitlines()
    assert second[0] == "second,frames,faces,identity,flicker" and second[1].startswith("0,1,")


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="no checkpoint here"):
        Animator.load(tmp_path)


@pytest.fixture(scope="module")
def untrained():
    """An Animator of the second stage that never learned anything: for what goes in and out."""
    config = smallest.get_config("stage2").to_dict()
    params = smallest.draw_params(smallest.build_model(config), 0.05)
    return Animator(params, config, "untrained")


def test_a_template_drives_like_its_clip_but_silently(
    untrained, portrait_picture, talking_head_clips, tmp_path
):
    source, clip = (talking_head_clips / "dark.mp4", "hair"), talking_head_clips / "plain.mp4"
    driven = untrained(portrait_picture, [source], clip, steps=2)
    driver.write_template(tmp_path / "motion.npz", driven.motion)
    again = untrained(portrait_picture, [source], tmp_path / "motion.npz", steps=2)
    np.testing.assert_array_equal(again.frames, driven.frames)
    again.save(tmp_path / "again.mp4")
    assert _streams(tmp_path / "again.mp4")[1] == (None, None)
    drawn = again.grid[:, :, 2 * 32 : 3 * 32]
    assert (drawn == 0).mean() > 0.5 and drawn.any(axis=(1, 2, 3)).all()


def test_a_photo_drives_a_picture_or_a_clip(
    untrained, portrait_picture, talking_head_clips, tmp_path
):
    inputs = portrait_picture, [(talking_head_clips / "warm.mp4", "hair")], portrait_picture
    untrained(*inputs, steps=2).save(tmp_path / "out.png")
    assert _picture(tmp_path / "out.png").shape == (32, 32, 3)
    assert _picture(tmp_path / "out_grid.png").shape == (32, 4 * 32, 3)
    settings = json.loads((tmp_path / "out.json").read_text())
    assert settings["frames"] == 1 and settings["fps"] == "25"
    clip = untrained(*inputs, steps=2, motion_options=driver.MotionOptions(frames=10))
    assert clip.frames.shape == (10, 32, 32, 3) and clip.grid.shape == (10, 32, 4 * 32, 3)


def test_the_model_itself_may_align_the_attribute(
    stage2_run, portrait_picture, talking_head_clips, monkeypatch
):
    animator = Animator.load(stage2_run[0], aligner="self")
    looked_at, square = [], np.zeros((32, 32), bool)
    square[2:10, 20:30] = True

    class Segmenter:
        def __call__(self, pictures, present):
            looked_at.append(pictures)
            return {kind: square[None] for kind in present}

    monkeypatch.setattr(animator, "_segmenter", Segmenter())
    source = talking_head_clips / "warm.mp4"
    result = animator(
        portrait_picture, [(source, "hair")], portrait_picture, steps=2, grow_mask=0.0
    )
    shown, own, posed = looked_at
    assert result.settings["aligner"] == "self"
    np.testing.assert_array_equal(posed.keypoints, own.keypoints)
    assert own.source.name == "astronaut.png"
    assert posed.source is None, "masks from files of the photo are not its own"
    for other in (shown, own):
        assert np.abs(posed.images.astype(int) - other.images).mean() > 3, "a picture of its own"
    answers = [square, square, np.zeros_like(square)]
    monkeypatch.setattr(
        animator, "_segmenter", lambda pictures, kinds: {"hair": answers.pop(0)[None]}
    )
    with pytest.raises(InputError, match=r"the model shows no hair \(0\.00%"):
        animator(portrait_picture, [(source, "hair")], portrait_picture, steps=2)
