import dataclasses
import hashlib
import shutil
import sys

import numpy as np
import pytest

from input_pipeline.dataset import records, shards
from input_pipeline.errors import InputError
from input_pipeline.faces import geometry
from input_pipeline.faces.landmarker import FaceLandmarker, Track
from input_pipeline.media.pictures import read_picture
from input_pipeline.synthetic import dataset, population
from input_pipeline.synthetic.renderer import render
from input_pipeline.training import loader, transforms


def _files(folder):
    """Hash of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _records(folder, split):
    source = shards.Dataset(folder, split)
    return [source[i] for i in range(len(source))]


def test_the_same_seed_gives_the_same_bytes(settings, small_set, tmp_path):
    dataset.synth(tmp_path / "again", settings, cases=4)
    assert _files(tmp_path / "again") == _files(small_set)


def test_a_smaller_set_is_the_beginning_of_a_larger_one(settings, small_set, tmp_path):
    larger = dataclasses.replace(settings, people=10)
    counts = dataset.synth(tmp_path / "larger", larger, cases=5)
    assert counts == {"train": 8, "val": 1, "test": 1}
    small, large = _records(small_set, "train"), _records(tmp_path / "larger", "train")
    assert len(small) == 3 and large[:3] == small
    files, more = _files(small_set / "counterfactual"), _files(tmp_path / "larger/counterfactual")
    del files["cases.json"]
    assert files.items() <= more.items()
    # Nobody is in two splits, and another seed gives other people.
    names = {
        split: {records.decode(r).identity for r in _records(tmp_path / "larger", split)}
        for split in counts
    }
    assert len(set.union(*names.values())) == sum(len(found) for found in names.values()) == 10
    other = population.chunk(dataclasses.replace(settings, seed=6), 0, 0)
    assert other.identity not in names["train"] and other.frames[0] not in small[0]


def test_records_are_valid_and_carry_the_truth(settings, small_set):
    for data in _records(small_set, "train"):
        chunk = records.decode(data)
        records.validate(chunk, 64)
        assert chunk.found.all() and len(chunk.frames) == 3 and chunk.fps == 2.5
        assert {name: rows.shape for name, rows in chunk.truth.items()} == {
            "visible": (3, 478), "pose": (3, 3), "expression": (3, 7),
        }  # fmt: skip
        person = population.draw_person(settings, int(chunk.identity.split("_")[-1]))
        assert set(chunk.masks) == person.worn()


def test_records_read_with_tfds_and_without_tensorflow(small_set):
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(str(small_set))
    example = builder.as_data_source("train")[0]
    assert example["keypoints"].shape == (3, 478, 3) and example["frames"][0].shape == (64, 64, 3)
    assert "tensorflow" not in sys.modules


def test_rendered_on_the_fly_they_are_the_same_records(settings, small_set):
    path = "synth:people=3,clips=1,frames=3,size=64,seed=5"
    rendered = dataset.Rendered(path)
    assert rendered.settings == settings and len(rendered) == 3
    assert [rendered[i] for i in range(3)] == _records(small_set, "train")
    options = transforms.SampleOptions(64, frames=1)
    batch = next(loader.Loader(rendered, options, seed=0, batch_size=2))
    assert batch["video"].shape == (2, 1, 64, 64, 3) and batch["attribute_mask"].any()


def test_the_identity_follows_what_is_rendered_and_not_how_it_is_written():
    def identity(path, split="train"):
        return dataset.Rendered(path, split).identity

    one = identity("synth:people=20,seed=5")
    assert one == identity("synth:seed=5,people=20,fps=2.5")
    assert one["fingerprint"] == "fd2645a11c6072a5"  # as ever: runs can be resumed
    assert one["records"] == 16  # 80 % of the people, a clip of each
    others = [identity("synth:people=20,seed=6"), identity("synth:people=20,seed=5", "val")]
    assert len({each["fingerprint"] for each in (one, *others)}) == 3


def test_the_control_track_is_somebody_else_with_the_same_motion(settings, small_set):
    path = "synth:people=3,clips=1,frames=3,size=64,seed=5,control=1"
    rendered = dataset.Rendered(path)
    assert rendered.metadata["control"] and dataset.Rendered(path[:-1] + "0").settings == settings
    plain = dataset.Rendered(path[:-1] + "0")
    assert rendered.identity["fingerprint"] != plain.identity["fingerprint"]
    for i in range(3):
        data = rendered[i]
        assert data == rendered[i]
        chunk, bare = records.decode(data), records.decode(plain[i])
        records.validate(chunk, 64)
        track, chunk.control = chunk.control, None
        np.testing.assert_equal(vars(chunk), vars(bare))  # nothing else has changed
        person = population.draw_person(settings, i)
        other = population.draw_performer(settings, i, 0)
        assert abs(person.face.width - other.face.width) > 1e-3
        # Pose and openings as the renderer has them; another face shifts the fit a little.
        turn, _, _ = geometry.head_pose(track.keypoints)
        own, _, _ = geometry.head_pose(chunk.keypoints)
        apart = geometry.euler_angles(turn) - geometry.euler_angles(own)
        assert np.abs(apart).max() < 5
        changes = np.ptp(geometry.euler_angles(turn), axis=0) - np.ptp(chunk.truth["pose"], axis=0)
        assert np.abs(changes).max() < 5
        pictures = [
            np.stack([records.decode_frame(one) for one in frames]).astype(int)
            for frames in (chunk.frames, track.frames)
        ]
        assert np.abs(pictures[0] - pictures[1]).mean() > 10


def test_tracked_keypoints_are_the_landmarkers(settings):
    path = "synth:people=3,clips=1,frames=3,size=64,seed=5"
    plain, tracked = dataset.Rendered(path), dataset.Rendered(path + ",tracked=1")
    assert plain.identity["fingerprint"] != tracked.identity["fingerprint"]
    assert tracked.settings.facts() == plain.settings.facts() | {"tracked": True}
    data = tracked[0]
    assert data == tracked[0]
    chunk, exact = records.decode(data), records.decode(plain[0])
    # Found in the frames before they became JPEGs.
    person, motion = population.draw_person(settings, 0), population.draw_motion(settings, 0, 0)
    film = render.render_clip(person, motion, 64)
    track = FaceLandmarker().track(render.to_uint8(film.colour))
    assert track.found.all() and chunk.found.all()
    np.testing.assert_allclose(chunk.keypoints, track.keypoints, atol=1e-5)
    _, size, _ = geometry.head_pose(exact.keypoints)
    apart = np.linalg.norm((chunk.keypoints - exact.keypoints)[..., :2], axis=-1).mean(1) / size
    assert (apart > 0.01).all() and (apart < 0.15).all()
    assert chunk.tools.pop("landmarks") == FaceLandmarker().version
    chunk.keypoints = exact.keypoints
    np.testing.assert_equal(vars(chunk), vars(exact))  # nothing else has changed


def test_where_the_landmarker_sees_no_face_keypoints_are_the_renderers(settings, monkeypatch):
    lost = Track(np.full((3, 478, 3), np.nan, np.float32), np.array([False] * 3), 0)
    monkeypatch.setattr(FaceLandmarker, "track", lambda *_: lost)
    exact = population.chunk(settings, 0, 0)
    chunk = population.chunk(dataclasses.replace(settings, tracked=True), 0, 0)
    records.validate(chunk, 64)
    assert not chunk.found.any()
    np.testing.assert_array_equal(chunk.keypoints, exact.keypoints)


def test_a_set_with_the_control_track_says_so_and_the_track_is_read_back(settings, tmp_path):
    few = dataclasses.replace(settings, people=1, control=True)
    dataset.synth(tmp_path / "set", few, cases=0)
    found = shards.Dataset(tmp_path / "set")
    assert found.metadata["control"] is True and found.metadata["settings"]["control"] is True
    chunk = records.decode(found[0])
    assert len(chunk.control.frames) == 3 and chunk.control.keypoints.shape == (3, 478, 3)
    assert chunk.control.frames[0] != chunk.frames[0]


def test_sheets_show_people_and_cases(small_set):
    people = read_picture(small_set / "people.png")
    assert people.shape == (144, 1440, 3) and (people[:, 432:] == 255).all()
    sheet = read_picture(small_set / "counterfactual.png")
    assert sheet.shape[0] == 4 * 144


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"people": 0}, "people 0: must be at least 1"),
        ({"size": 100}, "size 100: must be a multiple of 16"),
        ({"frames": 2}, "frames 2: must be at least 3"),
        ({"fps": 0.0}, "fps 0: must be 0.01 to 1000"),
        ({"fps": float("inf")}, "fps inf: must be 0.01 to 1000"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        population.Settings(**changes)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("synth:persons=3", "unknown setting 'persons'"),
        ("synth:people=many", "people is 'many', must be a number"),
    ],
)
def test_badly_written_paths_are_refused(path, message):
    with pytest.raises(InputError, match=message):
        dataset.Rendered(path)


def test_a_new_set_leaves_no_cases_of_the_old_one(settings, small_set, tmp_path):
    out = tmp_path / "set"
    shutil.copytree(small_set, out)
    dataset.synth(out, dataclasses.replace(settings, seed=6), cases=0)
    assert not (out / "counterfactual").exists()
    with pytest.raises(InputError, match="cases -1: must be at least 0"):
        dataset.synth(out, settings, cases=-1)


def test_splits_without_people_are_named():
    with pytest.raises(InputError, match="split 'val' has no people"):
        dataset.Rendered("synth:people=3", "val")
