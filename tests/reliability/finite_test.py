"""Batches that make the loss no number: skipped and counted, and too many in a row stop the run."""

import json
import math

import numpy as np
import pytest

from input_pipeline.training import loader
from tests.reliability import runs


@pytest.fixture
def spoil(monkeypatch):
    """A function of batch numbers; their keypoints become NaN."""

    def start(numbers):
        take = loader.Loader.__next__

        def spoilt(self):
            number = self.get_state()["batch"]
            batch = take(self)
            if number in numbers:
                batch["keypoints"] = np.full_like(batch["keypoints"], np.nan)
            return batch

        monkeypatch.setattr(loader.Loader, "__next__", spoilt)

    return start


def _lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_spoilt_batches_change_nothing_but_the_counts(train_toy, spoil, tmp_path):
    spoil({3, 5, 6})
    state = train_toy(tmp_path, steps=8, save={"every": 1, "keep": 9})
    assert state.skipped.tolist() == [3, 0]
    assert [line["skipped"] for line in _lines(tmp_path)] == [0, 0, 0, 1, 1, 2, 3, 3]
    assert [math.isnan(line["loss"]) for line in _lines(tmp_path)] == [
        step in (4, 6, 7) for step in range(1, 9)
    ]
    # Step 4 took batch 3: only the counts tell its state from that before.
    before, good, skipped = (runs.read(tmp_path, step) for step in (2, 3, 4))
    same = [
        all(np.array_equal(a.arrays[path], b.arrays[path]) for path in a.arrays)
        for a, b in ((before, good), (good, skipped))
    ]
    assert same == [False, True]
    assert [x.data["skipped"] for x in (before, good, skipped)] == [[0, 0], [0, 0], [1, 1]]


def test_too_many_in_a_row_stop_the_run_and_keep_the_last_good_state(train_toy, spoil, tmp_path):
    spoil(set(range(9, 99)))
    guarded = {"guards": {"max_skipped": 3, "timeout_minutes": 0.0}}
    with pytest.raises(FloatingPointError, match=r"3 steps in a row, up to step 12 \(3 in all\)"):
        train_toy(tmp_path, **guarded)
    kept = runs.read(tmp_path)
    # Nine good steps; of the three after them only the counts are new.
    assert kept.step == 8 and kept.data["skipped"] == [0, 0]
    assert all(np.isfinite(array).all() for array in kept.arrays.values())
