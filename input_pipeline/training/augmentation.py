"""Reference augmentation: random affine and colour jitter, apart for each reference.

Training takes portrait, attribute and target from one clip, where everything fits; people who meet
at inference do not. The paper therefore moves and tints the references (its section on reference
augmentation), never the target, and fills what an affine exposes by out-painting. The ranges are
ours.
"""

import dataclasses

import cv2
import numpy as np


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Ranges that each reference draws from.

    Attributes:
      size: side of every picture in pixels.
      affine_probability, translate, scale, rotate: chance and largest extent of translation
        (fraction of the side), scaling (1 - scale to 1 + scale) and rotation (degrees).
      jitter_probability, jitter, hue: chance and largest relative change of brightness, contrast
        and saturation, and largest turn of the hue (fraction of the circle).
    """

    size: int
    affine_probability: float = 0.8
    translate: float = 0.1
    scale: float = 0.15
    rotate: float = 10.0
    jitter_probability: float = 0.8
    jitter: float = 0.2
    hue: float = 0.02


def augment(
    image: np.ndarray,
    mask: np.ndarray,
    ranges: Augmentation,
    rng: np.random.Generator,
    border: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random affine of picture and mask together, then colour jitter of the picture.

    Args:
      image: uint8 [size, size, 3], `ranges.size` pixels a side.
      mask: float32 [size, size] in [0, 1], of the picture.
      border: OpenCV border mode for what the affine exposes, of picture and mask alike.

    Returns:
      uint8 [size, size, 3] and float32 [size, size] in [0, 1], interpolated linearly, and the
      affine, float64 [2, 3], that took places of the picture there.
    """
    matrix = affine_matrix(ranges, rng)
    mask = warp(mask, matrix, ranges.size, border)
    image = warp(image, matrix, ranges.size, border)
    if rng.random() < ranges.jitter_probability:
        image = jitter(image, ranges, rng)
    return image, mask, matrix


def warp(image: np.ndarray, matrix: np.ndarray, size: int, border: int) -> np.ndarray:
    """[size, size, ...] where `matrix` [2, 3] puts the pixels of `image`, interpolated linearly."""
    return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=border)


def move(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Where an affine [2, 3] takes points [..., 2]; float32."""
    return np.float32(points @ matrix[:, :2].T + matrix[:, 2])


def affine_matrix(ranges: Augmentation, rng: np.random.Generator) -> np.ndarray:
    """float64 [2, 3]: translation, scaling and rotation about the centre, each drawn by chance."""
    translate, scale, angle = np.zeros(2), 1.0, 0.0
    if rng.random() < ranges.affine_probability:
        translate = rng.uniform(-ranges.translate, ranges.translate, 2) * ranges.size
    if rng.random() < ranges.affine_probability:
        scale = rng.uniform(1 - ranges.scale, 1 + ranges.scale)
    if rng.random() < ranges.affine_probability:
        angle = rng.uniform(-ranges.rotate, ranges.rotate)
    centre = (ranges.size - 1) / 2
    matrix = cv2.getRotationMatrix2D((centre, centre), angle, scale)
    matrix[:, 2] += translate
    return matrix


def jitter(image: np.ndarray, ranges: Augmentation, rng: np.random.Generator) -> np.ndarray:
    """uint8 [H, W, 3] in other colours, rounded and saturated."""
    return cv2.transform(image, jitter_matrix(ranges, rng))


def jitter_matrix(ranges: Augmentation, rng: np.random.Generator) -> np.ndarray:
    """float64 [3, 4] on RGB in [0, 255]: brightness, contrast about mid-grey, saturation and hue.

    Saturation scales and hue turns the chroma plane of YIQ, so all four are one linear map.
    """
    brightness, contrast, saturation = rng.uniform(1 - ranges.jitter, 1 + ranges.jitter, 3)
    turn = 2 * np.pi * rng.uniform(-ranges.hue, ranges.hue)
    to_yiq = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
    chroma = saturation * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    change = np.eye(3)
    change[1:, 1:] = chroma
    colour = np.linalg.inv(to_yiq) @ change @ to_yiq
    offset = 127.5 * (1 - contrast) * np.ones((3, 1))
    return np.hstack([brightness * contrast * colour, offset])
