import dataclasses

import numpy as np
import pytest

from input_pipeline import check
from input_pipeline.dataset import manifest, records, shards
from input_pipeline.dataset.store import Store
from input_pipeline.errors import InputError
from input_pipeline.media.pictures import read_picture
from input_pipeline.training import transforms
from input_pipeline.training.samples import SAMPLES


def rewrite(source, out, change):
    """A copy of a data set with one chunk changed."""
    dataset = shards.Dataset(source)
    made = [records.decode(dataset[i]) for i in range(len(dataset))]
    made[1] = change(made[1])
    data = [records.encode(chunk, dataset.size) for chunk in made]
    shards.write_dataset(out, {"train": data}, dataset.size, {})
    return out


def test_a_good_data_set_has_no_problems_and_its_facts_are_told(prepared_dataset, tmp_path, capsys):
    report = check.check(prepared_dataset, tmp_path / "sheets")
    assert report.problems == []
    assert len(report.clips) == 4 and report.frames == 240 and report.fps == (25, 25)
    assert len(report.identities) == 4 and report.interpolated == 0
    assert set(report.areas["hair"]) == set(report.clips) and set(report.areas["glasses"]) == {
        "cool.mp4"
    }
    assert 0.005 < np.mean(report.areas["hair"]["plain.mp4"]) < 0.5
    assert "4 clips of 4 people" in capsys.readouterr().out


def test_the_sheet_shows_frames_keypoints_and_masks(prepared_dataset, tmp_path):
    (sheet,) = check.check(prepared_dataset, tmp_path).sheets
    assert sheet == tmp_path / "contact_sheet.png"
    picture = read_picture(sheet)
    row = picture.shape[0] // 4
    assert picture.shape[1] == 2 * 4 * 144 and 144 <= row < 180
    plain, masked = picture[-144:, :144].astype(int), picture[-144:, 144:288].astype(int)
    white = [(tile.min(-1) > 215).sum() for tile in (plain, masked)]
    assert white[0] > white[1] + 100, "the face oval is drawn"
    red = masked[..., 0] - masked[..., 1:].max(-1) - (plain[..., 0] - plain[..., 1:].max(-1))
    assert (red > 40).mean() > 0.01, "the hair is coloured"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: dataclasses.replace(c, frames=[b"no jpeg", *c.frames[1:]]), "frame 0"),
        (lambda c: dataclasses.replace(c, keypoints=c.keypoints * np.nan), "not finite"),
        (lambda c: dataclasses.replace(c, keypoints=c.keypoints + 500), "outside"),
    ],
)
def test_broken_records_are_listed_by_number(prepared_dataset, tmp_path, change, message):
    report = check.check(rewrite(prepared_dataset, tmp_path / "bad", change))
    (problem,) = report.problems
    assert problem.startswith("record 1:") and message in problem
    assert len(report.clips) == 3 and report.sheets


def test_an_empty_mask_is_worth_a_remark(prepared_dataset, tmp_path):
    empty = records.encode_mask(np.zeros((64, 64), bool))

    def change(chunk):
        return dataclasses.replace(chunk, masks={"hat": [empty] * len(chunk.frames)})

    report = check.check(rewrite(prepared_dataset, tmp_path / "odd", change))
    (remark,) = report.remarks
    assert "hat mask empty in 60 of 60 frames" in remark and report.problems == []


def test_many_clips_fill_several_sheets(prepared_dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(check, "_CLIPS_PER_SHEET", 3)
    report = check.check(prepared_dataset, tmp_path)
    assert [sheet.name for sheet in report.sheets] == ["contact_sheet.png", "contact_sheet_2.png"]


def test_a_folder_without_a_data_set_is_named(tmp_path):
    with pytest.raises(InputError, match=str(tmp_path)):
        check.check(tmp_path)


def test_the_sheet_of_augmentation_shows_what_training_gets(write_painted, tmp_path):
    dataset = write_painted(3, corrupt=(1,))
    sheet = check.draw_augmentation(dataset.path, out_dir=tmp_path)
    assert sheet == tmp_path / "augmentation.png"
    picture = read_picture(sheet).astype(int)
    tile, strip = 144, 40
    picture = read_picture(sheet).astype(int)
    assert picture.shape == (2 * (strip + tile), 9 * tile, 3), "record 1 is left out"
    for row in (picture[strip + i * (strip + tile) :][:tile] for i in range(2)):
        tiles = np.split(row, 9, axis=1)
        magenta = [((np.minimum(t[..., 0], t[..., 2]) - t[..., 1]) > 100).mean() for t in tiles]
        black = [(t.max(-1) == 0).mean() for t in tiles]
        targets, portraits, attributes = (slice(i, None, 3) for i in range(3))
        assert min(magenta[targets] + magenta[attributes]) > 0.02
        assert max(magenta[portraits]) == 0, "no draw of the portrait shows the hair"
        assert min(black[attributes]) > 0.7 and min(black[portraits]) > 0.02
        assert (tiles[1] != tiles[4]).any() and (tiles[2] != tiles[5]).any()


@pytest.mark.parametrize("system", sorted(SAMPLES))
def test_every_system_shows_what_its_training_gets(write_painted, tmp_path, system):
    options = SAMPLES[system](size=32, frames=2)
    picture = read_picture(check.draw_augmentation(write_painted(1).path, options, tmp_path))
    columns = {"durian": 3, "animate_anyone": 2, "x_portrait": 4, "svp": 3}
    tiles = np.split(picture[40:].astype(int), 3 * columns[system], axis=1)
    assert all(np.ptp(tile) > 50 for tile in tiles)


def test_a_data_set_too_short_for_the_target_has_no_sheet_of_augmentation(write_painted, tmp_path):
    options = transforms.SampleOptions(size=64, frames=40)
    with pytest.raises(InputError, match="no record can be used"):
        check.draw_augmentation(write_painted(1).path, options, tmp_path)
    assert not list(tmp_path.iterdir())


def test_all_splits_are_looked_at_and_clips_that_look_alike_are_told(tmp_path, painted_chunk):
    encoded = [[records.encode(painted_chunk(i, 16), 64)] for i in range(2)]
    rows = [
        manifest.Row(f"clip{i}.mp4", str(i), f"person{i}", split, whole="00" * 32, face="00" * 32)
        for i, split in enumerate(("train", "val"))
    ]
    data, digest = manifest.encode(rows)
    shards.write_dataset(tmp_path, dict(zip(("train", "val"), encoded)), 64, {"manifest": digest})
    Store.at(tmp_path).write(manifest.FILE, data)
    report = check.check(tmp_path, tmp_path / "sheets")
    assert set(report.clips) == {"clip0.mp4", "clip1.mp4"} and report.problems == []
    assert any("clip0.mp4 and clip1.mp4 look alike" in remark for remark in report.remarks)
