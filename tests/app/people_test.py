"""What is painted in an editor is the mask of its photo."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from durian_jax.app import people
from durian_jax.app.visits import Visits
from input_pipeline.dataset.cases import CaseSet
from input_pipeline.media.pictures import read_picture, write_picture

SIDE = 512
HAIR = np.zeros((32, 32), bool)
HAIR[4:12, 8:24] = True


def _subject(name):
    return SimpleNamespace(
        path=Path(name),
        photo=lambda: np.zeros((SIDE, SIDE, 3), np.uint8),
        crop=SimpleNamespace(apply=lambda image, size: image),
        write_mask=lambda path, mask: write_picture(path, np.uint8(255 * mask)),
    )


@pytest.fixture
def visit(tmp_path):
    """A tab in which a portrait and an attribute photo were looked at."""
    visit = Visits(tmp_path).of(SimpleNamespace(session_hash="me"))
    kinds = (frozenset(["hair"]), "hair")
    visit.seen["Animate"] = {i: (_subject(f"{i}.png"), kind, HAIR) for i, kind in enumerate(kinds)}
    return visit


def _editors(visit):
    return [people.to_editor(visit.seen["Animate"][number]) for number in (0, 1)] + [None]


def test_what_is_not_painted_on_is_not_a_mask_of_the_users(visit):
    people.keep_painted(visit, "Animate", _editors(visit))
    assert visit.masks == {}


def test_a_stroke_is_a_mask_of_its_photo_and_is_there_the_next_time(visit):
    editors = _editors(visit)
    assert editors[1]["background"].shape == (SIDE, SIDE, 3)
    editors[1]["layers"][0][300:320, 100:400] = 255
    for _ in range(2):
        people.keep_painted(visit, "Animate", editors)
        assert list(visit.masks) == [(1, "1.png", "hair")]
    mask = read_picture(visit.masks[1, "1.png", "hair"])[..., 0] > 127
    assert mask[300:320, 100:400].all() and not mask[330:].any() and mask[100, 200]
    assert (_editors(visit)[1]["layers"][0][310, 200:300, 3] > 0).all()


def test_what_the_other_studio_looked_at_changes_nothing(visit):
    editors = _editors(visit)
    editors[1]["layers"][0][300:320, 100:400] = 255
    visit.seen["Interpolate"] = {1: (_subject("other.png"), "hat", HAIR)}
    people.keep_painted(visit, "Animate", editors)
    assert list(visit.masks) == [(1, "1.png", "hair")]


def test_an_example_stays_and_its_masks_are_those_of_its_kinds(tmp_path, monkeypatch):
    package = shutil.copytree(people.EXAMPLES, tmp_path / "package")
    for path in package.rglob("*.*"):
        os.utime(path, (0, 0))
    monkeypatch.setattr(people, "EXAMPLES", package)
    (tmp_path / "served").mkdir()
    visits = Visits(tmp_path / "served")
    visit = visits.of(SimpleNamespace(session_hash="me"))
    case = next(one for one in CaseSet.read(people.EXAMPLES).cases if one.group == "hair+glasses")
    shown = SimpleNamespace(kinds=[None] * 8)
    portrait, driver, *rest = people.People.example(shown, visit, case)
    visits.sweep()
    assert all(Path(one).is_file() for one in (portrait, driver, *rest[:2]))
    assert set(visit.masks) == {
        (0, portrait, frozenset(["hair", "glasses"])), (1, rest[0], "hair"), (2, rest[1], "glasses")
    }  # fmt: skip
