"""Clips of a reenactor become the control track; what does not fit is told in one line."""

import csv
import shutil
from fractions import Fraction

import numpy as np
import pytest

from input_pipeline.dataset import records, shards
from input_pipeline.dataset.store import Store
from input_pipeline.errors import InputError
from input_pipeline.media import video
from input_pipeline.media.pictures import write_picture
from input_pipeline.prepare import control_clips, prepare
from tests.conftest import PEOPLE

FRAMES = 18


def _run(clips, control, out):
    return prepare.prepare(clips, out, size=64, control=control, workers=1, progress=False)


def _skipped(out):
    with open(out / "skipped.csv", newline="") as file:
        return {row["file"]: row["reason"] for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, talking_head):
    """CLIPS/a.mp4 and CLIPS/sub/b.mp4, and what a reenactor made of them inside, in CLIPS/made: a
    clip in another size, and pictures."""
    clips = tmp_path_factory.mktemp("clips")
    for number, name in enumerate(("a.mp4", "sub/b.mp4")):
        film = list(talking_head(phase=number, count=FRAMES))
        video.write_video(clips / name, film, Fraction(25))
    other = [frame[::2, ::2] for frame in talking_head(PEOPLE["cool"], count=FRAMES)]
    video.write_video(clips / "made/a.mov", other, Fraction(25), lossless=True)
    for i, frame in enumerate(talking_head(PEOPLE["warm"], phase=1, count=FRAMES)):
        write_picture(clips / f"made/sub/b/{i:04d}.png", frame)
    return clips


@pytest.fixture(scope="module")
def dataset(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("with_control") / "set"
    summary = _run(folder, folder / "made", out)
    assert summary.clips == summary.kept == 2
    assert not any("not looked at" in note for note in summary.notes)
    return shards.Dataset(out)


def test_the_track_is_the_other_clip_framed_as_the_first(dataset):
    assert dataset.metadata["control"] is True
    for i in range(2):
        chunk = records.decode(dataset[i])
        records.validate(chunk, 64)
        assert len(chunk.control.frames) == len(chunk.frames) == FRAMES
        # The same head in other colours: the face lies where it lies in the clip.
        apart = np.linalg.norm((chunk.control.keypoints - chunk.keypoints)[..., :2], axis=-1)
        assert np.median(apart) < 1.0
        mine, other = (
            np.stack([records.decode_frame(x) for x in frames]).astype(int)
            for frames in (chunk.frames, chunk.control.frames)
        )
        assert np.abs(mine - other).mean() > 10


def test_data_sets_with_and_without_a_track_read_with_tfds(dataset, write_painted):
    import tensorflow_datasets as tfds

    example = tfds.builder_from_directory(str(dataset.path)).as_data_source("train")[0]
    assert example["control"]["frames"][0].shape == (64, 64, 3)
    assert example["control"]["keypoints"].shape == (FRAMES, 478, 3)
    bare = write_painted(1)
    example = tfds.builder_from_directory(str(bare.path)).as_data_source("train")[0]
    assert "control" not in example
    assert records.decode(bare[0]).control is None


def test_a_change_of_the_control_clip_is_prepared_again(folder, dataset, tmp_path, talking_head):
    out, made = tmp_path / "set", tmp_path / "made"
    shutil.copytree(dataset.path, out)
    shutil.copytree(folder / "made", made)
    film = list(talking_head(PEOPLE["dark"], count=FRAMES))
    video.write_video(made / "a.mov", film, Fraction(25))
    _run(folder, made, out)
    before, after = (records.decode(shards.Dataset(path)[0]) for path in (dataset.path, out))
    assert before.control.frames[0] != after.control.frames[0]
    assert before.frames[0] == after.frames[0]


def test_missing_clips_other_lengths_and_faceless_frames_skip_a_clip(folder, tmp_path):
    made = tmp_path / "made"
    film = list(video.read_frames(folder / "made/a.mov"))
    video.write_video(made / "a.mp4", film[:-1], Fraction(25))
    out = tmp_path / "set"
    with pytest.raises(
        InputError, match=r"none of 3 clips is usable, .*17 frames, the clip has 18"
    ):
        _run(folder, made, out)
    assert "no control clip" in _skipped(out)["sub/b.mp4"]
    film[7:] = [np.full_like(film[0], 127)] * (FRAMES - 7)
    (made / "a.mp4").unlink()
    video.write_video(made / "a.mp4", film, Fraction(25))
    with pytest.raises(InputError, match="no face in frame 7, which the clip has"):
        _run(folder, made, out)
    assert all("\n" not in reason for reason in _skipped(out).values())


def test_two_of_a_name_and_no_folder_are_refused(folder, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a.mp4").touch()
    (tmp_path / "a" / "0.png").touch()
    with pytest.raises(InputError, match=r"both stand for a\.mp4: keep one"):
        control_clips.find(Store.at(tmp_path), ["a.mp4"])
    with pytest.raises(InputError, match=r"control .*absent: no such folder"):
        _run(folder, tmp_path / "absent", tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_pictures_of_several_sizes_are_named(tmp_path):
    for name, side in (("0.png", 64), ("1.png", 66)):
        write_picture(tmp_path / "a" / name, np.zeros((side, side, 3), np.uint8))
    clip = control_clips.find(Store.at(tmp_path), ["a.mp4"])["a.mp4"]
    with pytest.raises(InputError, match="a: frames of 64x64 pixels and of 66x66 pixels"):
        list(clip.frames())
