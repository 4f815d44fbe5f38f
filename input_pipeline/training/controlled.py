"""Training samples of systems that follow pictures of the driver."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np

from input_pipeline.dataset.donors import NOBODY, Donors
from input_pipeline.dataset.records import Chunk, decode_frame
from input_pipeline.errors import InputError
from input_pipeline.media.pictures import resize
from input_pipeline.motion import control_pictures
from input_pipeline.training.augmentation import augment, jitter_matrix, warp
from input_pipeline.training.transforms import SampleOptions, choose_frames

CONTROLS = ("auto", "track", "self")


@dataclasses.dataclass(frozen=True)
class ControlledOptions(SampleOptions):
    """As SampleOptions; what that says of attributes and masks is not used.

    The control pictures are those of the record's control track, or the target frames in other
    colours. Both kinds are stretched each by itself, and differently across and down, or the result
    would take the driver's face shape.

    Attributes, beside those of `SampleOptions`:
      control: "track" takes the control track, which the data set must have; "self" the target
        frames; "auto" the track where there is one, else the target frames.
      control_scale: largest stretch of width and of height, 0.25 for 1 / 1.25 to 1.25.
      control_shift: largest shift, as a share of the side.
    """

    control: str = "auto"
    control_scale: float = 0.25
    control_shift: float = 0.05

    def __post_init__(self):
        super().__post_init__()
        if self.control not in CONTROLS:
            raise InputError(f"data.control is {self.control!r}: choose {', '.join(CONTROLS)}")
        for name in ("control_scale", "control_shift"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"data.{name} is {getattr(self, name):g}: use 0 to below 1")

    def check(self, path: str | Path, metadata: dict) -> None:
        """See `SampleOptions.check`."""
        if self.control == "track" and not metadata.get("control"):
            raise InputError(
                f"{path}: no control track, which data.control = 'track' asks for: make the data "
                "set again with its option control, or set data.control to 'auto'"
            )

    def make(self, chunk: Chunk, rng: np.random.Generator, donors: Donors = NOBODY) -> dict:
        """One training sample: the batch contract of X-Portrait without batch axis and `id`.

        Returns:
          video uint8 [F, H, W, 3]; portrait uint8 [H, W, 3], another frame of the clip; control,
          local_control uint8 [F, H, W, 3].

        Raises:
          ValueError: the chunk is broken or too short for F target frames and a reference.
        """
        del donors
        target, candidates = choose_frames(len(chunk.frames), self, rng)
        portrait = self.portrait(chunk, int(candidates[0]), rng)
        video, whole, keypoints = self.driven(chunk, target, rng)
        points = control_pictures.landmarks(keypoints)
        local = [control_pictures.local_picture(*pair) for pair in zip(whole, points)]
        return {
            "video": np.stack(video),
            "portrait": portrait,
            "control": self.stretched(whole, rng),
            "local_control": self.stretched(local, rng),
        }

    def portrait(self, chunk: Chunk, frame: int, rng: np.random.Generator) -> np.ndarray:
        """A frame as the portrait, uint8 [H, W, 3]."""
        nothing = np.zeros((self.size, self.size), np.float32)
        picture = resize(decode_frame(chunk.frames[frame]), self.size)
        ranges = self.ranges("portrait")
        return augment(picture, nothing, ranges, rng, cv2.BORDER_REFLECT_101)[0]

    def driven(
        self, chunk: Chunk, target: np.ndarray, rng: np.random.Generator
    ) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
        """The target frames, who drives them, uint8 [H, W, 3] each, and the latter's keypoints
        [F, 478, 3], in pixels of the sample."""
        first = decode_frame(chunk.frames[target[0]])
        video = [resize(first, self.size)]
        video += [resize(decode_frame(chunk.frames[i]), self.size) for i in target[1:]]
        if self.control == "self" or chunk.control is None:
            colours, keypoints = jitter_matrix(self, rng), chunk.keypoints
            drivers = [cv2.transform(frame, colours) for frame in video]
        else:
            keypoints, frames = chunk.control.keypoints, chunk.control.frames
            drivers = [resize(decode_frame(frames[i]), self.size) for i in target]
        scale = self.size / len(first)
        return video, drivers, (keypoints[target] + 0.5) * scale - 0.5

    def stretched(self, pictures: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        """All pictures by one random stretch and shift; black where there is nothing."""
        reach = np.log1p(self.control_scale)
        scale = np.exp(rng.uniform(-reach, reach, 2))
        shift = rng.uniform(-self.control_shift, self.control_shift, 2) * self.size
        centre = (self.size - 1) / 2
        matrix = np.column_stack([np.diag(scale), (1 - scale) * centre + shift])
        return np.stack(
            [warp(picture, matrix, self.size, cv2.BORDER_CONSTANT) for picture in pictures]
        )
