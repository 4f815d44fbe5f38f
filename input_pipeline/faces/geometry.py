"""The face as geometry: contours, steady crop, head pose.

Keypoints are MediaPipe's face mesh (468 points, then 5 for each iris), float32 [..., 478, 3]: x
right and y down in pixels (a pixel's centre is at its index), z in the same scale, growing away
from the camera.
"""

import itertools
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from input_pipeline.errors import InputError
from input_pipeline.faces.landmarker import EYES, Region, Track, sample

# Chains of keypoint indices to be drawn as lines; a chain that ends where it began is closed.
CONTOURS = {
    "oval": (
        (10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377)
        + (152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109, 10),
    ),
    "lips": (
        (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291)
        + (409, 270, 269, 267, 0, 37, 39, 40, 185, 61),
        (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)
        + (415, 310, 311, 312, 13, 82, 81, 80, 191, 78),
    ),
    "eyes": (
        (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246, 33),
        (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466, 263),
    ),
    "brows": (
        (70, 63, 105, 66, 107, 55, 65, 52, 53, 46, 70),
        (300, 293, 334, 296, 336, 285, 295, 282, 283, 276, 300),
    ),
    "nose": ((168, 6, 197, 195, 5, 4, 1), (98, 97, 2, 326, 327)),
    "irises": ((469, 470, 471, 472, 469), (474, 475, 476, 477, 474)),
}

# Points that expressions hardly move, and where they lie on the mean head (see `head_pose`):
# averaged over the pose-free tracks of 38 clips and photos, made symmetric.
RIGID = (10, 8, 168, 6, 195, 33, 263, 133, 362, 116, 345, 127, 356, 234, 454)
_HEAD = np.array(
    [(0.0, -0.643, -0.343), (0.0, -0.142, -0.354), (0.0, -0.055, -0.34), (0.0, 0.043, -0.382)]
    + [(0.0, 0.217, -0.488), (-0.5, -0.021, -0.077), (0.5, -0.021, -0.077)]
    + [(-0.204, 0.004, -0.138), (0.204, 0.004, -0.138), (-0.736, 0.167, 0.087)]
    + [(0.736, 0.167, 0.087), (-0.812, -0.013, 0.506), (0.812, -0.013, 0.506)]
    + [(-0.8, 0.153, 0.576), (0.8, 0.153, 0.576)]
)
# Eyes, nose tip and mouth corners in ArcFace's 112 x 112 input (InsightFace `arcface_dst`).
_ARCFACE = np.array(
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655)]
    + [(70.7299, 92.2041)]
)


@dataclass(frozen=True)
class Crop:
    """A square of the source pictures: centre and side in source pixels."""

    cx: float
    cy: float
    side: float

    @classmethod
    def around(cls, keypoints: np.ndarray, height: int, width: int) -> "Crop":
        """One steady head-and-shoulders square for a whole clip.

        The side is 2.3 face lengths, more where the head moves far, with more room above the
        face (hair, hats) than below. It stays inside the picture wherever the picture is large
        enough, and is made smaller for that down to 1.8 face lengths.

        keypoints: [T, 478, 3] of the source pictures, without NaN. height, width: the pictures'.
        """
        low, high = keypoints[..., :2].min(1), keypoints[..., :2].max(1)
        face = np.median((high - low).max(1))
        # Percentiles, so that a few bad frames do not widen the square.
        low, high = np.percentile(low, 2, axis=0), np.percentile(high, 98, axis=0)
        side = max(2.3 * face, (high - low).max() + 0.9 * face)
        side = min(side, max(min(height, width), 1.8 * face))
        centre = (low + high) / 2 - [0, 0.12 * face]
        limit = np.array([width, height]) - 1
        slack = np.maximum((limit + 1 - side) / 2, 0)
        cx, cy = np.clip(centre, limit / 2 - slack, limit / 2 + slack)
        return cls(float(cx), float(cy), float(side))

    @classmethod
    def whole(cls, side: int) -> "Crop":
        """All of a square picture of `side` pixels."""
        return cls((side - 1) / 2, (side - 1) / 2, float(side))

    def matrix(self, size: int) -> np.ndarray:
        """float64 [2, 3]: source pixels -> pixels of the size x size crop."""
        scale = size / self.side
        middle = (size - 1) / 2
        return np.array(
            [[scale, 0, middle - scale * self.cx], [0, scale, middle - scale * self.cy]]
        )

    def apply(self, image: np.ndarray, size: int) -> np.ndarray:
        """uint8 [size, size, 3]; outside the source its border is repeated."""
        inverse = Region(self.cx, self.cy, self.side).matrix(size)
        return sample(image, inverse, size, cv2.BORDER_REPLICATE)

    def points(self, keypoints: np.ndarray, size: int) -> np.ndarray:
        """float32 [..., 478, 3] in pixels of the crop; z is scaled like x."""
        matrix = self.matrix(size)
        shift = np.append(matrix[:, 2], 0)
        return (keypoints * matrix[0, 0] + shift).astype(np.float32)


def steady_crop(
    path: str | Path, keypoints: np.ndarray, height: int, width: int, framed: bool
) -> Crop:
    """`Crop.around`, or all of a picture that is `framed`, a head-and-shoulders square already.

    Raises InputError, naming `path`: framed, but not square.
    """
    if not framed:
        return Crop.around(keypoints, height, width)
    if height != width:
        raise InputError(f"{path}: {width}x{height} pixels: framed pictures must be square")
    return Crop.whole(width)


def fill_gaps(
    track: Track, limit: int = 5, hold_ends: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Bridges gaps of up to `limit` frames by straight lines.

    Returns the keypoints, float32 [T, 478, 3], and the frames that have them, bool [T]: those
    where the face was found and those bridged. Gaps at either end stay, or with `hold_ends`
    those as short are filled with the nearest face.
    """
    keypoints, usable = track.keypoints.copy(), track.found.copy()
    seen = np.flatnonzero(track.found)
    for before, after in itertools.pairwise(seen):
        if 1 < after - before <= limit + 1:
            weight = np.linspace(0, 1, after - before + 1, dtype=np.float32)[1:-1, None, None]
            ends = keypoints[before], keypoints[after]
            keypoints[before + 1 : after] = (1 - weight) * ends[0] + weight * ends[1]
            usable[before + 1 : after] = True
    if hold_ends and len(seen):
        for gap, nearest in ((slice(0, seen[0]), seen[0]), (slice(seen[-1] + 1, None), seen[-1])):
            if len(usable[gap]) <= limit:
                keypoints[gap], usable[gap] = keypoints[nearest], True
    return keypoints, usable


def head_pose(keypoints: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weak-perspective pose: keypoints = scale * rotation @ head + translation, least squares.

    The head is a mean face, looking at the camera, given by points that expressions hardly move;
    its unit is the distance of the outer eye corners, its origin the mean of those points (inside
    the head behind the nose bridge).

    keypoints: [..., 478, 3] pixels, without NaN. Returns rotation [..., 3, 3], scale [...] (pixels
    per unit), translation [..., 3] (pixels), float64. See `euler_angles` for the axes.
    """
    return _similarity(_HEAD, np.asarray(keypoints, np.float64)[..., list(RIGID), :])


def pose_free(
    keypoints: np.ndarray, rotation: np.ndarray, scale: np.ndarray, translation: np.ndarray
) -> np.ndarray:
    """[..., 478, 3]: the face in the axes and units of its `head_pose`."""
    return (keypoints - translation[..., None, :]) @ rotation / scale[..., None, None]


def posed(
    shape: np.ndarray, rotation: np.ndarray, scale: np.ndarray, translation: np.ndarray
) -> np.ndarray:
    """float32 [..., 478, 3] pixels; the inverse of `pose_free`."""
    turned = shape @ rotation.swapaxes(-1, -2)
    return (scale[..., None, None] * turned + translation[..., None, :]).astype(np.float32)


def nearest_rotation(matrix: np.ndarray) -> np.ndarray:
    """[..., 3, 3]: the rotation nearest to a matrix of positive determinant, least squares."""
    u, _, vt = np.linalg.svd(matrix)
    return u @ vt


def euler_angles(rotation: np.ndarray) -> np.ndarray:
    """[..., 3] yaw, pitch, roll in degrees of a rotation [..., 3, 3] from `head_pose`.

    Axes: x right, y down, z away from the camera; rotation = Rz(roll) Ry(-yaw) Rx(-pitch). As seen
    in the picture: yaw > 0 turns the nose to the right, pitch > 0 lifts it, roll > 0 tilts the
    head clockwise.
    """
    yaw = np.arcsin(np.clip(rotation[..., 2, 0], -1, 1))
    pitch = -np.arctan2(rotation[..., 2, 1], rotation[..., 2, 2])
    roll = np.arctan2(rotation[..., 1, 0], rotation[..., 0, 0])
    return np.degrees(np.stack([yaw, pitch, roll], -1))


def align_face(image: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
    """uint8 [112, 112, 3]: the face as ArcFace expects it.

    Similarity of five points (eyes, nose tip, mouth corners) to the template of InsightFace's
    `face_align.norm_crop`. keypoints: [478, 3] pixels of `image`.
    """
    points = keypoints[:, :2].astype(np.float64)
    eyes = [points[list(lids)].mean(0) for *_, lids in EYES]
    five = np.stack([*eyes, points[4], points[61], points[291]])
    return sample(image, similarity(_ARCFACE, five), 112, cv2.BORDER_CONSTANT)


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """float64 [2, 3]: the turn, scale and shift that map points [n, 2] to others, least squares."""
    rotation, scale, shift = _similarity(source.astype(np.float64), target.astype(np.float64))
    return np.column_stack([scale * rotation, shift])


def _similarity(source: np.ndarray, target: np.ndarray):
    """Umeyama 1991, eq. 40-42: target [..., n, d] = scale * rotation @ source [n, d] + shift."""
    middle, target_middle = source.mean(0), target.mean(-2)
    centred = source - middle
    covariance = (target - target_middle[..., None, :]).swapaxes(-1, -2) @ centred / len(source)
    u, singular, vt = np.linalg.svd(covariance)
    sign = np.ones_like(singular)
    sign[..., -1] = np.sign(np.linalg.det(u) * np.linalg.det(vt))
    rotation = (u * sign[..., None, :]) @ vt
    scale = (singular * sign).sum(-1) / (centred**2).sum(-1).mean()
    return rotation, scale, target_middle - scale[..., None] * (rotation @ middle)
