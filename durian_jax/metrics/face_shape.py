"""Whose face is it? Shapes of faces without pose, and how far a result has gone to another's."""

import numpy as np

from input_pipeline.faces import geometry
from input_pipeline.motion.retarget import symmetric

# Points in which people differ more than one and a half times as much as a moving face differs
# from itself at rest, looking straight ahead: nose, inner corners of the eyes, cheeks, sides of
# the jaw. By the exact keypoints of 24 rendered people in 16 frames each.
_STEADY = (
    (26, 48, 49, 58, 93, 102, 112, 115, 126, 128, 129, 131, 132, 133, 138, 154, 155, 172, 189, 190)
    + (198, 209, 215, 232, 233, 243, 244, 256, 278, 279, 288, 323, 331, 341, 344, 355, 357, 358)
    + (360, 361, 362, 367, 381, 382, 397, 413, 414, 420, 429, 435, 452, 453, 463, 464)
)


def face_shape(keypoints: np.ndarray) -> np.ndarray:
    """float64 [54, 2]: where points that expressions hardly move lie in front view.

    In eye distances and the axes of `geometry.head_pose`; the median of the faces [T, 478, 3], in
    pixels and without NaN, made symmetric, because a turned head shows one side better.
    """
    shapes = geometry.pose_free(keypoints, *geometry.head_pose(keypoints))
    return symmetric(np.median(shapes, axis=0))[list(_STEADY), :2]


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Mean distance of the points of two shapes, in eye distances."""
    return float(np.linalg.norm(one - other, axis=-1).mean())


def leak(result: np.ndarray, portrait: np.ndarray, driver: np.ndarray) -> float:
    """How far a shape has gone from the portrait's, 0, to the driver's, 1.

    Its foot on the straight line between the two, clipped to these ends: what is neither's, such as
    noise of the keypoints, counts for neither. NaN if the two are the same.
    """
    way = driver - portrait
    length = (way**2).sum()
    if length == 0:
        return float("nan")
    return float(np.clip(((result - portrait) * way).sum() / length, 0, 1))
