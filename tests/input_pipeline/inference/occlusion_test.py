import dataclasses

import cv2
import numpy as np
import pytest

from input_pipeline.inference import aligners, occlusion
from input_pipeline.inference.subject import read_subject


@pytest.fixture(scope="module")
def people(portrait_picture, talking_head_clips, landmarker):
    """Two people, each with painted masks: hair all round the face, a hat down to the brows."""
    source = read_subject(portrait_picture, 128, landmarker)
    other = read_subject(talking_head_clips / "cool.mp4", 128, landmarker)
    return [(subject, *paint(subject)) for subject in (source, other)]


def paint(subject):
    points = subject.keypoints[:, :2]
    (left, top), (right, bottom) = points.min(0), points.max(0)
    y, x = np.indices(subject.image.shape[:2])
    face = cv2.fillConvexPoly(
        np.zeros(y.shape, np.uint8), cv2.convexHull(points.round().astype(np.int32)), 1
    )
    beside = 0.25 * (right - left)
    hair = (x > left - beside) & (x < right + beside) & (y > top - 20) & (y < bottom) & (face == 0)
    hat = (x > left - 6) & (x < right + 6) & (y < top + 6) & (y > top - 14)
    return hair, hat


def test_hair_does_not_show_where_somebody_elses_hat_will_lie(people):
    (hatted, _, hat), (haired, hair, _) = people
    left, kept_hat = occlusion.uncovered([(haired, "hair"), (hatted, "hat")], [hair, hat])
    laid = aligners.geometric(hatted, "hat", hat, haired)
    assert (hair & laid).sum() > 100 and not (left & laid).any()
    np.testing.assert_array_equal(kept_hat, hat)
    assert not (left & ~hair).any()
    # The head of this photo is upright to a few degrees: below the hat nothing changes.
    lowest = np.nonzero(laid.any(1))[0].max() + 8
    np.testing.assert_array_equal(left[lowest:], hair[lowest:])
    assert left[lowest:].sum() > 500


def test_hair_above_a_hat_is_pressed_down_even_over_a_hole_in_its_mask(people):
    (hatted, _, hat), (haired, hair, _) = people
    middle, hat = int(hatted.keypoints[10, 0]), hat.copy()
    hat[:, middle - 3 : middle + 3] = False
    left = occlusion.uncovered([(haired, "hair"), (hatted, "hat")], [hair, hat])[0]
    laid = aligners.geometric(hatted, "hat", hat, haired)
    columns = np.nonzero(laid.any(0))[0]
    inside = np.s_[: np.nonzero(laid.any(1))[0].min(), columns.min() + 8 : columns.max() - 8]
    assert hair[inside].sum() > 100 and not left[inside].any()
    x, top = haired.keypoints[10, :2].astype(int)
    assert hair[top - 12 : top, x].any() and not left[top - 12 : top, x].any()


def test_above_is_where_the_head_points(people):
    (_, _, _), (haired, hair, hat) = people
    size = len(hair)
    middle = (size - 1) / 2
    matrix = cv2.getRotationMatrix2D((middle, middle), 50, 1)

    def turned(mask):
        return cv2.warpAffine(np.float32(mask), matrix, (size, size)) > 0.5

    points = haired.keypoints.copy()
    points[:, :2] = points[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    tilted = dataclasses.replace(haired, keypoints=points.astype(np.float32))
    hatted = dataclasses.replace(haired, path=haired.path.with_name("another.png"))
    upright = occlusion.uncovered([(haired, "hair"), (hatted, "hat")], [hair, hat])[0]
    tilt = occlusion.uncovered([(tilted, "hair"), (hatted, "hat")], [turned(hair), hat])[0]
    seen = turned(np.ones_like(hair))
    expected = turned(upright) & seen
    assert (tilt & expected).sum() / ((tilt & seen) | expected).sum() > 0.95


@pytest.mark.parametrize("kinds", [("hair", "glasses"), ("beard", "hat"), ("beard", "hair")])
def test_other_kinds_leave_each_other_alone(people, kinds):
    (one, _, hat), (other, hair, _) = people
    left = occlusion.uncovered([(one, kinds[0]), (other, kinds[1])], [hair, hat])
    np.testing.assert_array_equal(left, [hair, hat])


def test_one_photo_that_gives_both_has_its_own_order(people):
    (subject, hair, hat), _ = people
    left = occlusion.uncovered([(subject, "hair"), (subject, "hat")], [hair, hat])
    np.testing.assert_array_equal(left, [hair, hat])
