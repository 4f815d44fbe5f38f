"""Metrics of motion: do face, head, eyes and mouth move as they should?

Lengths are measured in eye distances: `geometry.head_pose`'s unit, the distance of the outer eye
corners of the head, turned or not. Keypoints are compared in the picture, x and y.
"""

import dataclasses

import numpy as np

from input_pipeline.faces import geometry
from input_pipeline.faces.landmarker import Track

_LIDS = ((159, 145), (386, 374))  # upper and lower, middle of each eye
_INNER_LIPS = (13, 14)


@dataclasses.dataclass(frozen=True)
class MissingFace:
    """What a frame without a face in the prediction costs, in the unit of each error."""

    keypoints: float
    pose: float
    blink: float
    mouth: float


def errors(
    track: Track, reference: np.ndarray, usable: np.ndarray, missing: MissingFace
) -> dict[str, float]:
    """Mean errors over the frames whose reference face is known.

    Args:
      track: the face in the prediction, F frames.
      reference: float [F, 478, 3], where it should be. usable: bool [F], where that is known.
      missing: the errors of a frame in which the prediction shows no face.

    Returns:
      keypoints: mean distance of the 478 points, eye distances.
      pose: mean absolute difference of yaw, pitch and roll, degrees.
      blink, mouth: mean absolute difference of the openings, eye distances.
      no_face: share of frames in which the prediction shows no face.
      NaN if no frame is usable.
    """
    if not usable.any():
        return dict.fromkeys(("keypoints", "pose", "blink", "mouth", "no_face"), float("nan"))
    found = track.found[usable]
    reference = reference[usable].astype(np.float64)
    # A missing face is given any keypoints here, and its penalty below.
    predicted = np.where(found[:, None, None], track.keypoints[usable], reference)
    turn, scale, _ = geometry.head_pose(predicted)
    true_turn, true_scale, _ = geometry.head_pose(reference)
    distance = np.linalg.norm((predicted - reference)[..., :2], axis=-1).mean(-1) / true_scale
    gap = geometry.euler_angles(turn) - geometry.euler_angles(true_turn)
    angles = np.abs((gap + 180) % 360 - 180).mean(-1)
    eyes, mouth = openings(predicted, scale)
    true_eyes, true_mouth = openings(reference, true_scale)
    values = {
        "keypoints": distance,
        "pose": angles,
        "blink": np.abs(eyes - true_eyes).mean(-1),
        "mouth": np.abs(mouth - true_mouth),
    }
    penalties = dataclasses.asdict(missing)
    means = {
        name: float(np.where(found, value, penalties[name]).mean())
        for name, value in values.items()
    }
    return means | {"no_face": float(1 - found.mean())}


def openings(keypoints: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance of the lids of both eyes [F, 2], and of the inner lips [F], in eye distances."""

    def distance(first: int, second: int) -> np.ndarray:
        apart = keypoints[:, first, :2] - keypoints[:, second, :2]
        return np.linalg.norm(apart, axis=-1) / scale

    return np.stack([distance(*pair) for pair in _LIDS], -1), distance(*_INNER_LIPS)
