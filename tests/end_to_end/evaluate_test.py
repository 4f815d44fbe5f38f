import json

import numpy as np
import pytest

from durian_jax.cli.main import main
from input_pipeline.media import video
from input_pipeline.media.pictures import read_picture


@pytest.fixture(scope="module")
def report(stage2_run, case_folder, tmp_path_factory):
    """Folder of the report on a trained checkpoint, and what the command said."""
    out = tmp_path_factory.mktemp("scores") / "report"
    code = main(
        ["evaluate", "--protocol", "counterfactual", "--cases", str(case_folder),
         "--checkpoint", str(stage2_run[0]), "--out", str(out), "--steps", "4"]
    )  # fmt: skip
    assert code == 0
    return out


def _row(facts, group, method):
    (row,) = (r for r in facts["rows"] if (r["group"], r["method"]) == (group, method))
    return row


def test_a_checkpoint_is_scored_beside_the_baselines(report, stage2_run):
    facts = json.loads((report / "report.json").read_text())
    name = stage2_run[0].name
    mine, truth = _row(facts, "hair", name), _row(facts, "hair", "truth")
    assert mine["metrics"]["psnr"]["count"] == 2
    assert 5 < mine["metrics"]["psnr"]["mean"] < 60 and truth["metrics"]["psnr"]["mean"] == "inf"
    assert facts["method"]["steps"] == 4 and len(facts["method"]["weights_sha256"]) == 64
    assert any("made at 32 px, resized to 128 px" in note for note in facts["notes"])


def test_a_checkpoint_answers_an_interpolation(report, stage2_run):
    facts = json.loads((report / "report.json").read_text())
    mine = _row(facts, "interpolation/colour", stage2_run[0].name)
    assert mine["metrics"]["psnr"]["count"] == 1 and 5 < mine["metrics"]["psnr"]["mean"] < 60
    # Rows of "all" can be compared: they are over the same cases.
    assert {row["cases"] for row in facts["rows"] if row["group"] == "all"} == {3}


def test_saved_answers_score_the_same_again(report, case_folder, stage2_run, tmp_path):
    saved = report / "predictions"
    frames = list(video.read_frames(saved / "0000.mp4"))
    assert len(frames) == 6 and frames[0].shape == (128, 128, 3)
    code = main(
        ["evaluate", "--protocol=counterfactual", f"--cases={case_folder}", "--groups=hair",
         f"--predictions={saved}", f"--out={tmp_path / 'again'}"]
    )  # fmt: skip
    assert code == 0
    first, second = (
        json.loads((folder / "report.json").read_text()) for folder in (report, tmp_path / "again")
    )
    first = _row(first, "hair", stage2_run[0].name)["metrics"]
    second = _row(second, "hair", "predictions")["metrics"]
    for name, cell in first.items():
        if "mean" in cell:
            np.testing.assert_allclose(second[name]["mean"], cell["mean"], rtol=1e-6)


def test_the_answer_keeps_the_framing_of_the_portrait(report, case_folder):
    # The model has learned these clips: outside hair and face its frame 0 is the portrait's.
    prediction = next(video.read_frames(report / "predictions" / "0000.mp4")).astype(float)
    portrait = read_picture(case_folder / "0000" / "portrait.png").astype(float)
    shifted = np.roll(portrait, 32, 1)
    assert np.abs(prediction - portrait).mean() < 0.8 * np.abs(prediction - shifted).mean()


def test_cases_are_made_from_a_data_set(stage2_run, prepared_dataset, tmp_path):
    out = tmp_path / "report"
    code = main(
        ["evaluate", "--protocol=self", f"--dataset={prepared_dataset}", "--groups=glasses",
         f"--checkpoint={stage2_run[0]}", f"--out={out}", "--steps=2", "--networks=none"]
    )  # fmt: skip
    assert code == 0
    facts = json.loads((out / "report.json").read_text())
    assert any("split train: a model may have seen them" in note for note in facts["notes"])
    row = _row(facts, "glasses", stage2_run[0].name)
    # Frame 0 is given; of the others there is a truth.
    assert row["cases"] == 1 and 0 < row["metrics"]["ssim_inside"]["mean"] < 1
    assert sorted(path.name for path in out.iterdir()) == [
        "cases", "predictions", "report.json", "report.md", "report.tex", "sheets"
    ]  # fmt: skip
