import json
from fractions import Fraction

import av
import jax
import numpy as np
import pytest

from configs import tiny
from durian_jax import Animator, cli
from durian_jax.models.config import blank_batch
from durian_jax.models.durian import Durian, DurianConfig
from input_pipeline import driving, video
from input_pipeline.errors import InputError


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


def test_command_line_makes_video_grid_and_settings(
    stage2_run, portrait_picture, talking_head_clips, tmp_path, capsys
):
    out = tmp_path / "new_folder" / "out.mp4"
    driver, giver = talking_head_clips / "plain.mp4", talking_head_clips / "warm.mp4"
    code = cli.main(
        ["animate", "--portrait", str(portrait_picture), "--attribute", f"{giver}:hair",
         "--driving", str(driver), "--checkpoint", str(stage2_run[0]), "--out", str(out),
         "--steps", "3", "--seed", "5"]
    )  # fmt: skip
    assert code == 0
    # 60 frames in overlapping windows of 8.
    picture, sound = _streams(out)
    assert picture == ("h264", 60, Fraction(25), 64)
    assert sound[0] == "aac" and abs(sound[1] - 60 / 25) < 0.05
    grid, grid_sound = _streams(out.with_name("out_grid.mp4"))
    assert grid == ("h264", 60, Fraction(25), 4 * 64) and grid_sound[0] == "aac"
    settings = json.loads(out.with_suffix(".json").read_text())
    assert settings["seed"] == 5 and settings["steps"] == 3 and settings["frames"] == 60
    assert settings["attributes"] == [f"{giver}:hair"]
    assert len(settings["weights_sha256"]) == 64
    assert "compiling denoise" in capsys.readouterr().out
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
    assert first.frames.shape == (60, 64, 64, 3) and first.frames.dtype == np.uint8
    assert first.grid.shape == (60, 64, 5 * 64, 3)
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
        animator(portrait_picture, [(talking_head_clips / f"{name}.mp4", "hair")], driver, steps=2)
        for name in ("warm", "dark")
    )
    assert np.abs(warm.frames.astype(int) - dark.frames).mean() > 0.3


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="no checkpoint here"):
        Animator.load(tmp_path)


@pytest.fixture(scope="module")
def untrained():
    """An Animator of the second stage that never learned anything: for what goes in and out."""
    config = tiny.get_config("stage2")
    model = Durian(DurianConfig.from_dict(config.model.to_dict()))
    latents = np.zeros((1, 1, *model.config.latent_shape), np.float32)
    batch, steps = blank_batch(model.config), np.zeros(1, np.int32)
    shapes = jax.eval_shape(
        lambda key: model.init(key, batch, latents, steps)["params"], jax.random.key(0)
    )
    params = jax.tree.map(lambda leaf: jax.numpy.full(leaf.shape, 0.01), shapes)
    return Animator(params, config.to_dict(), "untrained")


def test_a_template_drives_like_its_clip_but_silently(
    untrained, portrait_picture, talking_head_clips, tmp_path
):
    giver, clip = (talking_head_clips / "dark.mp4", "hair"), talking_head_clips / "plain.mp4"
    driven = untrained(portrait_picture, [giver], clip, steps=2)
    driving.write_template(tmp_path / "motion.npz", driven.motion)
    again = untrained(portrait_picture, [giver], tmp_path / "motion.npz", steps=2)
    np.testing.assert_array_equal(again.frames, driven.frames)
    again.save(tmp_path / "again.mp4")
    assert _streams(tmp_path / "again.mp4")[1] == (None, None)
    drawn = again.grid[:, :, 2 * 64 : 3 * 64]
    assert (drawn == 0).mean() > 0.5 and drawn.any(axis=(1, 2, 3)).all()


def test_a_photo_drives_a_picture_or_a_clip(
    untrained, portrait_picture, talking_head_clips, tmp_path
):
    inputs = portrait_picture, [(talking_head_clips / "warm.mp4", "hair")], portrait_picture
    untrained(*inputs, steps=2).save(tmp_path / "out.png")
    assert video.read_picture(tmp_path / "out.png").shape == (64, 64, 3)
    assert video.read_picture(tmp_path / "out_grid.png").shape == (64, 4 * 64, 3)
    settings = json.loads((tmp_path / "out.json").read_text())
    assert settings["frames"] == 1 and settings["fps"] == "25"
    clip = untrained(*inputs, steps=2, following=driving.Following(frames=10))
    assert clip.frames.shape == (10, 64, 64, 3) and clip.grid.shape == (10, 64, 4 * 64, 3)


def test_the_model_itself_may_align_the_attribute(
    stage2_run, portrait_picture, talking_head_clips, monkeypatch
):
    animator = Animator.load(stage2_run[0], aligner="self")
    looked_at, square = [], np.zeros((64, 64), bool)
    square[4:20, 40:60] = True

    class Segmenter:
        def __call__(self, pictures, present):
            looked_at.append(pictures)
            return {kind: square[None] for kind in present}

    monkeypatch.setattr(animator, "_segmenter", Segmenter())
    giver = talking_head_clips / "warm.mp4"
    result = animator(portrait_picture, [(giver, "hair")], portrait_picture, steps=2, grow_mask=0.0)
    shown, own, posed = looked_at
    assert result.settings["aligner"] == "self"
    np.testing.assert_array_equal(posed.keypoints, own.keypoints)
    for other in (shown, own):
        assert np.abs(posed.images.astype(int) - other.images).mean() > 3, "a picture of its own"
    answers = [square, square, np.zeros_like(square)]
    monkeypatch.setattr(
        animator, "_segmenter", lambda pictures, kinds: {"hair": answers.pop(0)[None]}
    )
    with pytest.raises(InputError, match=r"the model shows no hair \(0\.00%"):
        animator(portrait_picture, [(giver, "hair")], portrait_picture, steps=2)
