"""Faces on their side or head: photos and clips whose file does not say how to turn them."""

import itertools
from collections.abc import Iterable

import numpy as np

from input_pipeline.faces.landmarker import Face, FaceLandmarker

# The detector knows upright faces best. On 38 portraits and clips the largest face scored at least
# 0.68 upright, and 0.03 to 0.2 less in every other turn of the picture.
_SURE = 0.68
_MARGIN = 0.02
_LEAST = 0.64  # for a turn to be believed: in noise the detector finds faces of up to 0.62
_LOOKS, _STEP, _PATIENCE = 3, 5, 100  # frames looked at, every so many, of so many


def turns(frames: Iterable[np.ndarray], landmarker: FaceLandmarker) -> int:
    """Quarter turns that set the face upright, 0 to 3, counterclockwise as in np.rot90.

    frames: of a clip, of which the first few that show a face are looked at; or one photo. 0 where
    no face is surely found, however it is turned.
    """
    total, looks = np.zeros(4), 0
    for image in itertools.islice(frames, 0, _PATIENCE, _STEP):
        scores = [0.0] * 4
        for k in range(4):
            if faces := landmarker.detect(turn(image, k)):
                if k == 0 and _surely_upright(faces[0]):
                    return 0
                scores[k] = faces[0].score
        if any(scores):
            total += scores
            looks += 1
        if looks == _LOOKS:
            break
    best = int(total.argmax())
    least = max(total[0] + _MARGIN * looks, _LEAST * looks)
    return best if total[best] > least else 0


def turn(image: np.ndarray, turns: int) -> np.ndarray:
    """np.rot90 as an array of its own."""
    return np.ascontiguousarray(np.rot90(image, turns))


def describe(turns: int) -> str:
    """How the face stands that needs so many quarter turns, at least one."""
    return ("", "lies on its side", "stands on its head", "lies on its side")[turns]


def note(turns: int) -> str:
    """What was done."""
    how = ("", "90 degrees to the left", "180 degrees", "90 degrees to the right")[turns]
    return f"the face {describe(turns)}: turned by {how}"


def _surely_upright(face: Face) -> bool:
    return face.score >= _SURE and abs(face.region.angle) < np.pi / 4
