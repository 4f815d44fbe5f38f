import json
import math
import shutil

import numpy as np
import pytest
from PIL import Image

from durian_jax.cli.main import main
from durian_jax.evaluate import evaluation
from durian_jax.evaluate import report as report_module
from durian_jax.evaluate.protocol import Protocol
from durian_jax.evaluate.scores import metrics_of, summarise
from input_pipeline.errors import InputError
from input_pipeline.media import video
from input_pipeline.media.pictures import write_picture

METRICS = metrics_of(Protocol.load("counterfactual"))


@pytest.fixture(scope="module")
def noise_folder(case_set, tmp_path_factory):
    """Predictions that could not be worse, of each kind of file."""
    folder = tmp_path_factory.mktemp("predictions") / "noise"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for case, kind in zip(case_set.cases, ("video", "array", "pictures")):
        shape = (case.frames, case_set.size, case_set.size, 3)
        frames = rng.integers(0, 256, shape, dtype=np.uint8)
        if kind == "video":
            video.write_video(folder / f"{case.id}.mp4", frames, case_set.fps)
        elif kind == "array":
            np.save(folder / f"{case.id}.npy", frames.astype(np.float64) / 255)
        else:
            for number, frame in enumerate(frames):
                write_picture(folder / case.id / f"{number:04d}.png", frame)
    return folder


@pytest.fixture(scope="module")
def report(case_folder, noise_folder, tmp_path_factory):
    """Folder of a report on noise."""
    out = tmp_path_factory.mktemp("out") / "report"
    evaluation.evaluate(
        "counterfactual", out, cases=case_folder, predictions=noise_folder, networks=[]
    )
    return out


@pytest.fixture(scope="module")
def facts(report):
    return json.loads((report / "report.json").read_text())


def _means(facts, method, group="all"):
    (row,) = (r for r in facts["rows"] if (r["group"], r["method"]) == (group, method))
    return {name: float(row["metrics"][name]["mean"]) for name in METRICS}


def test_the_truth_is_perfect(facts):
    means = _means(facts, "truth")
    for name, value in means.items():
        if name.startswith("psnr"):
            assert value == math.inf
        elif name.startswith("ssim") or name == "iou":
            assert value == pytest.approx(1, abs=1e-12)
        elif name != "flicker":
            assert value == 0


def test_baselines_lie_strictly_between_truth_and_noise(facts):
    best, worst = _means(facts, "truth"), _means(facts, "noise")
    for method in ("copy", "paste"):
        means = _means(facts, method)
        # A copy's attribute may by chance overlap the truth's colours less than noise does, and
        # no video is as calm as a still picture.
        skipped = {"iou", "flicker", "no_face"} if method == "copy" else {"flicker", "no_face"}
        for name in METRICS.keys() - skipped:
            low, high = sorted([best[name], worst[name]])
            assert low < means[name] < high, (method, name)
    assert _means(facts, "paste")["iou"] > 0.5 > _means(facts, "copy")["iou"]
    assert _means(facts, "copy")["flicker"] == 0 < best["flicker"] < worst["flicker"]
    assert worst["no_face"] == 1 and best["no_face"] == 0


def test_pasting_beats_copying_where_the_attribute_is(facts):
    copy, paste = _means(facts, "copy"), _means(facts, "paste")
    assert paste["psnr_inside"] > copy["psnr_inside"] + 3
    assert paste["keypoints"] < 0.5 * copy["keypoints"]


def test_the_report_says_what_was_measured(facts, case_set):
    protocol = Protocol.load("counterfactual")
    assert facts["protocol"]["sha256"] == protocol.sha256 and facts["protocol"]["version"] == 1
    assert facts["cases"]["sha256"] == case_set.sha256() and facts["cases"]["count"] == 3
    assert facts["versions"]["numpy"] == np.__version__
    assert facts["rows"][0]["metrics"]["fid"] == {"not_available": "no weights given"}
    per_case = facts["per_case"]["0001"]["scores"]["paste"]
    mean = np.mean([one["scores"]["paste"]["l1"] for one in facts["per_case"].values()])
    assert _means(facts, "paste")["l1"] == pytest.approx(mean) and per_case["l1"] > 0


def test_every_group_has_its_rows(facts):
    rows = {(row["group"], row["cases"]) for row in facts["rows"]}
    assert rows == {("all", 3), ("hair", 2), ("interpolation/colour", 1)}


def test_tables_for_people_and_papers(report):
    text = (report / "report.md").read_text()
    assert "| metric | noise | truth | copy | paste |" in text
    assert "| PSNR [dB] ↑ | " in text and "inf [inf, inf]" in text
    assert "not available, no weights given: FID, FVD" in text
    table = (report / "report.tex").read_text()
    assert table.count(r"\\") == 1 + 3 * 4 and r"\infty" in table
    columns = {line.count("&") for line in table.splitlines() if "&" in line}
    assert columns == {1 + len(METRICS)}


def test_names_are_safe_in_latex():
    assert report_module._escaped("my_run 50% {a}\\b") == r"my\_run 50\% \{a\}\textbackslash{}b"


def test_a_sheet_shows_each_case(report):
    with Image.open(report / "sheets" / "0002.png") as sheet:
        # portrait, two attributes, driver, truth, prediction, copy, paste; four frames.
        assert sheet.size == (8 * 160, 2 * 22 + 4 * 160)


def test_intervals_hold_the_mean_and_shrink_with_more_cases():
    protocol = Protocol.load("self")
    values = list(np.random.default_rng(0).normal(10, 2, 400))
    few, many = summarise("l1", values[:25], protocol), summarise("l1", values, protocol)
    for cell in (few, many):
        assert cell["low"] < cell["mean"] < cell["high"]
    # 2 x 1.96 standard errors of a normal mean.
    assert many["high"] - many["low"] == pytest.approx(2 * 1.96 * 2 / 20, rel=0.15)
    assert few["high"] - few["low"] > 3 * (many["high"] - many["low"])
    assert summarise("l1", values, protocol) == many
    assert summarise("l1", values[:1], protocol)["low"] is None


def test_one_case_with_an_error_makes_the_mean_finite():
    protocol = Protocol.load("self")
    assert summarise("psnr", [np.inf, np.inf], protocol)["mean"] == np.inf
    cell = summarise("psnr", [np.inf, 20.0], protocol)
    assert cell["mean"] == 40 and (cell["low"], cell["high"]) == (20, np.inf)


def test_bad_predictions_give_one_list_and_no_report(case_folder, noise_folder, tmp_path, capsys):
    (tmp_path / "predictions").mkdir()
    (tmp_path / "predictions" / "0000.mp4").write_text("no video")
    (tmp_path / "predictions" / "extra.mp4").write_text("no video")
    code = main(
        ["evaluate", "--protocol=counterfactual", f"--cases={case_folder}",
         f"--predictions={tmp_path / 'predictions'}", f"--out={tmp_path / 'report'}"]
    )  # fmt: skip
    assert code == 2
    error = capsys.readouterr().err
    assert "4 problems, nothing was scored" in error and "Traceback" not in error
    for name in ("0000: ", "0001: missing", "0002: missing", "extra.mp4: extra"):
        assert f"\n  {name}" in error
    assert [path.name for path in tmp_path.iterdir()] == ["predictions"]


def test_only_the_groups_asked_for_are_scored(case_folder, noise_folder, tmp_path):
    evaluation.evaluate(
        "counterfactual", tmp_path / "out",
        cases=case_folder, predictions=noise_folder, groups=["interpolation/colour"],
    )  # fmt: skip
    facts = json.loads((tmp_path / "out" / "report.json").read_text())
    assert list(facts["per_case"]) == ["0002"] and facts["cases"]["of"] == 3
    assert any("only these groups" in note for note in facts["notes"])


def test_an_unknown_group_is_named(case_folder, noise_folder, tmp_path):
    with pytest.raises(InputError, match=r"^groups hats: .* has hair, interpolation/colour"):
        evaluation.evaluate(
            "counterfactual", tmp_path / "out",
            cases=case_folder, predictions=noise_folder, groups=["hats"],
        )  # fmt: skip


def test_cases_of_another_protocol_are_refused(case_folder, noise_folder, tmp_path):
    with pytest.raises(InputError, match="cases of protocol counterfactual version 1, not self"):
        evaluation.evaluate(
            "self", tmp_path / "out", cases=case_folder, predictions=noise_folder
        )  # fmt: skip


def test_a_folder_of_something_else_is_not_replaced(case_folder, noise_folder, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"has no report.json: name a new folder"):
        evaluation.evaluate(
            "counterfactual", tmp_path, cases=case_folder, predictions=noise_folder
        )  # fmt: skip
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_what_is_scored_is_never_replaced_by_its_report(report, case_folder):
    saved = report / "predictions"
    saved.mkdir()
    with pytest.raises(InputError, match=r"would replace .*predictions, which lies in it"):
        evaluation.evaluate("counterfactual", report, cases=case_folder, predictions=saved)
    assert saved.is_dir()
    saved.rmdir()


@pytest.mark.parametrize(
    "options,message",
    [
        ([], "required: --protocol"),
        (["--protocol=self"], "--out is missing"),
        (["--protocol=self", "--out=o", "--cases=c"], "a checkpoint or predictions"),
        (["--protocol=self", "--out=o", "--predictions=p"], "cases or a dataset"),
        (["--protocol=self", "--write-cases=c"], "--write-cases needs --dataset"),
        (["--protocol=counterfactual", "--write-cases=c", "--dataset=d"], "durian synth writes"),
        (["--protocol=self", "--out=o", "--cases=c", "--predictions=p"], "no cases here"),
        (["--protocol=self", "--out=o", "--cases=c", "--predictions=p", "--steps=3"],
         "steps and guidance are for a checkpoint"),
        (["--protocol=self", "--out=o", "--cases=c", "--predictions=p", "--weights=vgg=f"],
         "unknown metric: choose from fid"),
        (["--protocol=self", "--out=o", "--cases=c", "--predictions=p", "--weights=fid=f"],
         "--weights fid=f: no such file"),
        (["--protocol=easy"], "invalid choice: 'easy'"),
        (["--weights=fid"], "write METRIC=PATH"),
    ],
)  # fmt: skip
def test_bad_options_give_one_line(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    try:
        code = main(["evaluate", *options])
    except SystemExit as exit:
        code = exit.code
    error = capsys.readouterr().err
    assert code == 2 and message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_unusable_cases_are_listed_before_anything_is_scored(
    case_folder, noise_folder, tmp_path, capsys
):
    broken = tmp_path / "cases"
    shutil.copytree(case_folder, broken)
    black = np.zeros((128, 128), bool)
    Image.fromarray(black).save(broken / "0000" / "attribute_0_mask.png")
    write_picture(broken / "0002" / "portrait.png", np.full((128, 128, 3), 90, np.uint8))
    with pytest.raises(InputError) as failure:
        evaluation.evaluate(
            "counterfactual", tmp_path / "out", cases=broken, predictions=noise_folder
        )  # fmt: skip
    text = str(failure.value)
    assert "2 unusable cases, nothing scored" in text
    assert "case 0000: attribute_0_mask.png is black" in text
    assert "case 0002: no face found in portrait.png" in text
    assert not (tmp_path / "out").exists()
