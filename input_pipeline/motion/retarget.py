"""The driver's motion on the portrait's own face: pose, expression, contact, smoothing.

A face is split into where the head is (`geometry.head_pose`) and its pose-free shape. The driver's
changes of shape are added to the portrait's shape, scaled by the ratio of the faces' sizes, so the
portrait keeps its bones. What must meet is then made to meet: lids and lips are opened as far as
the driver opens his, measured against his own face, so that a blink and a closed mouth close on any
other face. Last the head is posed again; it turns about the top of the neck.
"""

import functools
from pathlib import Path

import numpy as np

from input_pipeline.faces import geometry
from input_pipeline.faces.landmarker import EYES

MOTIONS = ("relative", "absolute")

# The top of the neck, about which heads turn, in the axes and units of `geometry.head_pose`: fitted
# to how the heads of ten clips move as they turn (least squares over 0.4 s, median).
_NECK = np.array([0.0, 0.6, 1.0])
# How the pose-free face moves as the mouth opens by 1 unit: regression over the tracks of 18 clips,
# made symmetric.
_ASSETS = Path(__file__).parents[1] / "assets"
_JAW = np.load(_ASSETS / "jaw.npy").astype(np.float64)
_MIRRORED = np.array([-1, 1, 1])
# Points that meet when an eye or the mouth closes: upper, lower.
_LIDS = (
    ((246, 161, 160, 159, 158, 157, 173), (7, 163, 144, 145, 153, 154, 155)),
    ((466, 388, 387, 386, 385, 384, 398), (249, 390, 373, 374, 380, 381, 382)),
)
_LIPS = ((191, 80, 81, 82, 13, 312, 311, 310, 415), (95, 88, 178, 87, 14, 317, 402, 318, 324))
# The rest of the lower lip, from the opening to its lower edge, below the same places.
_LOWER_LIP = (
    (96, 89, 179, 86, 15, 316, 403, 319, 325),
    (77, 90, 180, 85, 16, 315, 404, 320, 307),
    (146, 91, 181, 84, 17, 314, 405, 321, 375),
)
_MIDDLE = 4  # of the lips
# What the landmarker sees of closed eyes (of the eye's width) and closed lips (eye distances).
_CLOSED_EYE, _CLOSED_LIPS = 0.12, 0.03
_STEEPEST = 4
_BLINK = 0.6  # eyes opened less than this, of the clip's median, are in a blink
_OPEN_EYE = 0.25  # eyes opened less than this, of their width, do not show how open they can be
_PIECE = 500  # frames that are worked on at a time; see smoothing


def retarget(driver: np.ndarray, portrait: np.ndarray, motion: str = "relative") -> np.ndarray:
    """The driver's head motion and expression on the portrait's own face.

    "relative": all is measured against the driver's first frame, so that frame 0 is the portrait
    itself (but for a blink: eyes that are closed there stay closed). The rotation is composed, as
    seen from the camera; the size is multiplied; the top of the neck moves as the driver's, in face
    sizes; expressions are added.

    "absolute": the head turns as the driver's does and the face shows his expression, measured
    against his neutral face (`neutral`). Opening of mouth and eyes and gaze replace the portrait's
    own; a smile of the portrait stays, because one photo does not tell it from its shape. Place and
    size are the portrait's and vary, in face sizes, as the driver's do about their medians: where
    he sits in his picture says nothing about the portrait's.

    driver: [T, 478, 3], portrait: [478, 3], both without NaN, each in its own pixels.
    Returns float32 [T, 478, 3] in the portrait's pixels.
    """
    turn, size, place = geometry.head_pose(driver)
    own_turn, own_size, own_place = geometry.head_pose(portrait)
    moving = geometry.pose_free(driver, turn, size, place)
    own = geometry.pose_free(portrait, own_turn, own_size, own_place)
    if motion == "relative":
        still = moving[0]
        new_turn = turn @ turn[0].T @ own_turn
        new_size = own_size * size / size[0]
        neck = place + size[:, None] * (turn @ _NECK)
        own_neck = own_place + own_size * own_turn @ _NECK
        new_neck = own_neck + (neck - neck[0]) * own_size / size[0]
        new_place = new_neck - new_size[:, None] * (new_turn @ _NECK)
    else:
        # What one photo of a turned head shows of its shape is lopsided.
        still, own = symmetric(neutral(moving)), symmetric(own)
        ratio = own_size / np.median(size)
        new_turn, new_size = turn, ratio * size
        new_place = _middle(portrait[None]) + ratio * (place - _middle(driver))
    usual = [np.median(_opening(moving, *lids), 0) for lids in _LIDS]
    result = np.empty(driver.shape, np.float32)
    for start in range(0, len(driver), _PIECE):
        now = slice(start, start + _PIECE)
        face = _express(moving[now], still, own, usual, motion)
        result[now] = geometry.posed(face, new_turn[now], new_size[now], new_place[now])
    return result


def ease_to(portrait: np.ndarray, target: np.ndarray, frames: int) -> np.ndarray:
    """The portrait [478, 3] moving into a target [478, 3] of the same face, slow at both ends.

    Returns float32 [frames, 478, 3]; the last is the target, and so is the only one.
    """
    time = np.linspace(1, 0, frames)[::-1]
    weight = (time * time * (3 - 2 * time))[:, None, None]
    ends = np.stack([portrait, target])
    turn, size, place = geometry.head_pose(ends)
    shape = geometry.pose_free(ends, turn, size, place)

    def between(pair: np.ndarray) -> np.ndarray:
        return (1 - weight) * pair[0] + weight * pair[1]

    return geometry.posed(
        between(shape),
        geometry.nearest_rotation(between(turn)),
        between(size.reshape(2, 1, 1))[:, 0, 0],
        between(place[:, None])[:, 0],
    )


def neutral(shapes: np.ndarray) -> np.ndarray:
    """[478, 3]: the calm face among pose-free shapes [T, 478, 3].

    The median of the frames with the least open mouth, a quarter of those with open eyes: people
    speak and blink, but between it they close the mouth. Whoever smiles all the time is taken to
    look like that.
    """
    eyes = np.mean([_opening(shapes, *lids).mean(-1) for lids in _LIDS], 0)
    mouth = _opening(shapes, *_LIPS)[:, _MIDDLE]
    mouth = np.where(eyes >= np.percentile(eyes, 40), mouth, np.inf)
    calm = np.argsort(mouth, kind="stable")[: max(1, len(shapes) * 3 // 20)]
    return np.median(shapes[calm], 0)


def _express(moving, still, own, usual, motion: str) -> np.ndarray:
    """[T, 478, 3]: the portrait's pose-free shape with the change from `still` to `moving`.

    usual: [7] for each eye, the median opening over the whole clip.
    """
    ratio = _face_size(own) / _face_size(still)
    face = own + ratio * (moving - still)
    # The mouth: first with the jaw, as far as its middle opens, then the lips all along.
    wide = _mapped(
        ratio[1] * _opening(moving, *_LIPS),
        ratio[1] * _opening(still, *_LIPS),
        _opening(own, *_LIPS) if motion == "relative" else ratio[1] * _opening(still, *_LIPS),
        _CLOSED_LIPS,
    )
    more = (wide - _opening(face, *_LIPS))[:, _MIDDLE]
    face += more[:, None, None] * _JAW
    more = wide - _opening(face, *_LIPS)
    for row in (_LIPS[1], *_LOWER_LIP):
        face[:, row, 1] += more
    for lids, median, (outer, inner, iris, _) in zip(_LIDS, usual, EYES):
        own_middle, own_width = _eye(own, outer, inner)
        middle, width = _eye(still, outer, inner)
        scale = own_width / width
        opening = scale * _opening(moving, *lids)
        start, goal = scale * _opening(still, *lids), _opening(own, *lids)
        calm = scale[0] * median
        if start.mean() < _BLINK * calm.mean():
            start = calm
        least = _OPEN_EYE * own_width
        if motion == "absolute" and min(start.max(), goal.max()) < least:
            goal = start
        wide = _mapped(opening, start, goal, _CLOSED_EYE * own_width)
        face[:, lids[0], 1] -= wide - _opening(face, *lids)
        # The irises keep their place between the corners of the eye.
        ring = slice(iris, iris + 5)
        moving_middle, moving_width = _eye(moving, outer, inner)
        gaze = (moving[:, ring] - moving_middle) / moving_width
        if motion == "relative":
            gaze += (own[ring] - own_middle) / own_width - (still[ring] - middle) / width
        new_middle, new_width = _eye(face, outer, inner)
        face[:, ring] = new_middle + new_width * gaze
    return face


def _mapped(opening, start, goal, closed: float) -> np.ndarray:
    """[T, n]: what the driver's openings [T, n] are on the portrait's face; monotone.

    `start` [n] becomes `goal` [n], what is closed stays as it is, and between them openings are in
    proportion. Beyond `start` they are added; so they are below it where it lies so near to contact
    that closing would be magnified, but never below contact.
    """
    contact = np.minimum(np.minimum(start, goal), closed)
    added = np.maximum(goal + opening - start, 0)
    steep = goal - contact >= _STEEPEST * (start - contact)
    slope = (goal - contact) / np.where(steep, 1, start - contact)
    closing = np.where(opening < contact, opening, contact + slope * (opening - contact))
    return np.where(steep | (opening > start), added, closing)


def _middle(keypoints: np.ndarray) -> np.ndarray:
    """[3]: median of the middles of the faces' boxes [T, 478, 3]."""
    return np.median((keypoints.min(1) + keypoints.max(1)) / 2, 0)


def symmetric(shape: np.ndarray) -> np.ndarray:
    """[478, 3]: the mean of a pose-free face and its mirror image."""
    return (shape + shape[_mirrored_indices()] * _MIRRORED) / 2


@functools.cache
def _mirrored_indices() -> np.ndarray:
    """int [478]: for each point that on the other side of the face."""
    mean = np.load(_ASSETS / "head_mesh.npy")
    return ((mean[:, None] - mean * _MIRRORED) ** 2).sum(-1).argmin(1)


def _opening(shape: np.ndarray, upper: tuple, lower: tuple) -> np.ndarray:
    """[..., n]: how far each lower point lies below its upper point."""
    return shape[..., lower, 1] - shape[..., upper, 1]


def _face_size(head: np.ndarray) -> np.ndarray:
    """[3]: width, height (forehead to nose, which the jaw leaves alone), width again for z."""
    width, height = head[454, 0] - head[234, 0], head[2, 1] - head[10, 1]
    return np.array([width, height, width])


def _eye(head: np.ndarray, outer: int, inner: int) -> tuple[np.ndarray, np.ndarray]:
    middle = (head[..., [outer], :] + head[..., [inner], :]) / 2
    width = np.linalg.norm(head[..., [outer], :] - head[..., [inner], :], axis=-1, keepdims=True)
    return middle, width
