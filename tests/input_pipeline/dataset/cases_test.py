import dataclasses
import json
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from input_pipeline.dataset import cases
from input_pipeline.errors import InputError
from input_pipeline.media import video

SIZE, FRAMES = 64, 5
FACTS = {"protocol": "counterfactual", "version": 1, "size": SIZE, "fps": Fraction(25)}


def _case(number, *attributes, **changes):
    people = {"portrait": "a", "attributes": ["b"] * len(attributes), "driving": "c"}
    return cases.Case(f"{number:04d}", "some group", attributes, FRAMES, people, **changes)


def _pictures(case, seed=0):
    rng = np.random.default_rng(seed)
    number = len(case.attributes)

    def pixels(*shape):
        return rng.integers(0, 256, (*shape, SIZE, SIZE, 3), dtype=np.uint8)

    def mask(*shape):
        return rng.random((*shape, SIZE, SIZE)) < 0.3

    truth = cases.Truth(
        pixels(FRAMES),
        {kind: mask(FRAMES) for kind in case.kinds},
        rng.normal(size=(FRAMES, 478, 3)).astype(np.float32),
        {"pose": rng.normal(size=(FRAMES, 3)).astype(np.float32)},
    )
    if not case.truth:
        truth = None
    return cases.Pictures(pixels(), mask(), pixels(number), mask(number), pixels(FRAMES), truth)


def _write(root, chosen):
    for seed, case in enumerate(chosen):
        cases.write_case(root, case, _pictures(case, seed), Fraction(25))
    cases.write_index(root, chosen, source={"seed": 3}, **FACTS)


@pytest.fixture
def chosen():
    half = cases.Attribute("hair", 0.5)
    return [
        _case(0, cases.Attribute("hair"), cases.Attribute("hat")),
        _case(1, half, half, scored_from=1),
        _case(2, cases.Attribute("beard"), truth=False),
    ]


def test_a_folder_gives_back_what_was_written(tmp_path, chosen):
    _write(tmp_path, chosen)
    found = cases.CaseSet.read(tmp_path)
    assert found.cases == tuple(chosen)
    assert (found.size, found.fps, found.source) == (SIZE, Fraction(25), {"seed": 3})
    assert [case.interpolates for case in found.cases] == [False, True, False]
    for seed, case in enumerate(found.cases):
        there, back = _pictures(case, seed), found.load(case)
        for name in ("portrait", "portrait_mask", "attributes", "attribute_masks"):
            np.testing.assert_array_equal(getattr(back, name), getattr(there, name))
        assert back.driving.shape == there.driving.shape
        if case.truth:
            np.testing.assert_array_equal(back.truth.video, there.truth.video)
            np.testing.assert_array_equal(back.truth.keypoints, there.truth.keypoints)
            np.testing.assert_array_equal(back.truth.extra["pose"], there.truth.extra["pose"])
            assert back.truth.masks.keys() == set(case.kinds)
            for kind, mask in there.truth.masks.items():
                np.testing.assert_array_equal(back.truth.masks[kind], mask)
        else:
            assert back.truth is None


def test_other_programs_find_plain_files(tmp_path, chosen):
    _write(tmp_path, chosen)
    index = json.loads((tmp_path / "cases.json").read_text())
    first = index["cases"][0]
    assert first["attributes"][1] == {
        "kind": "hat", "weight": 1.0, "image": "attribute_1.png", "mask": "attribute_1_mask.png"
    }  # fmt: skip
    with Image.open(tmp_path / first["id"] / first["attributes"][1]["mask"]) as mask:
        assert mask.size == (SIZE, SIZE) and set(np.unique(mask.convert("L"))) == {0, 255}
    clip = video.probe(tmp_path / first["id"] / "driving.mp4")
    assert (clip.width, clip.frame_count, clip.fps) == (SIZE, FRAMES, 25)


def test_the_same_arrays_give_the_same_bytes(tmp_path, chosen):
    _write(tmp_path / "once", chosen)
    _write(tmp_path / "again", chosen)
    files = [path.relative_to(tmp_path / "once") for path in (tmp_path / "once").rglob("*.*")]
    assert len(files) > 15
    for name in files:
        assert (tmp_path / "once" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    first, second = (cases.CaseSet.read(tmp_path / name) for name in ("once", "again"))
    assert first.sha256() == second.sha256()
    (tmp_path / "again" / "0001" / "truth.npz").write_bytes(b"other")
    assert first.sha256() != second.sha256()


def test_a_case_that_cannot_be_written_leaves_nothing(tmp_path):
    case = _case(0, cases.Attribute("hair"))
    wrong = dataclasses.replace(_pictures(case), driving=np.zeros((3, SIZE, SIZE, 3), np.uint8))
    with pytest.raises(InputError, match=r"driving is \(3, 64, 64, 3\), must be \(5, 64, 64, 3\)"):
        cases.write_case(tmp_path, case, wrong, Fraction(25))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "attributes,changes,message",
    [
        ([("wig", 1.0)], {}, "unknown kind 'wig'"),
        ([("hair", 0.5)], {}, "weights of hair add up to 0.5"),
        ([("hair", 2.0)], {}, "outside 0 .. 1"),
        ([("hair", 1.0)], {"scored_from": FRAMES}, "scored from frame 5, has 5 frames"),
    ],
)
def test_values_that_do_not_fit_are_refused(attributes, changes, message):
    with pytest.raises(InputError, match=message):
        _case(0, *(cases.Attribute(*one) for one in attributes), **changes)


def test_an_id_is_a_folder_name():
    for name in ("", "a/b", "..", ".hidden"):
        with pytest.raises(InputError, match="plain folder name"):
            cases.Case(name, "hair", (cases.Attribute("hair"),), 1, {})


def test_incomplete_folders_are_refused(tmp_path, chosen):
    with pytest.raises(InputError, match=r"cases.json missing"):
        cases.CaseSet.read(tmp_path)
    _write(tmp_path, chosen)
    (tmp_path / "0001" / "driving.mp4").unlink()
    with pytest.raises(InputError, match=r"0001/driving.mp4: missing"):
        cases.CaseSet.read(tmp_path)


@pytest.mark.parametrize(
    "change,message",
    [
        ({"format": 2}, "format 2, this code reads 1"),
        ({"cases": []}, "holds no cases"),
        ({"cases": [{"id": "0"}]}, "not a case index"),
        ({"fps": "often"}, "not a case index"),
    ],
)
def test_a_bad_index_is_refused(tmp_path, chosen, change, message):
    _write(tmp_path, chosen)
    index = tmp_path / "cases.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | change))
    with pytest.raises(InputError, match=message):
        cases.CaseSet.read(tmp_path)


def test_a_damaged_case_is_named_when_it_is_loaded(tmp_path, chosen):
    _write(tmp_path, chosen)
    found = cases.CaseSet.read(tmp_path)
    Image.new("L", (80, 80)).save(tmp_path / "0000" / "attribute_0_mask.png")
    Image.new("RGB", (96, 96)).save(tmp_path / "0002" / "portrait.png")
    (tmp_path / "0001" / "truth.npz").write_bytes(b"PK nonsense")
    with pytest.raises(InputError, match=r"0002: portrait is \(96, 96, 3\), must be"):
        found.load(found.cases[2])
    with pytest.raises(InputError, match=r"truth.npz: damaged"):
        found.load(found.cases[1])
    with pytest.raises(InputError, match=r"0000: attribute pictures differ in size"):
        found.load(found.cases[0])


def test_sizes_that_a_clip_cannot_hold_are_refused(tmp_path):
    with pytest.raises(InputError, match="must be even"):
        cases.write_index(tmp_path, [], source={}, **FACTS | {"size": 65})
