"""Pictures whose mask is known: something red on grey, at another place in each frame."""

from pathlib import Path

import numpy as np
import pytest

from input_pipeline.faces.geometry import Crop
from input_pipeline.masks.segmenters import Pictures


@pytest.fixture
def red_on_grey():
    """A function of (count, size) to pictures and bool [T, S, S], where they are red."""

    def make(count: int, size: int = 64) -> tuple[Pictures, np.ndarray]:
        red = np.zeros((count, size, size), bool)
        for i in range(count):
            red[i, size // 8 : size // 2, size // 8 * (i % 4) : size // 8 * (i % 4) + size // 4] = 1
        images = np.where(red[..., None], np.uint8([250, 20, 20]), np.uint8([90, 90, 90]))
        keypoints = np.zeros((count, 478, 3), np.float32)
        pictures = Pictures(
            images, keypoints, Path("a/b.mp4"), np.arange(count), (size, size), Crop.whole(size)
        )
        return pictures, red

    return make
