"""Second by second: does a long video keep its face, and does it flicker? Needs no weights."""

import csv
import dataclasses
from fractions import Fraction
from pathlib import Path

import numpy as np

from durian_jax.metrics import pixels
from input_pipeline.faces import geometry
from input_pipeline.faces.landmarker import FaceLandmarker, Follower
from input_pipeline.media import files


@dataclasses.dataclass(frozen=True)
class Second:
    """What was seen in one second of a video.

    Attributes:
      second: from 0.
      frames: how many began in it.
      faces: share of them in which the face was found, 0 .. 1.
      identity: how far the shape of the face is from the portrait's, % of the eye distance, mean
        over these frames; NaN without any. See `Steadiness`.
      flicker: `pixels.warping_error` of its frames, each with the one before it, mean, 0 .. 1; NaN
        for the first frame alone.
    """

    second: int
    frames: int
    faces: float
    identity: float
    flicker: float


class Steadiness:
    """The report of a video, frame by frame, in memory that does not grow with the frames.

    Identity is the mean distance of points that expressions hardly move (`geometry.RIGID`) from the
    portrait's, both in the axes and units of their own head (`geometry.head_pose`). In 19 filmed
    clips, seconds against the clip's own first frame: median 1.3 (90 % below 2.1); against another
    person's: median 2.7 (90 % above 1.8). A turned head raises it, too: 1.1 within 3 degrees, 2.0
    at 15 to 30. So read it along a video, and beside that of its driver.

    Args:
      portrait: float [478, 3], keypoints of the portrait, pixels of any picture.
      fps: frames per second.
    """

    def __init__(self, portrait: np.ndarray, fps: Fraction, landmarker: FaceLandmarker):
        self._shape, self._fps = _shape(portrait), Fraction(fps)
        self._follow, self._last, self._count = Follower(landmarker), None, 0
        self._seconds: list[_Sums] = []

    def add(self, frame: np.ndarray) -> None:
        """Takes the next frame, uint8 [S, S, 3]."""
        while self._count // self._fps >= len(self._seconds):
            self._seconds.append(_Sums())
        sums = self._seconds[-1]
        sums.frames += 1
        keypoints = self._follow(frame)
        if keypoints is not None:
            distance = np.linalg.norm(_shape(keypoints) - self._shape, axis=-1).mean()
            sums.faces += 1
            sums.identity += 100 * float(distance)
        scaled = frame / np.float32(255)
        if self._last is not None:
            sums.pairs += 1
            sums.flicker += pixels.warping_error(self._last, scaled)
        self._last = scaled
        self._count += 1

    def rows(self) -> list[Second]:
        """One for each second so far."""
        return [
            Second(
                second=number,
                frames=sums.frames,
                faces=_ratio(sums.faces, sums.frames),
                identity=_ratio(sums.identity, sums.faces),
                flicker=_ratio(sums.flicker, sums.pairs),
            )
            for number, sums in enumerate(self._seconds)
        ]

    def write(self, path: str | Path) -> None:
        """The rows as CSV, what is not known left empty. Raises InputError: cannot be written."""
        path = Path(path)
        files.check_output(path, ".csv")
        with files.written_beside(path) as beside, beside.open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(field.name for field in dataclasses.fields(Second))
            for row in self.rows():
                numbers = (row.faces, row.identity, row.flicker)
                cells = ("" if np.isnan(number) else f"{number:.5g}" for number in numbers)
                table.writerow([row.second, row.frames, *cells])


@dataclasses.dataclass
class _Sums:
    frames: int = 0
    faces: int = 0
    identity: float = 0.0
    pairs: int = 0
    flicker: float = 0.0


def _shape(keypoints: np.ndarray) -> np.ndarray:
    """[15, 3]: the points that expressions hardly move, in the axes and units of the head."""
    keypoints = np.asarray(keypoints, np.float64)
    return geometry.pose_free(keypoints, *geometry.head_pose(keypoints))[list(geometry.RIGID)]


def _ratio(total: float, count: int) -> float:
    return total / count if count else float("nan")
