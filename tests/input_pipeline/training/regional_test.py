import dataclasses

import numpy as np
import pytest

from input_pipeline.dataset import records
from input_pipeline.errors import InputError
from input_pipeline.training.regional import RegionalOptions

STILL = {"augmented": (), "jitter": 0.0, "hue": 0.0, "control_scale": 0.0, "control_shift": 0.0}


def _sample(chunk, seed=0, **changes):
    options = RegionalOptions(size=64, frames=3, **STILL | changes)
    return options.make(chunk, np.random.default_rng(seed))


def test_history_and_video_follow_each_other(painted_chunk):
    chunk = painted_chunk()
    sample = _sample(chunk, history=2)
    assert {name: x.shape for name, x in sample.items()} == {
        "video": (3, 64, 64, 3), "portrait": (64, 64, 3), "driving": (3, 64, 64, 3),
        "history": (2, 64, 64, 3),
    }  # fmt: skip
    frames = [records.decode_frame(frame) for frame in chunk.frames]
    shown = np.concatenate([sample["history"], sample["video"]])
    (first,) = (i for i, frame in enumerate(frames) if (frame == shown[0]).all())
    np.testing.assert_array_equal(shown, frames[first : first + 5])
    assert "history" not in _sample(chunk)


def test_the_driver_is_black_but_for_its_regions(painted_chunk):
    sample = _sample(painted_chunk())
    shown = sample["driving"].any(-1)
    assert 0.005 < shown.mean() < 0.5
    video = sample["video"].astype(int)
    np.testing.assert_allclose(sample["driving"][shown], video[shown], atol=1)


def test_regions_lie_where_the_control_track_has_its_face(painted_chunk):
    bare = painted_chunk()
    white = records.encode_frame(np.full((64, 64, 3), 255, np.uint8))
    points = bare.keypoints + np.float32([8, 0, 0])
    chunk = dataclasses.replace(
        bare, control=records.ControlTrack([white] * len(bare.frames), points)
    )
    plain = dataclasses.replace(
        bare, control=records.ControlTrack([white] * len(bare.frames), bare.keypoints)
    )
    moved, own = (_sample(one, control="track")["driving"] for one in (chunk, plain))
    assert set(np.unique(moved)) == {0, 255}
    np.testing.assert_array_equal(moved[:, :, 8:], own[:, :, :-8])


def test_a_history_below_zero_is_refused():
    with pytest.raises(InputError, match=r"data\.history is -1: use 0 or more"):
        RegionalOptions(size=64, history=-1)


def test_a_chunk_that_is_too_short_is_refused(painted_chunk):
    with pytest.raises(ValueError, match="frames are too few for"):
        _sample(painted_chunk(), history=100)
