"""Clips of your own: DURIAN_CLIPS=FOLDER (with labels.csv in it, if there is one) and -m slow."""

import csv
import os
from pathlib import Path

import pytest

from input_pipeline import check
from input_pipeline.prepare import prepare

CLIPS = os.environ.get("DURIAN_CLIPS")


@pytest.mark.slow
@pytest.mark.skipif(not CLIPS, reason="DURIAN_CLIPS names no folder of clips")
def test_most_clips_of_a_real_folder_become_a_sound_data_set(tmp_path, artefacts):
    labels = Path(CLIPS) / "labels.csv"
    summary = prepare.prepare(
        CLIPS, tmp_path / "dataset", size=128, labels=labels if labels.exists() else None
    )
    skipped = list(csv.reader((tmp_path / "dataset" / "skipped.csv").open()))[1:]
    assert len(skipped) == summary.clips - summary.kept
    assert summary.kept >= 0.9 * summary.clips, skipped
    report = check.check(tmp_path / "dataset", artefacts)
    assert not report.problems and report.frames == summary.frames
