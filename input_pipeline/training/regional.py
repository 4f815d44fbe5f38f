"""Training samples of systems that follow eyes, nose and mouth of the driver, with a history."""

import dataclasses

import numpy as np

from input_pipeline.dataset.donors import NOBODY, Donors
from input_pipeline.dataset.records import Chunk
from input_pipeline.errors import InputError
from input_pipeline.motion.control_pictures import region_picture
from input_pipeline.training.controlled import ControlledOptions
from input_pipeline.training.transforms import choose_frames


@dataclasses.dataclass(frozen=True)
class RegionalOptions(ControlledOptions):
    """As ControlledOptions.

    Attributes, beside those:
      history: frames before the target, as many as the model looks back; 0 for none.
    """

    history: int = 0

    def __post_init__(self):
        super().__post_init__()
        if self.history < 0:
            raise InputError(f"data.history is {self.history}: use 0 or more")

    @property
    def least_frames(self) -> int:
        """That a record must have: history, target and two references."""
        return self.history + super().least_frames

    def make(self, chunk: Chunk, rng: np.random.Generator, donors: Donors = NOBODY) -> dict:
        """One training sample: the batch contract of Stable Video-Driven Portraits without batch
        axis and `id`.

        Returns:
          video uint8 [F, H, W, 3]; portrait uint8 [H, W, 3], another frame of the clip; driving
          uint8 [F, H, W, 3], black but for eyes, nose and mouth of who drives; with a history also
          history uint8 [H, H, W, 3], the frames before the video.

        Raises:
          ValueError: the chunk is broken or too short for all frames and a reference.
        """
        del donors
        whole = dataclasses.replace(self, frames=self.history + self.frames, history=0)
        target, candidates = choose_frames(len(chunk.frames), whole, rng)
        portrait = self.portrait(chunk, int(candidates[0]), rng)
        video, drivers, keypoints = self.driven(chunk, target, rng)
        shown = [region_picture(*pair) for pair in zip(drivers, keypoints)][self.history :]
        sample = {
            "video": np.stack(video[self.history :]),
            "portrait": portrait,
            "driving": self.stretched(shown, rng),
        }
        if self.history:
            sample["history"] = np.stack(video[: self.history])
        return sample
