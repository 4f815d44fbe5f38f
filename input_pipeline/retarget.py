"""The driver's head motion and expression on another face."""

import numpy as np

from input_pipeline import faces
from input_pipeline.landmarker import EYES


def retarget(driver: np.ndarray, portrait: np.ndarray) -> np.ndarray:
    """The driver's head motion and expression on the portrait's own face.

    All motion is relative to the driver's first frame, so that frame 0 is the portrait itself: the
    rotation is composed, as seen from the camera; the scale is multiplied; the translation is
    measured in face sizes. Expression is the change of the pose-free face, scaled by the ratio of
    the faces' widths and heights; the irises keep their place between the eye corners.

    driver: [T, 478, 3], portrait: [478, 3], both without NaN, each in its own pixels.
    Returns float32 [T, 478, 3] in the portrait's pixels.
    """
    turn, size, place = faces.head_pose(driver)
    own_turn, own_size, own_place = faces.head_pose(portrait)
    moving = _pose_free(driver, turn, size, place)
    still = _pose_free(portrait, own_turn, own_size, own_place)
    face = still + _face_size(still) / _face_size(moving[0]) * (moving - moving[0])
    for outer, inner, iris, _ in EYES:
        ring = slice(iris, iris + 5)

        def gaze(head, outer=outer, inner=inner, ring=ring):
            middle, width = _eye(head, outer, inner)
            return (head[..., ring, :] - middle) / width

        middle, width = _eye(face, outer, inner)
        face[:, ring] = middle + width * (gaze(still) + gaze(moving) - gaze(moving[0]))
    turn = turn @ turn[0].T @ own_turn
    place = own_place + (place - place[0]) * own_size / size[0]
    size = own_size * size / size[0]
    posed = size[:, None, None] * face @ turn.swapaxes(1, 2) + place[:, None]
    return posed.astype(np.float32)


def _pose_free(keypoints, rotation, scale, translation) -> np.ndarray:
    """[..., 478, 3] in the head's own axes and units."""
    return (keypoints - translation[..., None, :]) @ rotation / scale[..., None, None]


def _face_size(head: np.ndarray) -> np.ndarray:
    """[3]: width, height (forehead to nose, which the jaw leaves alone), width again for z."""
    width, height = head[454, 0] - head[234, 0], head[2, 1] - head[10, 1]
    return np.array([width, height, width])


def _eye(head: np.ndarray, outer: int, inner: int) -> tuple[np.ndarray, np.ndarray]:
    middle = (head[..., [outer], :] + head[..., [inner], :]) / 2
    width = np.linalg.norm(head[..., [outer], :] - head[..., [inner], :], axis=-1, keepdims=True)
    return middle, width
