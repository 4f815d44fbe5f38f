"""An attribute mask carried from one head to another in three dimensions.

Stands in for the paper's Face Aligner (an image-to-3D head avatar): the mask is laid on a proxy of
the source's head, posed by its 478 keypoints, and seen again on the portrait's. The proxy is the
face mesh in front and an ellipsoid for skull and hair. Everything is a map from portrait pixels to
source pixels, so that the result has no holes:

- what the portrait shows of the proxy and the source shows, too, is looked up where it lies;
- what the source hides (the far side of a turned head) takes the value of the nearest rim;
- what reaches beyond the ellipsoid (volume, buns, long hair) is rim there and stays rim here, at
  the same distance from the head.

Lengths are in outer-canthal distances, the unit of `geometry.head_pose`.
"""

from typing import NamedTuple

import cv2
import numpy as np

from input_pipeline.errors import InputError
from input_pipeline.faces import geometry

_GRID = 32  # points a side at which the map is computed; 64 move an outline by 0.4 % of the area
# Keypoints that carry the shape of the face: contour, brows, eyes, nose, lips, cheeks.
_ANCHORS = (
    (10, 297, 284, 389, 454, 361, 397, 378, 152, 149, 172, 132, 234, 162, 54, 67, 70, 105, 107)
    + (300, 334, 336, 33, 133, 159, 145, 263, 362, 386, 374, 168, 195, 4, 2, 98, 327, 61, 291, 0)
    + (17, 205, 425, 116, 345, 9, 151, 200)
)
# Centre and half-axes of the ellipsoid in the head's axes (right, down, away), hair included.
_CENTRE, _AXES = np.array([0.0, 0.0, 1.0]), np.array([0.95, 1.3, 1.05])
_BLEND = 0.14  # width over which neighbouring keypoints are averaged
_FADE = 0.2  # width over which the face's shape fades out beside the face


class _Layer(NamedTuple):
    """Where an attribute lies.

    reach: the face mesh counts up to so far from the nearest keypoint; beyond it, and where the
    ellipsoid is in front, the ellipsoid does. lift: height over the face mesh.
    """

    reach: float
    lift: float = 0.0


_LAYERS = {
    "hair": _Layer(reach=0.15),
    "hat": _Layer(reach=0.15),
    "beard": _Layer(reach=np.inf),
    "glasses": _Layer(reach=np.inf, lift=0.3),
}


def align(
    mask: np.ndarray, keypoints: np.ndarray, portrait_keypoints: np.ndarray, kind: str, size: int
) -> np.ndarray:
    """The attribute's mask where it would lie on the portrait's head.

    Args:
      mask: bool [S, S], the attribute of the source.
      keypoints: float [478, 3], the source's, pixels of the mask.
      portrait_keypoints: float [478, 3], pixels of the portrait.
      kind: of the attribute; glasses and beard follow the face, hair and hat the head.
      size: side of the portrait in pixels.

    Returns:
      bool [size, size].

    Raises:
      InputError: an unknown kind.
    """
    if kind not in _LAYERS:
        raise InputError(f"attribute kind {kind!r}: use one of {', '.join(_LAYERS)}")
    lookup = _lookup(keypoints, portrait_keypoints, _LAYERS[kind], size)
    # A pixel's centre is at its index, in the grid as in the picture.
    columns, rows = (
        cv2.resize(np.float32(axis), (size, size), interpolation=cv2.INTER_LINEAR)
        for axis in np.moveaxis(lookup, -1, 0)
    )
    carried = cv2.remap(
        mask.astype(np.float32), columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return carried > 0.5


def _lookup(keypoints, portrait_keypoints, layer: _Layer, size: int) -> np.ndarray:
    """[_GRID, _GRID, 2]: x, y in the source's picture for a grid of points of the portrait's."""
    source, portrait = _Head.posed(keypoints), _Head.posed(portrait_keypoints)
    centres = (np.arange(_GRID) + 0.5) * size / _GRID - 0.5
    pixels = np.stack(np.meshgrid(centres, centres), -1)
    view = (pixels - portrait.place[:2]) / portrait.size

    # Height and shape of the face at each point: averages over the keypoints that are near in view.
    seen = portrait.anchors @ portrait.turn.T
    distance = _squared_distance(np.float32(view.reshape(-1, 2)), np.float32(seen[:, :2]))
    nearest = distance.min(-1)
    # Denormal numbers would be slow.
    weights = np.exp(np.maximum((nearest[:, None] - distance) / (2 * _BLEND**2), -40))
    values = np.column_stack([seen[:, 2], source.anchors - portrait.anchors])
    averages = weights @ np.float32(values) / weights.sum(-1, keepdims=True)
    averages, nearest = averages.reshape(_GRID, _GRID, 4), np.sqrt(nearest.reshape(_GRID, _GRID))
    face_depth = averages[..., 0] - layer.lift
    fade = np.exp(-0.5 * (np.maximum(nearest - 0.1, 0) / _FADE) ** 2)
    change = fade[..., None] * averages[..., 1:]

    start = np.concatenate([view, np.zeros_like(view[..., :1])], -1) @ portrait.turn
    away = portrait.turn[2]
    depth, hit = _ellipsoid_depth(start, away)
    on_face = (nearest < layer.reach) & (~hit | (face_depth < depth))
    surface = start + np.where(on_face, face_depth, depth)[..., None] * away + change
    surface = np.where(on_face[..., None], surface, _shown(surface, ~hit, source.turn[2]))
    return source.size * (surface @ source.turn.T)[..., :2] + source.place[:2]


def _squared_distance(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """[n, m] of points [n, 2] and [m, 2], by a matrix product."""
    squares = (points**2).sum(-1)[:, None] + (others**2).sum(-1)
    return np.maximum(squares - 2 * points @ others.T, 0)


class _Head(NamedTuple):
    """A posed head: pixels = size * turn @ point + place; the face's anchors without the pose."""

    turn: np.ndarray
    size: float
    place: np.ndarray
    anchors: np.ndarray

    @classmethod
    def posed(cls, keypoints: np.ndarray) -> "_Head":
        turn, size, place = geometry.head_pose(keypoints)
        anchors = (keypoints[list(_ANCHORS)] - place) @ turn / size
        return cls(turn, size, place, anchors)


def _ellipsoid_depth(start: np.ndarray, away: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Depth along rays [..., 3] of the ellipsoid's front, of its nearest approach if missed."""
    origin, direction = (start - _CENTRE) / _AXES, away / _AXES
    square, half = direction @ direction, origin @ direction
    inside = half**2 - square * ((origin**2).sum(-1) - 1)
    return (-half - np.sqrt(np.maximum(inside, 0))) / square, inside >= 0


def _shown(points: np.ndarray, beyond: np.ndarray, away: np.ndarray) -> np.ndarray:
    """Points [..., 3] moved to the rim, as seen along `away`, if they lie behind it or `beyond`."""
    scaled, direction = (points - _CENTRE) / _AXES, away / _AXES
    direction = direction / np.linalg.norm(direction)
    depth = (scaled @ direction)[..., None]
    across = scaled - depth * direction
    radius = np.linalg.norm(scaled, axis=-1, keepdims=True)
    rim = across * (radius / np.maximum(np.linalg.norm(across, axis=-1, keepdims=True), 1e-6))
    return np.where((depth > 0) | beyond[..., None], rim, scaled) * _AXES + _CENTRE
