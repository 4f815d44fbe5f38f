"""X-Portrait from the command line: what comes out, and what it does not take."""

import csv
import json
import re

import cv2
import numpy as np
import pytest

from durian_jax import Animator
from durian_jax.cli.main import main
from durian_jax.weights import storage
from input_pipeline.media import video
from input_pipeline.media.pictures import write_picture
from tests.convert.sources.x_portrait_test import SETTINGS
from tests.parity import x_portrait_drawn

EXAMPLE = storage._PACKAGED.parent / "examples" / "0000"
MODEL = {"resolution": 32, "patch": 4, "control_channels": [4, 4, 4], "max_frames": 16}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A folder of weights that never learned anything."""
    folder = tmp_path_factory.mktemp("x_portrait") / "weights"
    model = x_portrait_drawn.system(**MODEL)
    params = x_portrait_drawn.params(model)
    settings = SETTINGS | {"sample": SETTINGS["sample"] | {"steps": 2}}
    facts = {
        "config": {"system": "x_portrait", "model": x_portrait_drawn.MODEL | MODEL, **settings}
    }
    storage.write(folder, ((name, storage.flat(tree)) for name, tree in params.items()), facts)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """19 frames of the example's driver: more than a window."""
    path = tmp_path_factory.mktemp("clip") / "driver.mp4"
    frames = [frame for frame, _ in zip(video.read_frames(EXAMPLE / "driving.mp4"), range(19))]
    with video.VideoWriter(path, video.probe(EXAMPLE / "driving.mp4").fps) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def _animate(checkpoint, driving, out, *options, portrait=EXAMPLE / "portrait.png"):
    return main(
        ["animate", f"--portrait={portrait}", f"--driving={driving}", f"--checkpoint={checkpoint}",
         f"--out={out}", *options]
    )  # fmt: skip


def test_a_clip_in_circular_windows(checkpoint, clip, tmp_path):
    assert _animate(checkpoint, clip, tmp_path / "out.mp4") == 0
    settings = json.loads((tmp_path / "out.json").read_text())
    assert settings["frames"] == 19
    assert (settings["windows"], settings["spacing"], settings["start"]) == (
        "circular", "leading", "source",
    )  # fmt: skip
    assert next(video.read_frames(tmp_path / "out_grid.mp4")).shape == (32, 96, 3)
    assert _animate(checkpoint, clip, tmp_path / "long.mp4", "--windows=overlapping") == 0
    assert video.probe(tmp_path / "long.mp4").width == 32


@pytest.mark.parametrize("windows", ["circular", "overlapping"])
def test_the_reference_network_runs_once_a_step(checkpoint, clip, windows, monkeypatch):
    animator, calls = Animator.load(checkpoint), []
    program = animator.generator.at_time
    monkeypatch.setattr(
        animator.generator, "at_time", lambda *given: calls.append(1) or program(*given)
    )
    result = animator(EXAMPLE / "portrait.png", [], clip, windows=windows, quiet=True)
    # Two windows at each of two steps.
    assert len(result.frames) == 19 and len(calls) == 2


def test_a_photo_and_more_of_the_person_and_no_guidance(checkpoint, tmp_path):
    """A clip shorter than a window is one window; guidance 1 is the conditional prediction."""
    frames = video.read_frames(EXAMPLE / "truth.mp4")
    write_picture(tmp_path / "pose.png", next(frames))
    write_picture(tmp_path / "other.png", next(frames))
    found = []
    for name, options in (
        ("one", ()), ("again", ()), ("more", (f"--reference={tmp_path / 'other.png'}",)),
        ("none", ("--align=none",)), ("free", ("--guidance=1",)),
    ):  # fmt: skip
        out = tmp_path / f"{name}.png"
        assert _animate(checkpoint, tmp_path / "pose.png", out, *options) == 0
        found.append(cv2.imread(str(out)).astype(int))
    first, again, *others = found
    np.testing.assert_array_equal(first, again)
    assert all(np.abs(first - other).max() > 1 for other in others)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((f"--attribute={EXAMPLE / 'attribute_0.png'}:hair",), "this model takes no attributes"),
        (("--best-frame=19",), "--best-frame 19: .*driver.mp4 has 19 frames: use 0 to 18"),
        (("--motion=relative",), "follows the driver's pictures as they are"),
        (("--steps=3",), "steps is 3: with leading spacing"),
        (("--guidance=-1",), "guidance -1"),
        (("--window=4", "--overlap=4"), "overlap 4: use 0 to 3"),
    ],
)
def test_what_it_cannot_do(checkpoint, clip, tmp_path, capsys, options, message):
    assert _animate(checkpoint, clip, tmp_path / "out.mp4", *options) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(message, line) and not list(tmp_path.iterdir())


def test_it_is_scored_by_reenactment(checkpoint, reenact_folder, tmp_path):
    code = main(
        ["evaluate", "--protocol=reenact", f"--cases={reenact_folder}", "--networks=none",
         f"--checkpoint={checkpoint}", f"--out={tmp_path / 'report'}"]
    )  # fmt: skip
    facts = json.loads((tmp_path / "report" / "report.json").read_text())
    assert code == 0 and "leak" in facts["rows"][0]["metrics"]
    assert len(list((tmp_path / "report" / "predictions").glob("*.mp4"))) == 2


def test_pictures_without_a_face(checkpoint, clip, tmp_path, capsys):
    write_picture(tmp_path / "grey.png", np.full((64, 64, 3), 128, np.uint8))
    grey = tmp_path / "grey.png"
    assert _animate(checkpoint, grey, tmp_path / "out.png") == 2
    assert "grey.png: no face found" in capsys.readouterr().err
    assert _animate(checkpoint, clip, tmp_path / "out.mp4", portrait=grey) == 2
    assert "grey.png: no face found" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["grey.png"]


def test_a_table_of_jobs(checkpoint, tmp_path, capsys):
    """Its columns reach the reader; what a row cannot have is one line, and spoils no other."""
    frames = video.read_frames(EXAMPLE / "truth.mp4")
    write_picture(tmp_path / "pose.png", next(frames))
    write_picture(tmp_path / "other.png", next(frames))
    write_picture(tmp_path / "grey.png", np.full((64, 64, 3), 128, np.uint8))
    portrait, worn = EXAMPLE / "portrait.png", EXAMPLE / "attribute_0.png"
    rows = {
        "plain": (portrait, "", "pose.png", "", "", ""),
        "first": (portrait, "", "pose.png", "face", "0", ""),
        "none": (portrait, "", "pose.png", "none", "", ""),
        "more": (portrait, "", "pose.png", "", "", "other.png; pose.png"),
        "late": (portrait, "", "pose.png", "", "1", ""),
        "both": (portrait, "", "pose.png", "none", "0", ""),
        "odd": (portrait, "", "pose.png", "mouth", "", ""),
        "worn": (portrait, f"{worn}:hair", "pose.png", "", "", ""),
        "driver": (portrait, "", "grey.png", "", "", ""),
        "source": ("grey.png", "", "pose.png", "", "", ""),
        "gone": (portrait, "", "pose.png", "", "", "nobody.png"),
    }
    header = "name,portrait,attributes,driving,align,best_frame,references"
    lines = [header, *(",".join(map(str, (name, *row))) for name, row in rows.items())]
    (tmp_path / "jobs.csv").write_text("\n".join(lines))
    out = tmp_path / "out"
    given = ["batch", f"{tmp_path / 'jobs.csv'}", f"--out={out}", f"--checkpoint={checkpoint}"]
    assert main(given) == 2
    assert "7 of 11 rows failed" in capsys.readouterr().err.splitlines()[-1]
    with open(out / "report.csv", newline="") as file:
        found = {line["name"]: line for line in csv.DictReader(file)}
    made = {name: cv2.imread(f"{out / name}.png") for name in ("plain", "first", "none", "more")}
    assert [name for name, line in found.items() if line["status"] == "done"] == list(made)
    np.testing.assert_array_equal(made["plain"], made["first"])  # a photo has one frame
    for name in ("none", "more"):
        assert np.abs(made[name].astype(int) - made["plain"]).max() > 1
    for name, message in (
        ("late", "best_frame 1: .*pose.png has 1 frames: use 0 to 0"),
        ("both", "best_frame 0: use a number from 0 on, and none without alignment"),
        ("odd", "align 'mouth': choose face, none"),
        ("worn", "this model takes no attributes"),
        ("driver", "grey.png: no face found"),
        ("source", "grey.png: no face found"),
        ("gone", "nobody.png: no such file"),
    ):
        assert re.search(message, found[name]["error"]) and "\n" not in found[name]["error"]
        assert not list(out.glob(f"{name}*"))


def test_a_further_photo_is_never_replaced(checkpoint, tmp_path, capsys):
    frames = video.read_frames(EXAMPLE / "truth.mp4")
    for name in ("pose.png", "other.png"):
        write_picture(tmp_path / name, next(frames))
    before = (tmp_path / "other.png").read_bytes()
    reference = f"--reference={tmp_path / 'other.png'}"
    assert _animate(checkpoint, tmp_path / "pose.png", tmp_path / "other.png", reference) == 2
    assert "other.png" in capsys.readouterr().err
    assert (tmp_path / "other.png").read_bytes() == before


def test_options_for_pictures_are_refused_by_systems_of_keypoints(clip, tmp_path, capsys):
    attribute_source = f"--attribute={EXAMPLE / 'attribute_0.png'}:hair"
    for option, message in (
        ("--best-frame=0", "--best-frame is of models that follow pictures"),
        (f"--reference={EXAMPLE / 'portrait.png'}", "this model takes one photo of the person"),
    ):
        assert _animate("small", clip, tmp_path / "out.mp4", attribute_source, option) == 2
        assert message in capsys.readouterr().err
