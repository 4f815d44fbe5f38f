"""The protocol without attributes: cases, baselines, identity leak, folders of predictions."""

import json

import cv2
import numpy as np
import pytest

from durian_jax.cli.main import main
from durian_jax.evaluate import evaluation, scores
from durian_jax.evaluate.protocol import Protocol
from input_pipeline.dataset import cases
from input_pipeline.errors import InputError
from input_pipeline.media import video
from tests.conftest import CASE_FRAMES, CASE_SIDE

FRAMES, SIDE = CASE_FRAMES, CASE_SIDE


@pytest.fixture(scope="module")
def facts(reenact_folder, tmp_path_factory):
    """The report on a method that gives back the driver's own frames, half way to the portrait's
    width."""
    folder, out = tmp_path_factory.mktemp("answers") / "half", tmp_path_factory.mktemp("out") / "r"
    found = cases.CaseSet.read(reenact_folder)
    for case in found.cases:
        pictures = found.load(case)
        matrix = np.float32([[1 / 1.09, 0, 0.041 * SIDE], [0, 1, 0]])
        half = [cv2.warpAffine(f, matrix, (SIDE, SIDE), borderMode=1) for f in pictures.driving]
        video.write_video(folder / f"{case.id}.mp4", half, found.fps, lossless=True)
    code = main(
        ["evaluate", "--protocol=reenact", f"--cases={reenact_folder}", f"--predictions={folder}",
         f"--out={out}", "--networks=none"]
    )  # fmt: skip
    assert code == 0
    return json.loads((out / "report.json").read_text())


def _means(facts, method):
    (row,) = (r for r in facts["rows"] if (r["group"], r["method"]) == ("all", method))
    return {k: float(cell["mean"]) for k, cell in row["metrics"].items() if "mean" in cell}


def test_cases_without_attributes_are_read_as_they_were_written(reenact_folder):
    found = cases.CaseSet.read(reenact_folder)
    for case in found.cases:
        pictures = found.load(case)
        assert pictures.attributes.shape == (0, SIDE, SIDE, 3)
        assert pictures.attribute_masks.shape == (0, SIDE, SIDE) and not case.kinds
        assert sorted(path.name for path in (reenact_folder / case.id).iterdir()) == [
            "driving.mp4", "portrait.png", "portrait_mask.png", "truth.mp4", "truth.npz",
        ]  # fmt: skip


def test_the_leak_grows_from_the_truth_to_the_driver(facts):
    leaks = {row["method"]: _means(facts, row["method"])["leak"] for row in facts["rows"]}
    assert leaks["copy"] == pytest.approx(0, abs=0.02) and leaks["driver"] == pytest.approx(1)
    assert leaks["truth"] < 0.25 < leaks["half"] < 0.75
    half, driver, copy = (_means(facts, name) for name in ("half", "driver", "copy"))
    assert half["shape_portrait"] < driver["shape_portrait"]
    assert driver["shape_driver"] == 0 < half["shape_driver"] < copy["shape_driver"]
    assert _means(facts, "truth")["l1"] == 0 and copy["mouth"] > 0
    assert driver["pose"] < 3


def test_only_metrics_that_say_something_are_in_the_report(facts):
    names = scores.metrics_of(Protocol.load("reenact"))
    assert names.keys() <= facts["metrics"].keys()
    assert not {"iou", "l1_inside", "psnr_outside"} & facts["metrics"].keys()
    assert {"leak", "shape_portrait", "shape_driver"} <= names.keys()
    assert not {"leak"} & scores.metrics_of(Protocol.load("counterfactual")).keys()


def test_a_result_without_a_face_leaks_all_and_has_no_shape(reenact_folder, landmarker):
    found = cases.CaseSet.read(reenact_folder)
    case = found.cases[0]
    pictures = found.load(case)
    reference = scores.find_reference(case, pictures, landmarker)
    grey = np.full((FRAMES, SIDE, SIDE, 3), 0.5, np.float32)
    track = scores.find_track(grey, landmarker)
    prediction = scores.Prediction(grey, track, case, pictures, reference)
    values = scores.score(prediction, Protocol.load("reenact"))
    assert values["leak"] == 1 and values["shape_driver"] is None and values["no_face"] == 1


def test_cases_of_another_protocol_are_refused(reenact_folder, tmp_path):
    with pytest.raises(InputError, match="cases of protocol reenact version 1, not self"):
        evaluation.evaluate(
            "self", tmp_path / "out", cases=reenact_folder, predictions=reenact_folder
        )
    with pytest.raises(InputError, match="durian synth writes its cases"):
        evaluation.write_cases("reenact", tmp_path, tmp_path / "cases")
    assert not (tmp_path / "out").exists()
