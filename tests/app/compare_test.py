"""Reports beside each other: the worst case first, and the frames that a number stands for."""

import dataclasses
import json

import gradio as gr
import numpy as np
import pytest

from durian_jax.app.compare import Compare
from durian_jax.app.visits import Visits
from durian_jax.evaluate.scores import METRICS
from input_pipeline.dataset.cases import CaseSet
from input_pipeline.errors import InputError
from input_pipeline.media import video

IDS = ("0000", "0001", "0002")
PSNR = {"ours": (20.0, 10.0, 15.0), "theirs": (21.0, 22.0, "inf"), "copy": (12.0, 11.0, 13.0)}


def _cell(mean):
    return {"mean": mean, "low": mean, "high": mean, "count": 3}


def write_report(folder, method, digest):
    """A report of `durian evaluate` as far as the page reads it: PSNR and keypoints alone."""
    folder.mkdir()
    known = ("psnr", "keypoints")
    rows = [
        {"group": "all", "method": name, "cases": 3, "metrics": {
            "psnr": _cell(20.5), "keypoints": {"not_available": "no truth"}
        }}
        for name in (method, "copy")
    ]  # fmt: skip
    per_case = {
        case: {"group": "hair", "frames": 6, "scores": {
            name: {"psnr": PSNR[name][i]} for name in (method, "copy")
        }}
        for i, case in enumerate(IDS)
    }  # fmt: skip
    facts = {
        "format": 1, "cases": {"sha256": digest}, "method": {"name": method}, "rows": rows,
        "metrics": {name: dataclasses.asdict(METRICS[name]) for name in known},
        "per_case": per_case,
    }  # fmt: skip
    (folder / "report.json").write_text(json.dumps(facts))
    return folder


@pytest.fixture
def compare(tmp_path, case_folder):
    digest = CaseSet.read(case_folder).sha256()
    reports = {name: write_report(tmp_path / name, name, digest) for name in ("ours", "theirs")}
    reports["foreign"] = write_report(tmp_path / "foreign", "ours", "another")
    with gr.Blocks(), gr.Tab("Compare") as tab:
        return Compare(tab, Visits(tmp_path), reports | {"cases": case_folder})


def test_the_table_has_a_row_for_each_method_and_what_is_there_for_columns(compare):
    table, metric, method, *_ = compare._open(["ours", "theirs"], None, None)
    assert table["headers"] == ["attribute", "", "PSNR [dB] ↑"]
    methods = ["ours", "theirs", "copy"]
    assert table["data"] == [["all", name, "20.5 [20.5, 20.5]"] for name in methods]
    assert metric.choices == [("PSNR", "psnr")] and metric.value == "psnr"
    assert [name for name, _ in method.choices] == methods


@pytest.mark.parametrize(
    ("by", "order"), [("ours", ["0001", "0002", "0000"]), ("theirs", ["0000", "0001", "0002"])]
)
def test_the_worst_case_comes_first(compare, by, order):
    *_, table, case = compare._open(["ours", "theirs"], "psnr", by)
    assert table["headers"] == ["case", "attribute", "ours", "theirs", "copy"]
    assert [row[0] for row in table["data"]] == order and case.value == order[0]
    assert table["data"][order.index("0002")] == ["0002", "hair", "15", "inf", "13"]


def test_a_number_is_seen(compare, case_folder):
    truth = [*video.read_frames(case_folder / "0000" / "truth.mp4")]
    kept = compare._folders["theirs"] / "predictions" / "0000.mp4"
    video.write_video(kept, truth[::-1], CaseSet.read(case_folder).fps, lossless=True)
    slider, tiles = compare._look(["ours", "theirs"], "0000", 2)
    seen = {name: picture for picture, name in tiles}
    assert list(seen) == ["portrait", "hair", "driver", "truth", "copy", "paste", "theirs"]
    assert slider.maximum == 5 and slider.value == 2
    np.testing.assert_array_equal(seen["copy"], seen["portrait"])
    later = {name: picture for picture, name in compare._look(["ours", "theirs"], "0000", 3)[1]}
    np.testing.assert_array_equal(seen["theirs"], later["truth"])


def test_what_cannot_be_compared_is_said(compare):
    for names, message in (
        (["ours", "foreign"], "are of different cases"),
        ([], "choose what"),
    ):
        with pytest.raises(InputError, match=message):
            compare._open(names, None, None)
    with pytest.raises(InputError, match="its cases are not among the folders"):
        compare._look(["foreign"], "0000", 0)


def test_cases_without_a_report_are_seen_in_their_order(compare):
    *_, table, case = compare._open(["cases"], None, None)
    assert case.value == "0000"
    assert table == {
        "headers": ["case", "attribute"],
        "data": [["0000", "hair"], ["0001", "hair"], ["0002", "interpolation/colour"]],
    }
    seen = [name for _, name in compare._look(["cases"], "0000", 0)[1]]
    assert seen == ["portrait", "hair", "driver", "truth", "copy", "paste"]
