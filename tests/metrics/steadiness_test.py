import csv
import tracemalloc
from fractions import Fraction

import cv2
import numpy as np
import pytest

from durian_jax.metrics import pixels
from durian_jax.metrics.steadiness import Steadiness
from input_pipeline.errors import InputError

FPS = 10


@pytest.fixture(scope="module")
def clip(talking_head):
    return list(talking_head(count=3 * FPS))


@pytest.fixture(scope="module")
def report(clip, landmarker):
    """A function of frames to their report, against the first frame of `clip`."""
    portrait = landmarker.track(clip[:1]).keypoints[0]

    def watch(frames, fps=Fraction(FPS)):
        steadiness = Steadiness(portrait, fps, landmarker)
        for frame in frames:
            steadiness.add(frame)
        return steadiness

    return watch


@pytest.fixture(scope="module")
def moving(clip, report):
    return report(clip).rows()


def test_a_still_picture_does_not_flicker_and_keeps_its_face(clip, report):
    rows = report([clip[7]] * 2 * FPS).rows()
    assert [row.flicker for row in rows] == [0, 0]
    assert [(row.second, row.frames, row.faces) for row in rows] == [(0, FPS, 1), (1, FPS, 1)]
    # The first frame is found by another network than those after it.
    assert rows[0].identity == pytest.approx(rows[1].identity, abs=0.02)


def test_a_face_of_another_shape_is_told_from_the_same_face_that_moves(clip, report, moving):
    same = [row.identity for row in moving]
    for size in ((220, 256), (256, 220)):
        other = [row.identity for row in report([cv2.resize(x, size) for x in clip]).rows()]
        assert min(other) > 2 * max(same)
    # However large the picture is.
    large = [row.identity for row in report([cv2.resize(x, (512, 512)) for x in clip]).rows()]
    assert max(large) < 1.5 * max(same)


def test_noise_raises_the_flicker_of_its_own_second(clip, report, moving):
    rng, noisy = np.random.default_rng(0), list(clip)
    for i in range(FPS, 2 * FPS - 1):
        noise = rng.normal(0, 8, clip[i].shape)
        noisy[i] = np.clip(clip[i] + noise, 0, 255).astype(np.uint8)
    before, during, after = report(noisy).rows()
    assert during.flicker > 3 * moving[1].flicker
    assert (before.flicker, after.flicker) == (moving[0].flicker, moving[2].flicker)


def test_flicker_is_that_of_the_evaluation(clip, moving):
    # A frame is compared with the one before it: the first second lacks a pair.
    whole = pixels.flicker(np.stack(clip) / np.float32(255))
    parts = [row.flicker for row in moving]
    assert np.average(parts, weights=[FPS - 1, FPS, FPS]) == pytest.approx(whole, rel=1e-9)


def test_frames_without_a_face_are_counted_and_no_more(clip, report):
    black = np.zeros_like(clip[0])
    half, none = report(clip[:5] + [black] * 15).rows()
    assert (half.faces, none.faces) == (0.5, 0) and np.isnan(none.identity)
    assert half.identity == pytest.approx(report(clip[:5]).rows()[0].identity, rel=1e-9)


def test_seconds_of_odd_frame_rates(clip, report):
    rows = report(clip[:12], Fraction(7, 2)).rows()
    assert [row.frames for row in rows] == [4, 3, 4, 1]
    (row,) = report(clip[:1]).rows()
    assert np.isnan(row.flicker) and row.frames == 1
    assert [row.frames for row in report(clip[:2], Fraction(1, 2)).rows()] == [1, 0, 1]


def test_the_report_is_a_table(tmp_path, clip, report):
    steadiness = report([*clip[:FPS], np.zeros_like(clip[0])])
    steadiness.write(tmp_path / "new" / "steadiness.csv")
    with (tmp_path / "new" / "steadiness.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [list(row) for row in rows] == [["second", "frames", "faces", "identity", "flicker"]] * 2
    for row, seen in zip(rows, steadiness.rows()):
        assert int(row["frames"]) == seen.frames
        assert float(row["flicker"]) == pytest.approx(seen.flicker, rel=1e-4)
    assert float(rows[0]["identity"]) == pytest.approx(steadiness.rows()[0].identity, rel=1e-4)
    assert rows[1]["identity"] == ""
    with pytest.raises(InputError, match=r"table\.txt: ends in '\.txt'"):
        steadiness.write(tmp_path / "table.txt")


def test_memory_does_not_grow_with_the_frames(talking_head, report):
    held = []

    def watched():
        tracemalloc.start()
        for i, frame in enumerate(talking_head(count=30)):
            yield frame
            if i in (9, 29):
                held.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()

    report(watched())
    frame = 256 * 256 * 3
    assert abs(held[1] - held[0]) < 2 * frame
