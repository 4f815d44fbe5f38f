"""Whether a photo shows an attribute at all, for a segmenter that only says where it would be."""

import cv2
import numpy as np

SIZE = 256  # pixels a side of the picture to look at
# Scores of 38 people: with glasses 9.2 and more, without 6.7 and less but for one.
_BRIDGE = 8.0
# With a dark beard on the chin 68 and more, without 49 and less; grey ones and moustaches less.
_CHIN = 60.0
# Outer eye corners and chin, and where they lie in a patch of 160 x 200 pixels.
_CORNERS, _PLACES = (33, 263, 152), np.float32([[40, 60], [120, 60], [80, 160]])
_INNER_EYES, _NASION, _NOSE = (133, 362), 168, 197
_CHIN_POINTS, _CHEEKS = (199, 175, 200), (50, 280, 205, 425)


def doubt(kind: str, image: np.ndarray, keypoints: np.ndarray) -> str:
    """Why an attribute may not be there, or "" where it is to be seen, or for hair.

    Glasses are told by the edges of their bridge, dark beards by the chin's lightness beside that
    of the cheeks; grey beards, moustaches and hats are not told from none.

    Args:
      image: uint8 [SIZE, SIZE, 3], head and shoulders. keypoints: float32 [478, 2 or 3], its own.
    """
    if kind == "hair":
        return ""
    light, points = _face(image, keypoints[:, :2])
    low, high = np.percentile(light[30:150, 30:130], [10, 90])
    contrast = max(high - low, 1) / 100
    if kind == "glasses":
        if _bridge(light, points) / contrast >= _BRIDGE:
            return ""
        return "no bridge of glasses is to be seen between the eyes"
    if kind == "beard":
        chin, cheeks = (
            [np.median(_around(light, points[i], radius)) for i in places]
            for places, radius in ((_CHIN_POINTS, 4), (_CHEEKS, 5))
        )
        if (np.mean(cheeks) - np.median(chin)) / contrast >= _CHIN:
            return ""
    return f"it cannot be told whether a {kind} is there"


def _face(image: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lightness float [200, 160] of the upright face, and the keypoints in it."""
    turn = cv2.getAffineTransform(points[list(_CORNERS)].astype(np.float32), _PLACES)
    patch = cv2.warpAffine(image, turn, (160, 200), flags=cv2.INTER_LINEAR)
    light = cv2.cvtColor(patch, cv2.COLOR_RGB2LAB)[..., 0].astype(np.float32)
    return light, points @ turn[:, :2].T + turn[:, 2]


def _bridge(light: np.ndarray, points: np.ndarray) -> float:
    """The strongest edge across the root of the nose."""
    left, right = points[list(_INNER_EYES), 0]
    middle, half = (left + right) / 2, 0.22 * (right - left)
    edges = np.abs(np.gradient(cv2.GaussianBlur(light, (0, 0), 1.2), axis=0))
    rows = slice(int(points[_NASION, 1] - 4), int(points[_NOSE, 1]) + 2)
    strip = edges[rows, int(middle - half) : int(middle + half) + 1]
    return float(np.median(strip, axis=1).max(initial=0)) if strip.size else 0.0


def _around(light: np.ndarray, point: np.ndarray, radius: int) -> np.ndarray:
    x, y = np.clip(point, radius, [light.shape[1] - 1 - radius, light.shape[0] - 1 - radius])
    return light[int(y) - radius : int(y) + radius + 1, int(x) - radius : int(x) + radius + 1]
