import dataclasses
import json
import pickle
import sys

import numpy as np
import pytest
from tensorflow_datasets.proto import tf_example_pb2

from input_pipeline.dataset import records, shards
from input_pipeline.errors import InputError


def test_chunk_survives_the_round_trip(painted_chunk):
    chunk = painted_chunk(3, 20)
    mask = chunk.masks["hair"][0]
    chunk.expanded = {"hair": {4: [mask, mask], 11: [mask]}, "hat": {0: [mask]}}
    found = records.decode(records.encode(chunk, 64))
    for field in dataclasses.fields(chunk):
        np.testing.assert_equal(getattr(found, field.name), getattr(chunk, field.name))


def test_the_control_track_survives_and_records_without_it_do_not_change(painted_chunk):
    chunk = painted_chunk(0, 4)
    bare = records.encode(chunk, 64)
    assert "control/frames" not in tf_example_pb2.Example.FromString(bare).features.feature
    chunk.control = records.ControlTrack(chunk.frames[::-1], chunk.keypoints + 1)
    found = records.decode(records.encode(chunk, 64))
    records.validate(found, 64)
    assert list(found.control.frames) == chunk.frames[::-1]
    np.testing.assert_array_equal(found.control.keypoints, chunk.keypoints + 1)
    found.control = None
    assert records.encode(found, 64) == bare


@pytest.mark.parametrize(
    ("frames", "keypoints", "message"),
    [
        (3, 0.0, "3 control frames .* for 4 frames"),
        (4, 999.0, "control track: the face lies outside"),
    ],
)
def test_control_tracks_that_do_not_fit_are_told(painted_chunk, frames, keypoints, message):
    chunk = painted_chunk(0, 4)
    points = chunk.keypoints + np.float32(keypoints)
    chunk.control = records.ControlTrack(chunk.frames[:frames], points)
    with pytest.raises(InputError, match=message):
        records.validate(chunk, 64)


def test_records_of_earlier_versions_with_depth_pictures_are_read(painted_chunk):
    data = records.encode(painted_chunk(0, 4), 64)
    old = tf_example_pb2.Example.FromString(data)
    old.features.feature["depth"].bytes_list.value.extend([b"PNG"] * 4)
    found = records.decode(old.SerializeToString())
    records.validate(found, 64)
    assert records.encode(found, 64) == data


def test_masks_are_exact_and_small():
    mask = np.random.default_rng(0).random((512, 512)) < 0.5
    data = records.encode_mask(mask)
    np.testing.assert_array_equal(records.decode_mask(data), mask)
    # Random bits do not compress: 1 bit a pixel and a little.
    assert len(data) < 512 * 512 / 8 * 1.05


def test_frames_come_back_close_even_at_coloured_edges():
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, 30:34] = (255, 0, 0)
    assert np.abs(records.decode_frame(records.encode_frame(image)).astype(int) - image).max() < 25


def test_data_set_opens_shard_by_shard_and_pickles(painted_chunk, tmp_path, monkeypatch):
    encoded = [records.encode(painted_chunk(i, 4), 64) for i in range(9)]
    monkeypatch.setattr(shards, "SHARD_BYTES", 3 * len(encoded[0]))
    counts = shards.write_dataset(tmp_path, {"train": encoded, "test": encoded[:2]}, 64, {"a": 1})
    assert counts == {"train": 9, "test": 2}
    assert len(list(tmp_path.glob("durian-train.array_record-*-of-00003"))) == 3
    dataset = pickle.loads(pickle.dumps(shards.Dataset(tmp_path)))
    assert [dataset[i] for i in range(len(dataset))] == encoded
    assert dataset.size == 64 and dataset.metadata["a"] == 1


def test_tfds_reads_the_data_set_without_tensorflow(painted_chunk, tmp_path):
    import tensorflow_datasets as tfds

    chunk = painted_chunk(0, 4)
    chunk.expanded = {"hair": {2: chunk.masks["hair"][:3]}}
    shards.write_dataset(tmp_path, {"train": [records.encode(chunk, 64)]}, 64, {})
    example = tfds.builder_from_directory(tmp_path).as_data_source("train")[0]
    assert example["frames"][2].shape == (64, 64, 3)
    assert example["masks"]["hair"][0].shape == (64, 64, 1)
    assert len(example["masks"]["hat"]) == 0
    assert example["expanded"]["hair"]["frames"].tolist() == [2, 2, 2]
    assert example["expanded"]["hair"]["masks"][2].shape == (64, 64, 1)
    assert "tensorflow" not in sys.modules


def test_rewriting_replaces_the_data_set_and_spares_other_files(painted_chunk, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    encoded = [records.encode(painted_chunk(i, 4), 64) for i in range(3)]
    shards.write_dataset(tmp_path, {"train": encoded}, 64, {})
    shards.write_dataset(tmp_path, {"val": encoded[:1]}, 64, {})
    assert len(shards.Dataset(tmp_path, "val")) == 1
    assert (tmp_path / "notes.txt").exists()
    with pytest.raises(InputError, match=r"no split 'train'.*val"):
        shards.Dataset(tmp_path)


def test_a_write_that_fails_leaves_the_old_data_set(painted_chunk, tmp_path):
    encoded = [records.encode(painted_chunk(i, 4), 64) for i in range(3)]
    shards.write_dataset(tmp_path, {"train": encoded}, 64, {})

    def breaks():
        yield encoded[0]
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        shards.write_dataset(tmp_path, {"train": breaks()}, 64, {})
    assert len(shards.Dataset(tmp_path)) == 3


def test_missing_and_foreign_data_sets_are_refused(painted_chunk, tmp_path):
    with pytest.raises(InputError, match="run durian prepare"):
        shards.Dataset(tmp_path / "nowhere")
    shards.write_dataset(tmp_path, {"train": [records.encode(painted_chunk(0, 4), 64)]}, 64, {})
    facts = tmp_path / "metadata.json"
    facts.write_text(json.dumps({**json.loads(facts.read_text()), "schema_version": 99}))
    with pytest.raises(InputError, match="schema version 99"):
        shards.Dataset(tmp_path)


@pytest.mark.parametrize(
    "change,message",
    [
        ({"frames": []}, "no frames"),
        ({"fps": 0.0}, "fps is 0"),
        ({"keypoints": np.zeros((3, 478, 3), np.float32)}, "do not fit 4 frames"),
        ({"keypoints": np.full((4, 478, 3), np.nan, np.float32)}, "not finite"),
        ({"keypoints": np.full((4, 478, 3), 999, np.float32)}, "outside the frame"),
        ({"masks": {"hair": [b""]}}, "1 hair masks for 4 frames"),
        ({"masks": {"hair": [b"broken"] * 4}}, "hair mask 0 cannot be decoded"),
        ({"frames": [b"broken"] * 4}, "frame 0 cannot be decoded"),
        ({"expanded": {"hat": {4: [b""]}}}, "expanded hat masks for frame 4 of 4"),
        ({"expanded": {"hat": {3: [b"broken"]}}}, "expanded hat mask 3 cannot be decoded"),
    ],
)
def test_validation_names_what_is_wrong(painted_chunk, change, message):
    chunk = painted_chunk(0, 4)
    records.validate(chunk, 64)
    with pytest.raises(InputError, match=f"clip0.mp4 from frame 0.*{message}"):
        records.validate(dataclasses.replace(chunk, **change), 64)
