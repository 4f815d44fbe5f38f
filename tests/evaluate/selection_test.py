import dataclasses
import json

import numpy as np
import pytest

from durian_jax.cli.main import main
from durian_jax.evaluate import evaluation, selection
from input_pipeline.dataset import cases, records, shards
from input_pipeline.errors import InputError


@pytest.fixture(scope="module")
def self_cases(prepared_dataset, tmp_path_factory):
    out = tmp_path_factory.mktemp("self") / "cases"
    return evaluation.write_cases("self", prepared_dataset, out)


@pytest.fixture(scope="module")
def cross_cases(prepared_dataset, tmp_path_factory):
    out = tmp_path_factory.mktemp("cross") / "cases"
    return evaluation.write_cases("cross", prepared_dataset, out)


def test_self_rebuilds_a_clip_from_its_first_frame(self_cases):
    # Four clips show hair, one of them glasses.
    assert [case.group for case in self_cases.cases] == ["hair"] * 4 + ["glasses"]
    for case in self_cases.cases:
        assert case.frames == 24 and case.scored_from == 1
        pictures = self_cases.load(case)
        np.testing.assert_array_equal(pictures.truth.video[0], pictures.portrait)
        assert np.abs(pictures.truth.video.astype(int) - pictures.driving).mean() < 3
        np.testing.assert_array_equal(pictures.truth.masks[case.group][0], pictures.portrait_mask)
        assert pictures.attribute_masks.mean() > 0.005
        # The attribute is shown by another frame of the clip, far from those to be predicted.
        gaps = np.abs(pictures.truth.video.astype(int) - pictures.attributes[0]).mean((1, 2, 3))
        assert gaps.min() > 1
        assert set(case.people["attributes"]) == {case.people["portrait"]}


def test_cross_combines_three_people(cross_cases):
    assert {case.group for case in cross_cases.cases} == {"hair", "glasses"}
    triples = set()
    for case in cross_cases.cases:
        people = case.people["portrait"], *case.people["attributes"], case.people["driving"]
        assert len(set(people)) == 3 and not case.truth
        triples.add((case.group, people))
    assert len(triples) == len(cross_cases.cases)
    # 4 x 3 x 2 orders for hair; glasses are worn by one person only.
    assert len(triples) == 24 + 6


def test_the_choice_is_always_the_same(self_cases, prepared_dataset, tmp_path):
    again = evaluation.write_cases("self", prepared_dataset, tmp_path / "again")
    assert again.sha256() == self_cases.sha256()


def test_the_split_is_recorded(self_cases):
    assert self_cases.source["split"] == "train"


@pytest.fixture
def recut(prepared_dataset, tmp_path):
    """A function of (people, frames, splits) to a data set of the first chunks, cut shorter."""
    source = shards.Dataset(prepared_dataset)

    def write(people, frames=30, splits=("train",)):
        encoded = []
        for number in range(people):
            chunk = records.decode(source[number])
            cut = {name: getattr(chunk, name)[:frames] for name in ("frames", "keypoints", "found")}
            cut["masks"] = {kind: pngs[:frames] for kind, pngs in chunk.masks.items()}
            encoded.append(records.encode(dataclasses.replace(chunk, **cut), source.size))
        shards.write_dataset(tmp_path / "dataset", dict.fromkeys(splits, encoded), source.size, {})
        return tmp_path / "dataset"

    return write


def test_too_few_people_are_counted(recut, tmp_path, capsys):
    code = main(
        ["evaluate", "--protocol=cross", f"--dataset={recut(2)}",
         f"--write-cases={tmp_path / 'cases'}"]
    )  # fmt: skip
    assert code == 2
    assert "2 people in usable chunks; the cross protocol needs 3" in capsys.readouterr().err
    assert not (tmp_path / "cases").exists()


def test_clips_that_are_too_short_are_named(recut, tmp_path):
    with pytest.raises(
        InputError, match=r"split train gives no case .* chunks of at least 12 frames"
    ):
        evaluation.write_cases("self", recut(3, frames=11), tmp_path / "cases")


def test_short_chunks_give_shorter_cases(recut, tmp_path):
    found = evaluation.write_cases("self", recut(1, frames=16), tmp_path / "cases")
    assert {case.frames for case in found.cases} == {12}


def test_the_test_split_comes_first(recut, tmp_path):
    dataset = recut(1, splits=("train", "val", "test"))
    found = evaluation.write_cases("self", dataset, tmp_path / "cases")
    assert found.source["split"] == "test"


def test_no_data_set_is_named(tmp_path):
    with pytest.raises(InputError, match="no data set here"):
        evaluation.write_cases("self", tmp_path, tmp_path / "cases")


def test_cross_is_scored_without_a_truth(cross_cases, tmp_path):
    folder = tmp_path / "still"
    folder.mkdir()
    for case in cross_cases.cases:
        portrait = cross_cases.load(case).portrait / 255
        np.save(folder / f"{case.id}.npy", np.repeat(portrait[None], case.frames, 0))
    code = main(
        ["evaluate", "--protocol=cross", f"--cases={cross_cases.path}", "--groups=glasses",
         f"--predictions={folder}", f"--out={tmp_path / 'report'}", "--networks=lpips,identity"]
    )  # fmt: skip
    assert code == 0
    rows = json.loads((tmp_path / "report" / "report.json").read_text())["rows"]
    assert {row["method"] for row in rows} == {"still", "copy", "paste"}
    still, copy, paste = (row["metrics"] for row in rows[:3])
    assert still["psnr"] == {"not_available": "no truth"} == still["iou"] == still["lpips"]
    assert 0.5 < paste["identity"]["mean"] < still["identity"]["mean"]
    # Still pictures all: they miss the driver's motion, which pasting follows.
    assert still["keypoints"]["mean"] == pytest.approx(copy["keypoints"]["mean"], rel=1e-5)
    assert paste["keypoints"]["mean"] < 0.6 * still["keypoints"]["mean"]


def test_case_folders_are_complete(self_cases):
    assert cases.CaseSet.read(self_cases.path) == self_cases


def test_cases_without_a_face_are_left_out_and_counted(prepared_dataset, tmp_path):
    source = shards.Dataset(prepared_dataset)
    chunks = [records.decode(source[number]) for number in range(2)]
    chunks[0].frames = [records.encode_frame(np.full((64, 64, 3), 90, np.uint8))] * 60
    encoded = [records.encode(chunk, source.size) for chunk in chunks]
    shards.write_dataset(tmp_path / "dataset", {"train": encoded}, source.size, {})
    found = evaluation.write_cases("self", tmp_path / "dataset", tmp_path / "cases")
    assert {case.people["portrait"] for case in found.cases} == {chunks[1].identity}
    reason = "no face found in portrait.png"
    assert found.source["left_out"] == [f"hair: {reason}", f"glasses: {reason}"]
    folders = [path.name for path in found.path.iterdir() if path.is_dir()]
    assert sorted(folders) == [case.id for case in found.cases]


def test_a_driver_whose_face_compression_costs_is_left_out(prepared_dataset, tmp_path, monkeypatch):
    def spoilt(path):
        frames = np.stack(list(read_frames(path)))
        frames[4:] = 90  # too many to be bridged
        return iter(frames)

    read_frames = selection.video.read_frames
    monkeypatch.setattr(selection.video, "read_frames", spoilt)
    with pytest.raises(InputError, match=r"no face found in driving\.mp4"):
        evaluation.write_cases("self", prepared_dataset, tmp_path / "cases")


def test_a_corrupt_record_is_named(write_corrupt, tmp_path):
    with pytest.raises(InputError, match=r"record 1 cannot be read .*: run durian check"):
        evaluation.write_cases("self", write_corrupt, tmp_path / "cases")


@pytest.fixture
def write_corrupt(prepared_dataset, tmp_path, damage):
    source = shards.Dataset(prepared_dataset)
    shards.write_dataset(tmp_path / "dataset", {"train": [source[0]] * 2}, source.size, {})
    damage(tmp_path / "dataset", [1])
    return tmp_path / "dataset"
