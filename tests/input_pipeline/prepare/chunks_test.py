from fractions import Fraction

import cv2
import numpy as np
import pytest

from input_pipeline.dataset import records
from input_pipeline.errors import InputError
from input_pipeline.masks import segmenters
from input_pipeline.media import video
from input_pipeline.prepare import chunks
from input_pipeline.prepare.labels import Label

HAIR = Label(frozenset({"hair"}), "somebody")


@pytest.fixture
def make(tmp_path):
    """Writes frames as a clip, follows it, and cuts it into chunks."""

    def make(frames, longest=64, fps=25):
        video.write_video(tmp_path / "clip.mp4", frames, Fraction(fps), crf=8)
        motion = chunks.follow(tmp_path / "clip.mp4", 64)
        settings = chunks.Settings(64, longest, "heuristic")
        return list(chunks.chunks(tmp_path, "clip.mp4", HAIR, motion, settings))

    return make


def test_a_long_run_is_split_evenly_and_loses_no_frame(make, talking_head):
    made = make(talking_head(count=50), longest=24)
    assert [len(chunk.frames) for chunk in made] == [16, 17, 17]
    assert [chunk.start for chunk in made] == [0, 16, 33]
    for chunk in made:
        records.validate(chunk, 64)
        assert chunk.fps == 25 and chunk.found.all() and chunk.identity == "somebody"
    np.testing.assert_array_equal(made[0].crop, made[2].crop)


def test_frames_keypoints_and_crop_belong_together(make, talking_head):
    frames = list(talking_head(count=20))
    (chunk,) = make(frames)
    cx, cy, side = chunk.crop
    for i in (0, 19):
        inside = chunk.keypoints[i, [468, 473], :2] + 0.5
        pupils = inside * side / 64 + [cx - side / 2, cy - side / 2]
        for x, y in np.round(pupils).astype(int):
            near = frames[i][y - 2 : y + 3, x - 2 : x + 3].mean()
            cheek = frames[i][y + 12 : y + 17, x - 2 : x + 3].mean()
            assert near < 0.75 * cheek, "a pupil is darker than the cheek below it"


def test_repeated_frames_are_dropped_and_the_frame_rate_follows(make, talking_head):
    frames = [frame for frame in talking_head(count=20) for _ in range(2)]
    (chunk,) = make(frames, fps=24)
    assert len(chunk.frames) == 20 and chunk.fps == pytest.approx(12)


def test_a_short_gap_is_bridged_and_a_long_one_splits_the_clip(make, talking_head):
    frames = list(talking_head(count=60))
    for i in (*range(8, 11), *range(30, 40)):  # a hand before the face
        cv2.circle(frames[i], (128, 110 + i % 3), 62, (200, 150, 120), -1)
    made = make(frames)
    assert [(chunk.start, len(chunk.frames)) for chunk in made] == [(0, 30), (40, 20)]
    assert np.flatnonzero(~made[0].found).tolist() == [8, 9, 10]
    assert made[1].found.all()


def test_a_hard_cut_is_named_and_fast_motion_is_none(make, talking_head):
    shot = list(talking_head(count=20))
    other = [frame[:, ::-1] // 3 for frame in shot]
    with pytest.raises(InputError, match="frame 20: hard cut"):
        make(shot + other)
    jerky = [np.roll(frame, 14 * (i % 3), axis=1) for i, frame in enumerate(shot)]
    assert sum(len(chunk.frames) for chunk in make(jerky)) == 20


def test_clips_of_no_use_say_why(make, talking_head):
    noise = np.random.default_rng(0).integers(0, 256, (20, 128, 128, 3), np.uint8)
    with pytest.raises(InputError, match="no face in 20 frames"):
        make(noise)
    with pytest.raises(InputError, match="at most 15 consecutive frames with a face, 16"):
        make(talking_head(count=15))
    far = [
        np.pad(frame[::2, ::2], ((80, 80), (80, 80), (0, 0))) for frame in talking_head(count=16)
    ]
    with pytest.raises(InputError, match=r"face is 4\d pixels long, 48 are needed"):
        make(far)


class Painter(segmenters.Segmenter):
    """Masks that cover a share of each picture, given frame by frame; keeps what it was asked."""

    name, version, kinds = "painter", "1", frozenset({"hair"})

    def __init__(self, *shares):
        self.shares, self.asked = shares, []

    def _masks(self, pictures, present):
        self.asked.append(pictures)
        size = pictures.images.shape[1]
        rows = np.arange(size) / size < np.array(self.shares)[pictures.frames, None]
        return {"hair": np.repeat(rows[..., None], size, axis=2)}


def test_the_segmenter_sees_each_chunk_once_with_its_place_in_the_clip(
    make, talking_head, monkeypatch
):
    painter = Painter(*[0.5] * 80)
    monkeypatch.setattr(segmenters, "load", lambda _: painter)
    frames = [frame for i, frame in enumerate(talking_head(count=40)) for _ in range(1 + i % 2)]
    made = make(frames, longest=20)
    assert [len(asked.images) for asked in painter.asked] == [20, 20]
    assert painter.asked[0].frames.tolist()[:5] == [0, 1, 3, 4, 6]
    assert (
        painter.asked[1].source_shape == (256, 256) and str(painter.asked[1].source) == "clip.mp4"
    )
    np.testing.assert_allclose(painter.asked[1].keypoints, made[1].keypoints)
    assert made[0].tools["masks"] == "painter 1"


@pytest.mark.parametrize("share", [0.0, 0.9])
def test_masks_that_are_empty_or_cover_the_picture_are_refused(
    make, talking_head, monkeypatch, share
):
    few, many = [share] * 2 + [0.3] * 18, [share] * 3 + [0.3] * 17
    monkeypatch.setattr(segmenters, "load", lambda _: Painter(*few))
    (chunk,) = make(talking_head(count=20))
    assert len(chunk.masks["hair"]) == 20
    monkeypatch.setattr(segmenters, "load", lambda _: Painter(*many))
    with pytest.raises(InputError, match=r"the hair masks of 3 of 20 cover less than 0.5%"):
        make(talking_head(count=20))
