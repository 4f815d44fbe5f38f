"""Stable Video-Driven Portraits: both stages in the smallest size there is, then from the command
line to a video."""

import json

import cv2
import numpy as np
import pytest

from configs import svp, svp_small
from durian_jax.cli.main import main
from durian_jax.planning import plan
from durian_jax.planning.topology import Topology
from durian_jax.training import loop
from durian_jax.weights import loading, storage
from input_pipeline.media import video
from input_pipeline.media.pictures import write_picture
from tests.convert.other_weights import leaves

EXAMPLE = storage._PACKAGED.parent / "examples" / "0000"


def _config(stage, dataset, **changes):
    config = svp_small.get_config(stage)
    config.model.max_frames = 4
    config.model.transformer.update(
        layers=2, heads=2, head_dim=8, patch=2, positions=12, position_base=12, video_layers=(0, 1)
    )
    if config.model.history:
        config.model.history = config.data.history = 2
    config.data.update(path=str(dataset), frames=3)
    config.steps, config.validation.batches = 4, 1
    config.optimizer.update(warmup_steps=1, decay_steps=0)
    config.sample.update(every=4, steps=2, clips=2, window=4)
    full = svp.get_config(stage)  # guidance, which the small model leaves out
    config.stage.dropout, config.sample.guidance = full.stage.dropout, full.sample.guidance
    config.update(changes)
    return config


@pytest.fixture(scope="module")
def first(prepared_dataset, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("first")
    loop.train(_config("stage1", prepared_dataset), workdir)
    return workdir


@pytest.fixture(scope="module")
def second(first, prepared_dataset, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("second")
    loop.train(_config("stage2", prepared_dataset, init_from=str(first)), workdir)
    return workdir


def test_both_stages_train_one_on_top_of_the_other(first, second):
    before, after = leaves(loading.load(first)[0]), leaves(loading.load(second)[0])
    assert before.keys() == after.keys()
    gates = [name for name in after if name.endswith("video_attn/gate")]
    assert len(gates) == 2
    for name in gates:
        assert np.abs(before[name]).max() > 0 and (before[name] != after[name]).any()
    for run in (first, second):
        assert list((run / "samples").glob("*.png"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """11 frames of the example's driver: two windows and a part of one."""
    path = tmp_path_factory.mktemp("clip") / "driver.mp4"
    frames = [frame for frame, _ in zip(video.read_frames(EXAMPLE / "driving.mp4"), range(11))]
    with video.VideoWriter(path, video.probe(EXAMPLE / "driving.mp4").fps) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def _animate(checkpoint, driving, out, *options, portrait=EXAMPLE / "portrait.png"):
    return main(
        ["animate", f"--portrait={portrait}", f"--driving={driving}", f"--checkpoint={checkpoint}",
         f"--out={out}", *options]
    )  # fmt: skip


def test_a_clip_in_chained_windows_with_its_regions_shown(second, clip, tmp_path):
    assert _animate(second, clip, tmp_path / "out.mp4", "--debug-masks") == 0
    settings = json.loads((tmp_path / "out.json").read_text())
    assert (settings["frames"], settings["windows"], settings["window"]) == (11, "chained", 4)
    assert settings["guidance"] == [2.0, 2.5, 1.0]
    shown = cv2.imread(str(tmp_path / "out_masks.png"))
    assert shown.shape == (32, 4 * 32, 3)
    driver = shown[:, 32:].any(-1)
    assert 0 < driver.mean() < 0.5 and shown[:, :32].any(-1).mean() > 0.9
    # What came before is seen, and a scale for it is an option.
    assert _animate(second, clip, tmp_path / "free.mp4", "--guidance=2,2.5,0") == 0
    one, two = (
        np.stack(list(video.read_frames(tmp_path / name))).astype(int)
        for name in ("out.mp4", "free.mp4")
    )
    assert np.abs(one - two)[5:].max() > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--guidance=2",), "guidance has 1 scales, the model 3 conditions: give one each for so"),
        (("--guidance=2,x",), "'2,x': write SCALE, or one for each condition"),
        (("--window=1",), "--window 1: the model looks 2 frames back"),
        (("--window=5",), "--window 5: the model takes at most 4 frames at a time"),
        (("--spacing=leading",), "spacing 'leading': this model is a flow"),
        ((f"--reference={EXAMPLE / 'portrait.png'}",), "this model takes one photo of the person"),
        ((f"--attribute={EXAMPLE / 'attribute_0.png'}:hair",), "this model takes no attributes"),
    ],
)
def test_what_it_cannot_do(second, clip, tmp_path, capsys, options, message):
    try:
        assert _animate(second, clip, tmp_path / "out.mp4", *options) == 2
    except SystemExit as stop:  # argparse's own
        assert stop.code == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_a_driver_without_a_face(second, tmp_path, capsys):
    write_picture(tmp_path / "grey.png", np.full((64, 64, 3), 128, np.uint8))
    assert _animate(second, tmp_path / "grey.png", tmp_path / "out.png") == 2
    assert "grey.png: no face found" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["grey.png"]


def test_it_is_planned(prepared_dataset):
    config = _config("stage2", prepared_dataset)
    for sample in (False, True):
        planned = plan.Step(config, Topology.parse(None), sample=sample).estimate()
        assert planned.memory["total"] > 0 and planned.model_flops > 0
