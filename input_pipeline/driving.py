"""Whoever drives: a clip, tracked."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from input_pipeline import faces, video
from input_pipeline.errors import InputError


@dataclass(frozen=True)
class Motion:
    """How the driver moves.

    Attributes:
      keypoints: float32 [F, 478, 3], pixels of the clip's own frames.
      crop: a steady square around the driver's head.
      fps: frames per second.
      bridged: number of frames whose keypoints were interpolated.
    """

    path: Path
    keypoints: np.ndarray
    crop: faces.Crop
    fps: Fraction
    bridged: int
    face_count: int

    def frames(self, size: int) -> Iterator[np.ndarray]:
        """The driver's cropped frames, uint8 [size, size, 3]."""
        for frame in video.read_frames(self.path):
            yield self.crop.apply(frame, size)


def read_motion(path: str | Path, landmarker: faces.FaceLandmarker, framed: bool = False) -> Motion:
    """Tracks the driver's face; see `inputs.read_scene` for `framed`.

    Raises InputError for a bad clip, or one that loses the face.
    """
    info = video.probe(path)
    track = landmarker.track(video.read_frames(path))
    keypoints, usable = faces.fill_gaps(track)
    if not track.found.any():
        raise InputError(f"{path}: no face found in {len(usable)} frames: use another clip")
    if not usable.all():
        lost = int(np.argmin(usable))
        raise InputError(
            f"{path}: frame {lost} ({float(lost / info.fps):.1f} s): the face is lost there, and "
            "for too long to interpolate: cut the clip so that the face is always in view"
        )
    crop = faces.steady_crop(path, keypoints, info.height, info.width, framed)
    bridged = int((~track.found).sum())
    return Motion(Path(path), keypoints, crop, info.fps, bridged, track.face_count)
