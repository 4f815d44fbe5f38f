"""Pictures of the driver that a portrait follows: laid onto its face, and the moving parts alone.

X-Portrait's preparation, on the 68 landmarks that it uses (iBUG's order), here taken from
MediaPipe's 478; and the regions of Stable Video-Driven Portraits. Points are in pixels of square
pictures.
"""

import cv2
import numpy as np

from input_pipeline.faces.geometry import CONTOURS
from input_pipeline.masks.regions import grow, hide

# Jaw, brows, nose, eyes and lips.
_IBUG = (
    (162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389)
    + (71, 63, 105, 66, 107, 336, 296, 334, 293, 301)
    + (168, 197, 5, 4, 75, 97, 2, 326, 305)
    + (33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380)
    + (61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181)
    + (78, 82, 13, 312, 308, 317, 14, 87)
)
# Points whose means are the centres of the squares; each leaves out the first of its feature.
_CENTRES = (slice(43, 48), slice(37, 42), slice(49, 68))
_GRID = 256  # side of the pictures in whose pixels centres are whole numbers
_HALF = 32  # half a side of a square there

# Whose hulls are the regions: either eye, the nose with its wings, the lips.
_NOSE = (168, 6, 197, 195, 5, 4, 1, 2, 98, 327, 48, 278, 64, 294, 97, 326)
_REGIONS = (*CONTOURS["eyes"], _NOSE, CONTOURS["lips"][0])
_GROWTH = 0.06  # of the regions, in heights of the face
_FINE = 4  # bits of a pixel's fraction, for OpenCV


def landmarks(keypoints: np.ndarray) -> np.ndarray:
    """[..., 478, 2 or 3] -> [..., 68, 2]."""
    return keypoints[..., list(_IBUG), :2]


def best_frame(driver: np.ndarray, portrait: np.ndarray) -> int:
    """The frame of [F, 68, 2] that is nearest to [68, 2], by the sum of all differences."""
    return int(np.abs(driver - portrait).sum((1, 2)).argmin())


def alignment(driver: np.ndarray, portrait: np.ndarray) -> np.ndarray:
    """float64 [2, 3]: pixels of the driver -> of the portrait, both [68, 2].

    Scales each axis by itself and shifts, so that the boxes of the faces fall onto each other. A
    box is as wide and high as the landmarks reach, around their mean.
    """
    scale = np.ptp(portrait, axis=0) / np.ptp(driver, axis=0)
    shift = portrait.mean(0) - scale * driver.mean(0)
    return np.column_stack([np.diag(scale), shift]).astype(np.float64)


def moved(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Points [..., 2] by a matrix [2, 3]."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def warped(picture: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The picture by a matrix [2, 3], bilinear, black where there is none; its shape and dtype."""
    height, width = picture.shape[:2]
    return cv2.warpAffine(picture, matrix, (width, height), flags=cv2.INTER_LINEAR)


def local_picture(picture: np.ndarray, points: np.ndarray) -> np.ndarray:
    """A picture [S, S, 3], black but for squares around both eyes and the mouth.

    Squares are S / 4 wide and whole. points: [68, 2], its landmarks.
    """
    size = len(picture)
    scale, half = size / _GRID, round(_HALF * size / _GRID)
    result = np.zeros_like(picture)
    for part in _CENTRES:
        centre = np.round(points[part].mean(0) / scale)
        x, y = np.int32(np.clip(centre, _HALF, _GRID - 1 - _HALF) * scale)
        square = slice(max(0, y - half), y + half), slice(max(0, x - half), x + half)
        result[square] = picture[square]
    return result


def region_mask(keypoints: np.ndarray, size: int) -> np.ndarray:
    """bool [size, size]: eyes, nose and mouth of a face, its keypoints [478, 2 or 3].

    Hulls of their keypoints, grown by a share of the face's height, so that lids, wings and lips
    stay inside while they move. The paper (2509.17476) names the regions alone.
    """
    mask = np.zeros((size, size), np.uint8)
    for points in _REGIONS:
        hull = cv2.convexHull(np.float32(keypoints[list(points), :2]))
        cv2.fillConvexPoly(mask, np.int32(np.round(hull * 2**_FINE)), 1, shift=_FINE)
    return grow(mask > 0, _GROWTH * np.ptp(keypoints[:, 1]))


def region_picture(picture: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
    """A picture [S, S, 3], black but for `region_mask`. keypoints: [478, 2 or 3]."""
    return hide(picture, ~region_mask(keypoints, len(picture)))
