import cv2
import numpy as np
import pytest

from input_pipeline.training import augmentation
from input_pipeline.training.augmentation import Augmentation, augment

RANGES = Augmentation(size=64, jitter_probability=0.0)
SEEDS = range(20)


def test_jitter_without_range_changes_nothing_and_with_range_keeps_grey_grey():
    rng = np.random.default_rng(0)
    none = augmentation.jitter_matrix(Augmentation(size=64, jitter=0.0, hue=0.0), rng)
    np.testing.assert_allclose(none, np.eye(3, 4), atol=1e-12)
    some = augmentation.jitter_matrix(Augmentation(size=64), rng)
    grey = some @ [90, 90, 90, 1]
    np.testing.assert_allclose(grey, grey[0], atol=0.2)


def test_jitter_saturates():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    ranges = Augmentation(size=64, jitter=0.5)
    for seed in SEEDS:
        matrix = augmentation.jitter_matrix(ranges, np.random.default_rng(seed))
        exact = np.clip(image @ matrix[:, :3].T + matrix[:, 3], 0, 255)
        found = augmentation.jitter(image, ranges, np.random.default_rng(seed))
        np.testing.assert_allclose(found, exact, atol=1.01)


def test_affine_moves_picture_and_mask_together():
    image = np.zeros((64, 64, 3), np.uint8)
    image[20:40, 24:44] = 255
    mask = (image[..., 0] > 0).astype(np.float32)
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        moved, moved_mask, matrix = augment(image, mask, RANGES, rng, cv2.BORDER_CONSTANT)
        np.testing.assert_allclose(moved[..., 0] / 255, moved_mask, atol=0.02)
        # The square's centre is where the matrix takes it.
        weights = moved_mask / moved_mask.sum()
        centre = [(weights * axis).sum() for axis in np.meshgrid(np.arange(64), np.arange(64))]
        np.testing.assert_allclose(
            augmentation.move(np.array([33.5, 29.5]), matrix), centre, atol=0.6
        )


@pytest.mark.parametrize("margin", [24, 32])
def test_a_canvas_shows_the_same_picture_and_more_round_it(margin):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 128, (64, 64, 3), dtype=np.uint8)
    canvas = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), constant_values=255)
    mask = np.zeros((64, 64), np.float32)
    white = 0
    for seed in SEEDS:
        moved, inside, _ = augment(
            image, mask + 1, RANGES, np.random.default_rng(seed), cv2.BORDER_CONSTANT
        )
        rng = np.random.default_rng(seed)
        filled, _, _ = augment(canvas, mask, RANGES, rng, cv2.BORDER_CONSTANT)
        np.testing.assert_allclose(filled[inside == 1], moved[inside == 1], atol=1)
        assert (filled[inside == 0] == 255).all()
        white += (filled == 255).sum()
    assert white > 1000


def test_on_a_canvas_the_mask_goes_on_beyond_the_picture():
    mask = np.zeros((64, 64), np.float32)
    mask[40:, 20:44] = 1  # hair down to the picture's lower edge
    canvas = np.zeros((96, 96, 3), np.uint8)
    canvas[56:, 36:60] = 255  # and the out-painter went on with it
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        image, moved, _ = augment(canvas, mask, RANGES, rng, cv2.BORDER_REFLECT_101)
        assert (moved[image[..., 0] > 0] > 0).all()
