import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest

from input_pipeline.dataset import records, shards
from input_pipeline.errors import InputError
from input_pipeline.faces import geometry
from input_pipeline.kinds import KINDS
from input_pipeline.masks import segmenters
from input_pipeline.media import video
from input_pipeline.prepare import prepare
from input_pipeline.synthetic import clips, dataset, population
from input_pipeline.synthetic.renderer import render


@pytest.fixture(scope="module")
def filmed(settings, tmp_path_factory):
    """Folder of the clips of two people."""
    folder = tmp_path_factory.mktemp("filmed")
    assert clips.write_clips(folder, dataclasses.replace(settings, people=2, clips=1)) == 2
    return folder


def rows(folder):
    with open(folder / "labels.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_clips_show_what_was_rendered_and_labels_and_masks_what_is_worn(filmed, settings):
    for number, row in enumerate(rows(filmed)):
        person = population.draw_person(settings, number)
        motion = population.draw_motion(settings, number, 0)
        film = render.render_clip(person, motion, settings.size)
        frames = np.stack(list(video.read_frames(filmed / row["file"])))
        np.testing.assert_array_equal(frames, render.to_uint8(film.colour))
        wanted = {
            kind: track
            for kind, track in render.masks(film, person).items()
            if (track.mean((1, 2)) >= 0.005).mean() >= 0.9
        }
        assert {kind for kind in KINDS if row[kind] == "yes"} == wanted.keys()
        assert (row["identity"], row["split"]) == (population.identity(settings, number), "train")
        found = segmenters.load(f"truth:{filmed / 'masks'}")(
            segmenters.Pictures(
                frames, np.zeros((len(frames), 478, 3), np.float32), source=Path(row["file"]),
                frames=np.arange(len(frames)), source_shape=frames.shape[1:3],
                crop=geometry.Crop.whole(settings.size),
            ),
            frozenset(wanted),
        )  # fmt: skip
        for kind, track in wanted.items():
            np.testing.assert_array_equal(found[kind], track)


def test_a_stopped_export_goes_on_and_other_settings_are_refused(filmed, settings, monkeypatch):
    before, two = rows(filmed), dataclasses.replace(settings, people=2, clips=1)
    monkeypatch.setattr(dataset, "compile_renderer", lambda *_: None)
    monkeypatch.setattr(render, "render_clip", lambda *_: pytest.fail("rendered again"))
    clips.write_clips(filmed, two)
    assert rows(filmed) == before
    with pytest.raises(InputError, match="other settings"):
        clips.write_clips(filmed, dataclasses.replace(two, seed=9))


def test_labels_of_other_clips_are_never_replaced(settings, tmp_path):
    (tmp_path / "labels.csv").write_text("file,hair\nmine.mp4,yes\n")
    with pytest.raises(InputError, match=r"holds a labels\.csv of something else"):
        clips.write_clips(tmp_path, settings)
    assert (tmp_path / "labels.csv").read_text().endswith("mine.mp4,yes\n")


@pytest.mark.slow
def test_prepare_takes_the_clips(tmp_path):
    size = population.Settings(people=2, frames=16, size=128, fps=12.5, seed=5)
    clips.write_clips(tmp_path / "people", size)
    masks, labels = f"truth:{tmp_path / 'people/masks'}", tmp_path / "people/labels.csv"
    summary = prepare.prepare(
        tmp_path / "people", tmp_path / "set", size=128, labels=labels, masks=masks,
        workers=1, progress=False,
    )  # fmt: skip
    assert not summary.skipped
    source = shards.Dataset(tmp_path / "set", "train")
    made = {chunk.identity: chunk for chunk in map(records.decode, (source[0], source[1]))}
    for row in rows(tmp_path / "people"):
        shown = {kind for kind in KINDS if row[kind] == "yes"}
        assert set(made[row["identity"]].masks) == shown and shown


def test_clips_are_not_tracked(settings, tmp_path):
    with pytest.raises(InputError, match="clips have no keypoints, durian prepare finds them"):
        clips.write_clips(tmp_path, dataclasses.replace(settings, tracked=True))
    assert not any(tmp_path.iterdir())
