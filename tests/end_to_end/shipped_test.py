"""The model of the package, as a user meets it: nothing is trained, no checkpoint is named."""

from pathlib import Path

import numpy as np
import pytest

import durian_jax
from durian_jax import Animator
from durian_jax.evaluate.evaluation import evaluate
from durian_jax.weights import storage

PACKAGE = Path(durian_jax.__file__).parent
EXAMPLES = PACKAGE / "examples"


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Means of the metrics over the examples, by method."""
    out = tmp_path_factory.mktemp("shipped") / "report"
    report = evaluate("counterfactual", out, cases=EXAMPLES, checkpoint="small", networks=[])
    return {
        row["method"]: {name: cell.get("mean") for name, cell in row["metrics"].items()}
        for row in report.rows()
        if row["group"] == "all"
    }


def test_it_is_small_enough_to_be_shipped():
    size = sum(path.stat().st_size for path in (PACKAGE / "shipped" / "small").iterdir())
    assert size <= 16e6
    assert sum(path.stat().st_size for path in EXAMPLES.rglob("*") if path.is_file()) <= 1e6


@pytest.mark.parametrize("baseline", ["copy", "paste"])
def test_it_is_nearer_to_the_truth_than_what_needs_no_model(rows, baseline):
    assert rows["small"]["l1"] < rows[baseline]["l1"]
    assert rows["small"]["psnr"] > rows[baseline]["psnr"]


def test_it_moves_like_the_driver_and_shows_a_face(rows):
    assert rows["small"]["keypoints"] < 0.6 * rows["copy"]["keypoints"]
    assert rows["small"]["no_face"] <= 0.02


def test_it_is_what_an_animator_loads_and_says_so(capsys):
    animator = Animator.load()
    assert storage.NOTE in capsys.readouterr().out
    assert animator.size == 64 and animator.source == "small"
    case = EXAMPLES / "0000"
    result = animator(
        case / "portrait.png",
        [(case / "attribute_0.png", "hair", case / "attribute_0_mask.png")],
        case / "driving.mp4",
        portrait_mask=case / "portrait_mask.png",
        framed=True,
        quiet=True,
        steps=2,
    )
    assert result.frames.shape == (24, 64, 64, 3)
    assert np.ptp(result.frames[0].astype(int)) > 100
