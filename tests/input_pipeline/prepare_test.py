import csv
import dataclasses
import shutil
from fractions import Fraction

import numpy as np
import pytest

from input_pipeline import chunks, prepare, records, segmenters, shards, video
from input_pipeline.errors import InputError


def run(clips, out, **options):
    return prepare.prepare(clips, out, size=64, progress=False, **{"workers": 1, **options})


def skipped(out):
    with open(out / "skipped.csv", newline="") as file:
        return {row["file"]: row["reason"] for row in csv.DictReader(file)}


def contents(out):
    return {path.name: path.read_bytes() for path in sorted(out.glob("durian-*"))}


@pytest.fixture
def short_clips(tmp_path, talking_head):
    """Folder of two clips of 18 frames."""
    folder = tmp_path / "clips"
    for i, name in enumerate(("a.mp4", "sub/b.mp4")):
        frames = talking_head(phase=i, mirrored=i == 1, count=18)
        video.write_video(folder / name, frames, Fraction(25))
    return folder


def test_every_clip_of_a_folder_becomes_valid_chunks(prepared_dataset):
    dataset = shards.Dataset(prepared_dataset)
    made = [records.decode(dataset[i]) for i in range(len(dataset))]
    assert [chunk.clip for chunk in made] == ["cool.mp4", "dark.mp4", "plain.mp4", "warm.mp4"]
    for chunk in made:
        records.validate(chunk, 64)
        assert len(chunk.frames) == 60 and chunk.fps == 25 and chunk.found.all()
        wanted = {"hair", "glasses"} if chunk.clip == "cool.mp4" else {"hair"}
        assert set(chunk.masks) == wanted
        face = np.ptp(chunk.keypoints[..., 1], axis=1)
        assert (face > 64 / 3.2).all() and (face < 64 / 1.6).all()
    assert {chunk.identity for chunk in made} == {f"person {i}" for i in range(4)}
    assert skipped(prepared_dataset) == {}
    assert dataset.metadata["kept"] == 4 and dataset.metadata["tools"]["masks"]


def test_the_data_set_opens_as_a_plain_tfds_directory(prepared_dataset):
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(str(prepared_dataset))
    example = builder.as_data_source("train")[0]
    assert example["frames"][0].shape == (64, 64, 3)
    assert example["keypoints"].shape == (60, 478, 3)


def test_the_result_does_not_depend_on_the_number_of_workers(short_clips, tmp_path):
    made = []
    for workers in (1, 2):
        out = tmp_path / f"out{workers}"
        run(short_clips, out, workers=workers)
        dataset = shards.Dataset(out)
        made.append([records.decode(dataset[i]) for i in range(len(dataset))])
    assert len(made[0]) == len(made[1]) == 2
    for one, two in zip(*made):
        np.testing.assert_equal(dataclasses.asdict(one), dataclasses.asdict(two))


def test_a_second_run_does_nothing_twice(short_clips, tmp_path, monkeypatch):
    first = run(short_clips, tmp_path / "out")
    before = contents(tmp_path / "out")
    monkeypatch.setattr(chunks, "follow", lambda *_: pytest.fail("a finished clip was read again"))
    assert run(short_clips, tmp_path / "out") == first
    assert contents(tmp_path / "out") == before


def test_a_stopped_run_leaves_no_data_set_and_goes_on(short_clips, tmp_path, monkeypatch):
    follow, followed = chunks.follow, []

    def stops_at_the_second(path, size):
        followed.append(path.name)
        if len(followed) == 2:
            raise KeyboardInterrupt
        return follow(path, size)

    monkeypatch.setattr(chunks, "follow", stops_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        run(short_clips, tmp_path / "out")
    with pytest.raises(InputError, match="no data set"):
        shards.Dataset(tmp_path / "out")
    assert run(short_clips, tmp_path / "out").kept == 2
    assert followed == ["a.mp4", "b.mp4", "b.mp4"]


def test_a_changed_clip_or_label_is_prepared_again(short_clips, tmp_path, talking_head):
    run(short_clips, tmp_path / "out")
    video.write_video(short_clips / "a.mp4", talking_head(count=20), Fraction(25))
    (tmp_path / "labels.csv").write_text("file,hair,glasses\nsub/b.mp4,yes,yes\n")
    run(short_clips, tmp_path / "out", labels=tmp_path / "labels.csv")
    dataset = shards.Dataset(tmp_path / "out")
    a, b = (records.decode(dataset[i]) for i in range(2))
    assert len(a.frames) == 20 and set(b.masks) == {"hair", "glasses"}
    assert not (tmp_path / "out" / ".work").exists()


def test_masks_from_files_are_kept_apart_from_others_and_what_is_missing_is_named(
    short_clips, tmp_path
):
    run(short_clips, tmp_path / "out")
    folder, white = tmp_path / "masks", np.zeros((256, 256), np.uint8)
    white[:128] = 255
    for i in range(18):
        video.write_picture(folder / "a" / "hair" / f"{i:05d}.png", white)
    assert run(short_clips, tmp_path / "out", masks=f"files:{folder}").kept == 1
    assert "sub/b/hair/00000.png: no such mask" in skipped(tmp_path / "out")["sub/b.mp4"]
    dataset = shards.Dataset(tmp_path / "out")
    chunk = records.decode(dataset[0])
    mask = records.decode_mask(chunk.masks["hair"][0])
    assert chunk.tools["masks"].startswith("files ") and mask[:8].all() and not mask[-8:].any()


def test_a_kind_that_the_segmenter_cannot_find_is_refused_before_work(
    short_clips, tmp_path, monkeypatch
):
    monkeypatch.setattr(chunks, "follow", lambda *_: pytest.fail("work was begun"))
    (tmp_path / "masks").mkdir()
    monkeypatch.setattr(segmenters.load(f"files:{tmp_path / 'masks'}"), "kinds", {"glasses"})
    with pytest.raises(InputError, match="masks by files: cannot find hair, only glasses"):
        run(short_clips, tmp_path / "out", masks=f"files:{tmp_path / 'masks'}")


def test_bad_clips_are_skipped_with_the_reason(short_clips, tmp_path):
    whole = (short_clips / "a.mp4").read_bytes()
    (short_clips / "cut_short.mp4").write_bytes(whole[: len(whole) // 2])
    (short_clips / "text.mp4").write_text("not a video")
    (short_clips / "empty.mov").write_bytes(b"")
    (short_clips / ".hidden.mp4").write_bytes(b"")
    noise = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), np.uint8)
    video.write_video(short_clips / "noise.mp4", noise, Fraction(25))
    summary = run(short_clips, tmp_path / "out")
    assert (summary.clips, summary.kept) == (6, 2)
    reasons = skipped(tmp_path / "out")
    assert set(reasons) == {"cut_short.mp4", "text.mp4", "empty.mov", "noise.mp4"}
    assert "broken stream" in reasons["cut_short.mp4"]
    assert "not a readable video" in reasons["text.mp4"]
    assert "0 bytes" in reasons["empty.mov"]
    assert "no face" in reasons["noise.mp4"]
    assert len(shards.Dataset(tmp_path / "out")) == 2


def test_a_bug_is_not_taken_for_a_bad_clip(short_clips, tmp_path, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(chunks, "follow", broken)
    with pytest.raises(ZeroDivisionError):
        run(short_clips, tmp_path / "out")


def test_nothing_usable_is_an_error_that_names_a_reason(tmp_path):
    (tmp_path / "clips").mkdir()
    with pytest.raises(InputError, match="no clips in this folder"):
        run(tmp_path / "clips", tmp_path / "out")
    (tmp_path / "clips" / "text.mp4").write_text("not a video")
    with pytest.raises(InputError, match=r"none of 1 clips is usable.*text\.mp4.*not a readable"):
        run(tmp_path / "clips", tmp_path / "out")
    assert set(skipped(tmp_path / "out")) == {"text.mp4"}
    with pytest.raises(InputError, match="no such folder"):
        run(tmp_path / "absent", tmp_path / "out")


def test_an_unwritable_data_set_is_refused_before_work(short_clips, tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "follow", lambda *_: pytest.fail("work was begun"))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot be written"):
        run(short_clips, tmp_path / "file" / "out")


def test_several_faces_give_a_note(tmp_path, talking_head):
    pair = [np.concatenate([frame, frame[:, ::-1]], 1) for frame in talking_head(count=16)]
    video.write_video(tmp_path / "clips" / "pair.mp4", pair, Fraction(25))
    (note,) = run(tmp_path / "clips", tmp_path / "out").notes
    assert "pair.mp4: up to 2 faces" in note


def test_a_moved_folder_keeps_its_finished_clips(short_clips, tmp_path, monkeypatch):
    run(short_clips, tmp_path / "out")
    moved = tmp_path / "moved"
    shutil.move(short_clips, moved)
    monkeypatch.setattr(chunks, "follow", lambda *_: pytest.fail("a finished clip was read again"))
    assert run(moved, tmp_path / "out").kept == 2
