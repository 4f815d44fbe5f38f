"""From other people's files to a video, with nothing but commands."""

import json

import numpy as np
import pytest

from durian_jax.cli.main import main
from input_pipeline.media import video
from tests.convert import other_weights


@pytest.mark.slow
def test_moore_animates_a_portrait(tmp_path, portrait_picture, talking_head, capsys):
    pipeline = other_weights.write_diffusers(tmp_path / "sd")
    moore = other_weights.write_moore(tmp_path / "moore")
    driving, out = tmp_path / "driving.mp4", tmp_path / "out.mp4"
    # Eight frames: two windows of the six that its motion modules reach.
    video.write_video(driving, talking_head(count=8), 25)
    convert = ["convert", "--from=moore", f"--source={moore}", f"--out={tmp_path / 'ckpt'}"]
    for part in ("vae", "image_encoder"):
        convert += ["--from=diffusers", f"--source={pipeline / part}"]
    assert main(convert) == 0
    animate = [
        "animate", f"--portrait={portrait_picture}", f"--driving={driving}", "--steps=2",
        f"--checkpoint={tmp_path / 'ckpt'}", f"--out={out}", "--solver=dpm++",
    ]  # fmt: skip
    assert main(animate) == 0
    frames = np.stack(list(video.read_frames(out)))
    assert frames.shape == (8, 16, 16, 3)
    settings = json.loads(out.with_suffix(".json").read_text())
    assert settings["solver"] == "dpm++" and settings["attributes"] == []

    with_attribute = [*animate, f"--attribute={portrait_picture}:hair"]
    assert main(with_attribute) == 2
    assert "takes no attributes, only a portrait" in capsys.readouterr().err
