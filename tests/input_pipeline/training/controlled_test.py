import dataclasses

import numpy as np
import pytest

from input_pipeline.dataset import records
from input_pipeline.errors import InputError
from input_pipeline.training.controlled import ControlledOptions
from input_pipeline.training.loader import Loader

STILL = {"augmented": (), "jitter": 0.0, "hue": 0.0, "control_scale": 0.0, "control_shift": 0.0}


def _sample(chunk, seed=0, **changes):
    options = ControlledOptions(size=64, frames=3, **STILL | changes)
    return options.make(chunk, np.random.default_rng(seed))


def test_controls_are_the_target_frames_where_nothing_is_drawn(painted_chunk):
    sample = _sample(painted_chunk())
    assert {name: x.shape for name, x in sample.items()} == {
        "video": (3, 64, 64, 3), "portrait": (64, 64, 3), "control": (3, 64, 64, 3),
        "local_control": (3, 64, 64, 3),
    }  # fmt: skip
    assert all(x.dtype == np.uint8 for x in sample.values())
    np.testing.assert_allclose(sample["control"], sample["video"].astype(int), atol=1)
    shown = sample["local_control"].any(-1)
    # Three squares of a quarter of the side, which may overlap and hold black pixels.
    assert 0.01 < shown.mean() < 3 / 16 + 0.01
    np.testing.assert_array_equal(sample["local_control"][shown], sample["control"][shown])
    for frame in sample["video"]:
        assert np.abs(frame.astype(int) - sample["portrait"]).max() > 0


def test_each_kind_of_control_is_stretched_by_itself_and_both_ways_apart(painted_chunk):
    options = ControlledOptions(size=64, frames=2, control_scale=0.25, control_shift=0.0)
    rng, extents = np.random.default_rng(3), []
    ring = np.zeros((64, 64, 3), np.uint8)
    ring[16:48, 16:48] = 255
    for _ in range(50):
        first, second = options.stretched([ring, ring], rng)
        np.testing.assert_array_equal(first, second)
        extents.append([(first[..., 0].max(axis) > 127).sum() / 32 for axis in (0, 1)])
    extents = np.array(extents)
    assert 0.78 < extents.min() < 0.9 and 1.1 < extents.max() < 1.28
    assert abs(np.corrcoef(extents.T)[0, 1]) < 0.5
    moved = _sample(painted_chunk(), control_scale=0.25, control_shift=0.05)
    assert np.abs(moved["control"].astype(int) - moved["video"]).max() > 20


def _with_track(chunk):
    """The chunk with a track: white faces, all keypoints 8 px to the right of its own."""
    white = records.encode_frame(np.full((64, 64, 3), 255, np.uint8))
    points = chunk.keypoints + np.float32([8, 0, 0])
    track = records.ControlTrack([white] * len(chunk.frames), points)
    return dataclasses.replace(chunk, control=track)


def test_the_control_track_drives_where_there_is_one(painted_chunk):
    bare = painted_chunk()
    chunk = _with_track(bare)
    for control in ("auto", "track"):
        sample = _sample(chunk, control=control)
        assert (sample["control"] == 255).all()
        # The squares lie where the track's own face is.
        own = _sample(bare)["local_control"].any(-1).any((0, 1))
        shown = sample["local_control"].any(-1).any((0, 1))
        assert np.flatnonzero(shown).mean() - np.flatnonzero(own).mean() == pytest.approx(8, abs=1)
        np.testing.assert_array_equal(sample["video"], _sample(bare)["video"])
    for same in (_sample(chunk, control="self"), _sample(bare, control="auto")):
        np.testing.assert_allclose(same["control"], same["video"].astype(int), atol=1)


def test_a_data_set_without_the_track_is_refused_where_it_is_asked_for(write_painted):
    dataset = write_painted(1)
    options = ControlledOptions(size=64, control="track")
    with pytest.raises(InputError, match=r"no control track, which data\.control = 'track' asks"):
        Loader(dataset, options, seed=0, batch_size=1)
    with pytest.raises(InputError, match=r"data\.control is 'other': choose auto, track, self"):
        ControlledOptions(size=64, control="other")


@pytest.mark.parametrize("name", ["control_scale", "control_shift"])
def test_ranges_out_of_bounds_are_refused(name):
    with pytest.raises(InputError, match=f"data.{name} is 1"):
        ControlledOptions(size=64, **{name: 1.0})
