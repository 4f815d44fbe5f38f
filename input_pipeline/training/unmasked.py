"""Training samples of systems that animate a portrait as it is, without attributes."""

import dataclasses

import cv2
import numpy as np

from input_pipeline.dataset.donors import NOBODY, Donors
from input_pipeline.dataset.records import Chunk, decode_frame
from input_pipeline.media.pictures import resize
from input_pipeline.training.augmentation import augment
from input_pipeline.training.transforms import SampleOptions, choose_frames


@dataclasses.dataclass(frozen=True)
class UnmaskedOptions(SampleOptions):
    """As SampleOptions; what that says of attributes and masks is not used."""

    def make(self, chunk: Chunk, rng: np.random.Generator, donors: Donors = NOBODY) -> dict:
        """One training sample: the batch contract of Animate Anyone without batch axis and `id`.

        Returns:
          video uint8 [F, H, W, 3]; keypoints float32 [F, 478, 2] in pixels of these frames;
          portrait uint8 [H, W, 3], another frame of the clip.

        Raises:
          ValueError: the chunk is broken or too short for F target frames and a reference.
        """
        del donors
        target, candidates = choose_frames(len(chunk.frames), self, rng)
        source = decode_frame(chunk.frames[int(candidates[0])])
        scale = self.size / source.shape[0]
        nothing = np.zeros((self.size, self.size), np.float32)
        portrait, _, _ = augment(
            resize(source, self.size), nothing, self.ranges("portrait"), rng,
            cv2.BORDER_REFLECT_101,
        )  # fmt: skip
        keypoints = (chunk.keypoints[target, :, :2] + 0.5) * scale - 0.5
        return {
            "video": np.stack([resize(decode_frame(chunk.frames[i]), self.size) for i in target]),
            "keypoints": keypoints.astype(np.float32),
            "portrait": portrait,
        }
