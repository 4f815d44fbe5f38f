import csv
import dataclasses
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from input_pipeline.dataset import manifest, records, shards
from input_pipeline.dataset.store import Store
from input_pipeline.errors import InputError
from input_pipeline.masks import segmenters
from input_pipeline.media import video
from input_pipeline.media.pictures import write_picture
from input_pipeline.prepare import chunks, prepare
from tests.input_pipeline.faces.face_task import write_task


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


def test_eyelids_of_a_face_landmarker_reach_the_record_with_its_name(short_clips, tmp_path):
    middle = np.full((478, 3), 127.5)  # both eyes shut, in the middle of the face
    task = write_task(tmp_path / "face.task", middle)
    prepare.prepare(short_clips, tmp_path / "out", size=64, landmarks=task, progress=False)
    chunk = records.decode(shards.Dataset(tmp_path / "out")[0])
    assert "eyelids of face landmarker" in chunk.tools["landmarks"]
    assert np.abs(chunk.keypoints[:, 159] - chunk.keypoints[:, 145])[:, :2].max() < 0.1
    assert np.abs(chunk.keypoints[:, 13] - chunk.keypoints[:, 145])[:, :2].max() > 1
    with pytest.raises(InputError, match=r"--landmarks absent\.task: cannot be read"):
        prepare.prepare(short_clips, tmp_path / "no", size=64, landmarks="absent.task")
    assert not (tmp_path / "no").exists()


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

    def stops_at_the_second(path, *settings):
        followed.append(path.name)
        if len(followed) == 2:
            raise KeyboardInterrupt
        return follow(path, *settings)

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
        write_picture(folder / "a" / "hair" / f"{i:05d}.png", white)
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


def test_what_is_to_be_said_of_the_labels_is_said_before_the_work(tmp_path, capsys):
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "text.mp4").write_text("not a video")
    (tmp_path / "labels.csv").write_text("file,hair,glases\ntext.mp4,yes,yes\n")
    with pytest.raises(InputError, match="none of 1 clips is usable"):
        prepare.prepare(tmp_path / "clips", tmp_path / "out", labels=tmp_path / "labels.csv")
    assert "columns that are not used: glases (glasses?)" in capsys.readouterr().out


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


@pytest.fixture(scope="module")
def bare_clips(tmp_path_factory, talking_head):
    """Folder of five clips of 16 frames and labels without attributes, which is quick."""
    folder = tmp_path_factory.mktemp("bare")
    rows = ["file,hair,identity,split"]
    for i in range(5):
        shade = np.diag([1, 0.8, 0.5 + i / 10])
        frames = talking_head(shade, phase=i, mirrored=i % 2 == 1, count=16)
        video.write_video(folder / f"{i}.mp4", frames, Fraction(25))
        rows.append(f"{i}.mp4,no,person {i // 2},")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def bare_dataset(bare_clips, tmp_path_factory):
    """The data set of these clips."""
    out = tmp_path_factory.mktemp("bare_dataset")
    prepared(bare_clips, out)
    return out


@pytest.fixture
def bare(bare_clips, tmp_path):
    """A copy of the clips, with the same dates."""
    return shutil.copytree(bare_clips, tmp_path / "bare")


def prepared(folder, out, **options):
    return run(folder, out, labels=f"{folder}/labels.csv", **options)


@pytest.fixture
def followed(monkeypatch):
    """The names of the clips that were read, as they are."""
    follow, names = chunks.follow, []
    monkeypatch.setattr(
        chunks, "follow", lambda path, *given: names.append(path.name) or follow(path, *given)
    )
    return names


def test_a_killed_run_loses_no_finished_clip(bare, bare_dataset, tmp_path, followed):
    out, options = tmp_path / "out", ["--labels", str(bare / "labels.csv"), "--size", "64"]
    command = [sys.executable, "-m", "durian_jax.cli.main", "prepare", str(bare), "--out", str(out)]
    process = subprocess.Popen(
        [*command, *options, "--workers", "2"], start_new_session=True, stderr=subprocess.DEVNULL
    )
    while len(list(out.glob(".work/*.json"))) < 2 and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (out / "metadata.json").exists()
    finished = len(list(out.glob(".work/*.json")))
    assert prepared(bare, out).kept == 5
    assert finished >= 2 and len(followed) == 5 - finished
    assert contents(out) == contents(bare_dataset)
    assert not (out / ".work").exists() and not (out / ".writing").exists()


def test_new_clips_join_those_that_the_data_set_holds(bare, bare_dataset, tmp_path, followed):
    late = (bare / "1.mp4").rename(tmp_path / "1.mp4")
    prepared(bare, tmp_path / "out")
    late.rename(bare / "1.mp4")
    followed.clear()
    assert prepared(bare, tmp_path / "out").kept == 5
    assert followed == ["1.mp4"]
    assert contents(tmp_path / "out") == contents(bare_dataset)
    (bare / "1.mp4").unlink()
    (bare / "0.mp4").unlink()
    followed.clear()
    assert prepared(bare, tmp_path / "out").kept == 3
    dataset = shards.Dataset(tmp_path / "out")
    assert [records.decode(dataset[i]).clip for i in range(3)] == ["2.mp4", "3.mp4", "4.mp4"]
    assert followed == []


@pytest.mark.parametrize("moves", range(6))
def test_an_exchange_of_data_sets_that_is_stopped_goes_on(
    bare, bare_dataset, tmp_path, monkeypatch, moves
):
    out = shutil.copytree(bare_dataset, tmp_path / "out")
    move, moved = Store.move, []

    def stops(self, *names):
        if len(moved) == moves:
            raise KeyboardInterrupt
        moved.append(names)
        move(self, *names)

    monkeypatch.setattr(Store, "move", stops)
    with pytest.raises(KeyboardInterrupt):
        prepared(bare, out, holdout=0.6)
    monkeypatch.setattr(Store, "move", move)
    monkeypatch.setattr(chunks, "follow", lambda *_: pytest.fail("a finished clip was read again"))
    assert prepared(bare, out, holdout=0.6).kept == 5
    assert shards.Dataset(out).metadata["settings"]["holdout"] == 0.6
    assert sum(len(shards.Dataset(out, split)) for split in ("train", "val")) == 5
    assert not list(out.glob(".*"))


def test_the_manifest_tells_of_every_clip_and_is_named_by_its_hash(bare, tmp_path):
    (bare / "text.mp4").write_text("not a video")
    prepared(bare, tmp_path / "out")
    rows = manifest.read(Store.at(tmp_path / "out"))
    assert [row.clip for row in rows] == [f"{i}.mp4" for i in range(5)] + ["text.mp4"]
    assert "not a readable video" in rows[-1].reason and rows[-1].chunks == 0
    dataset = shards.Dataset(tmp_path / "out")
    for row in rows[:-1]:
        chunk = records.decode(dataset[row.start])
        assert (chunk.clip, chunk.identity) == (row.clip, row.identity)
        assert (row.frames, row.chunks, row.bytes) == (16, 1, len(dataset[row.start]))
    digest = hashlib.sha256((tmp_path / "out" / "manifest.jsonl").read_bytes()).hexdigest()
    assert dataset.metadata["manifest"] == digest


def test_a_shard_that_is_full_is_followed_by_another(bare, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_BYTES", 200_000)
    prepared(bare, tmp_path / "out")
    dataset = shards.Dataset(tmp_path / "out")
    made = [records.decode(dataset[i]).clip for i in range(5)]
    assert made == [f"{i}.mp4" for i in range(5)]
    assert 1 < dataset.metadata["shards"]["train"] < 5
    assert len(contents(tmp_path / "out")) == dataset.metadata["shards"]["train"]


def test_splits_come_from_the_labels_and_need_no_new_work(bare, bare_dataset, tmp_path, followed):
    out = shutil.copytree(bare_dataset, tmp_path / "out")
    text = (bare / "labels.csv").read_text().replace("4.mp4,no,person 2,", "4.mp4,no,person 2,test")
    (bare / "labels.csv").write_text(text)
    prepared(bare, out)
    assert followed == []
    assert shards.Dataset(out).metadata["records"] == {"train": 4, "test": 1}
    test = shards.Dataset(out, "test")
    assert records.decode(test[0]).clip == "4.mp4"


def test_copies_in_two_splits_are_told(bare, tmp_path):
    frames = [cv2.resize(frame, (230, 230)) for frame in video.read_frames(bare / "0.mp4")]
    video.write_video(bare / "copy.mp4", frames, Fraction(25), crf=30)
    with open(bare / "labels.csv", "a") as file:
        file.write("copy.mp4,no,somebody else,val\n")
    notes = prepared(bare, tmp_path / "out").notes
    assert any("between splits: 0.mp4 and copy.mp4 look alike" in note for note in notes)


def test_object_stores_hold_clips_and_data_sets(bare, bare_dataset):
    store = Store.at(f"memory://{uuid.uuid4().hex}")
    for path in bare.iterdir():
        store.write(f"clips/{path.name}", path.read_bytes())
    prepared(store.url("clips"), store.url("out"))
    names = [name for name in store.list("out") if name.startswith("durian-")]
    assert {name: store.read(f"out/{name}") for name in names} == contents(bare_dataset)
    prepared(store.url("clips"), store.url("out"))


def test_beam_makes_the_same_data_set(bare, bare_dataset, tmp_path):
    pytest.importorskip("apache_beam")
    prepared(bare, tmp_path / "out", beam=("--runner=DirectRunner",))
    assert contents(tmp_path / "out") == contents(bare_dataset)


def test_one_frame_without_a_face_is_bridged(tmp_path, talking_head):
    frames = list(talking_head(count=20))
    frames[9][48:172, 66:190] = (200, 150, 120)
    video.write_video(tmp_path / "clips" / "a.mp4", frames, Fraction(25))
    (tmp_path / "clips" / "labels.csv").write_text("file,hair\na.mp4,no\n")
    prepared(tmp_path / "clips", tmp_path / "out")
    (chunk,) = (records.decode(data) for data in [shards.Dataset(tmp_path / "out")[0]])
    assert np.flatnonzero(~chunk.found).tolist() == [9] and len(chunk.frames) == 20
    middle = (chunk.keypoints[8] + chunk.keypoints[10]) / 2
    np.testing.assert_allclose(chunk.keypoints[9], middle, atol=1e-3)


def test_clips_of_every_container_are_read_and_other_files_counted(tmp_path, talking_head):
    folder, frames = tmp_path / "clips", list(talking_head(count=18))
    video.write_video(folder / "a.gif", frames, Fraction(25))
    for name, codec in (("b.ts", "libx264"), ("c.WMV", "wmv2"), ("d.m2ts", "libx264")):
        kind = {".WMV": "asf"}.get(Path(name).suffix, "mpegts")
        with av.open(str(folder / name), "w", format=kind) as output:
            stream = output.add_stream(codec, rate=25, options={"b": "4M"})
            stream.height, stream.width, stream.pix_fmt = 256, 256, "yuv420p"
            for frame in frames:
                output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            output.mux(stream.encode())
    for name in ("e.jpg", "notes.txt", ".hidden.txt", "sub/f.jpg"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("no clip")
    (folder / "labels.csv").write_text("file,hair\n")
    summary = run(folder, folder / "dataset", labels=folder / "labels.csv")
    assert (summary.clips, summary.kept) == (4, 4)
    (note,) = [note for note in summary.notes if "other kinds" in note]
    assert note == f"{folder}: 3 files of other kinds were not looked at (.jpg 2, .txt 1)"


@pytest.mark.parametrize("quarters", [1, 2])
def test_a_clip_whose_face_is_not_upright_is_never_learnt_from(short_clips, tmp_path, quarters):
    frames = [np.rot90(x, quarters) for x in video.read_frames(short_clips / "a.mp4")]
    video.write_video(short_clips / "a.mp4", frames, Fraction(25))
    run(short_clips, tmp_path / "out")
    how = {1: "lies on its side", 2: "stands on its head"}[quarters]
    assert skipped(tmp_path / "out") == {"a.mp4": f"the face {how}: turn the clip upright"}


def test_what_was_done_to_clips_is_told_and_kept(short_clips, tmp_path):
    plain = short_clips / "a.mp4"
    with av.open(str(plain)) as source, av.open(str(short_clips / "c.mp4"), "w") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                output.mux(packet)
    summary = run(short_clips, tmp_path / "out")
    assert "c.mp4: pixels of 4:3, made square" in summary.notes
    rows = {row.clip: row for row in manifest.read(Store.at(tmp_path / "out"))}
    assert rows["c.mp4"].notes == "pixels of 4:3, made square" and rows["a.mp4"].notes == ""
    assert run(short_clips, tmp_path / "out").notes == summary.notes


def test_the_rate_of_an_uneven_clip_is_that_of_its_stamps(tmp_path, talking_head):
    times = np.cumsum([0, *np.random.default_rng(3).integers(30, 38, 25)])
    times = np.delete(times, [7, 8, 15])
    folder = tmp_path / "clips"
    folder.mkdir()
    with av.open(str(folder / "a.mkv"), "w") as output:
        stream = output.add_stream("libx264", rate=1000)
        stream.height, stream.width, stream.pix_fmt = 256, 256, "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        for time_, image in zip(times, talking_head(count=len(times))):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = int(time_), Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    motion = chunks.follow(folder / "a.mkv", 64)
    assert motion.fresh.sum() == len(times)
    assert motion.fps == pytest.approx(len(times) * 1000 / times[-1], rel=0.05)


def test_labels_are_never_replaced_by_what_is_written(short_clips, tmp_path):
    labels = tmp_path / "out" / "skipped.csv"
    labels.parent.mkdir()
    labels.write_text("file,hair\na.mp4,yes\n")
    with pytest.raises(InputError, match=r"skipped\.csv: would replace the input"):
        run(short_clips, tmp_path / "out", labels=labels)
    assert labels.read_text() == "file,hair\na.mp4,yes\n"


def test_a_full_disk_ends_the_run_and_counts_no_clip_as_done(short_clips, tmp_path, monkeypatch):
    def refused(self, record):
        raise RuntimeError("write() failed: No space left on device; writing a.part")

    monkeypatch.setattr("array_record.python.array_record_module.ArrayRecordWriter.write", refused)
    with pytest.raises(InputError, match=r"cannot be written .*No space left on device"):
        run(short_clips, tmp_path / "out")
    monkeypatch.undo()
    assert run(short_clips, tmp_path / "out").kept == 2


def test_what_the_system_refuses_to_read_is_tried_again(short_clips, tmp_path, monkeypatch):
    real = chunks.follow

    def refused(path, *arguments):
        if path.name == sorted(short_clips.iterdir())[0].name:
            raise InputError(f"{path}: cannot be read (Stale file handle)") from OSError("stale")
        return real(path, *arguments)

    monkeypatch.setattr(chunks, "follow", refused)
    assert run(short_clips, tmp_path / "out").kept == 1
    assert list(skipped(tmp_path / "out").values()) == ["cannot be read (Stale file handle)"]
    monkeypatch.setattr(chunks, "follow", real)
    assert run(short_clips, tmp_path / "out").kept == 2
    assert skipped(tmp_path / "out") == {}


def test_a_name_that_is_no_text_is_refused_before_work(short_clips, tmp_path):
    clip = sorted(short_clips.iterdir())[0]
    os.rename(clip, os.fsencode(short_clips) + b"/Th\xe9.mp4")
    with pytest.raises(InputError, match=r"the name 'Th.udce9.mp4' has bytes that are not UTF-8"):
        run(short_clips, tmp_path / "out")


def test_a_negative_number_of_workers_is_refused_before_work(short_clips, tmp_path):
    with pytest.raises(InputError, match=r"^workers -1: must be at least 1"):
        run(short_clips, tmp_path / "out", workers=-1)
    assert not (tmp_path / "out").exists()
