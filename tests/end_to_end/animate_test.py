import json
from fractions import Fraction

import av
import numpy as np
import pytest

from durian_jax import Animator, cli
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
