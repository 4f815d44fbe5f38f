import cv2
import numpy as np

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
