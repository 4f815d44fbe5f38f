"""Painted chunks: pictures whose every pixel is known, for tests of what happens to them."""

import cv2
import numpy as np
import pytest

from input_pipeline.dataset import records, shards

SIZE = 64
HAIR = (255, 0, 255)


def _paint(index: int, frame: int) -> tuple[np.ndarray, np.ndarray]:
    """A grey face under magenta hair; the red of the background tells the frame."""
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    image[:] = (4 * frame, 60, 10 * (index % 20))
    x = 32 + int(6 * np.sin(frame / 4))
    cv2.circle(image, (x, 36), 14, (128, 128, 128), -1)
    hair = np.zeros((SIZE, SIZE), np.uint8)
    cv2.ellipse(hair, (x, 24), (15, 9), 0, 0, 360, 1, -1)
    image[hair > 0] = HAIR
    return image, hair > 0


@pytest.fixture(scope="session")
def painted_chunk():
    """A function of (index, frames=60) to a Chunk whose hair is pure magenta."""

    def make(index: int = 0, frames: int = 60) -> records.Chunk:
        painted = [_paint(index, frame) for frame in range(frames)]
        face = np.random.default_rng(index).uniform(-10, 10, (478, 3))
        return records.Chunk(
            frames=[records.encode_frame(image) for image, _ in painted],
            fps=25.0,
            keypoints=np.stack([face + [32 + 6 * np.sin(f / 4), 36, 0] for f in range(frames)])
            .astype(np.float32),
            found=np.ones(frames, bool),
            masks={"hair": [records.encode_mask(hair) for _, hair in painted]},
            clip=f"clip{index}.mp4",
            identity=f"person{index}",
            start=0,
            crop=np.array([100, 100, 200], np.float32),
            tools={"painter": "1"},
        )  # fmt: skip

    return make


@pytest.fixture(scope="session")
def write_painted(painted_chunk, tmp_path_factory, damage):
    """A function of (count, corrupt indices) to a data set; corrupt records are garbage bytes."""

    def write(count: int, corrupt: tuple[int, ...] = ()) -> shards.Dataset:
        path = tmp_path_factory.mktemp("painted") / "dataset"
        encoded = [records.encode(painted_chunk(i, 30), SIZE) for i in range(count)]
        shards.write_dataset(path, {"train": encoded}, SIZE, {})
        damage(path, corrupt)
        return shards.Dataset(path)

    return write
