"""Predictions that need no model, scored beside every method so that a number means something."""

import cv2
import numpy as np

from input_pipeline.dataset.cases import Case, Pictures
from input_pipeline.faces import geometry
from input_pipeline.kinds import KINDS

NAMES = ("truth", "copy", "paste", "driver")


def copy(pictures: Pictures) -> np.ndarray:
    """The portrait, still: float32 [F, S, S, 3] in [0, 1]."""
    portrait = pictures.portrait.astype(np.float32) / 255
    return np.repeat(portrait[None], len(pictures.driving), 0)


def paste(
    case: Case,
    pictures: Pictures,
    portrait: np.ndarray,
    attributes: list[np.ndarray],
    motion: np.ndarray,
) -> np.ndarray:
    """Portrait and, if there are, attribute pixels, moved by the keypoint similarity onto each
    frame's face.

    Sources of one kind are blended by their weights; kinds lie over each other in their usual
    order, hats last.

    Args:
      portrait: [478, 3], keypoints of the portrait. attributes: [478, 3] of each attribute picture.
      motion: [F, 478, 3], where the face should be (`retarget.retarget`).

    Returns:
      float32 [F, S, S, 3] in [0, 1].
    """
    base = pictures.portrait.astype(np.float32) / 255
    layers = [
        np.dstack([image.astype(np.float32) / 255, mask.astype(np.float32)])
        for image, mask in zip(pictures.attributes, pictures.attribute_masks)
    ]
    frames = []
    for points in motion:
        frame = _moved(base, portrait, points, cv2.BORDER_REPLICATE)
        for kind in (kind for kind in KINDS if kind in case.kinds):
            cover, colour = np.zeros((*base.shape[:2], 1), np.float32), np.zeros_like(base)
            for attribute, layer, own in zip(case.attributes, layers, attributes):
                if attribute.kind == kind:
                    moved = _moved(layer, own, points, cv2.BORDER_CONSTANT)
                    share = attribute.weight * moved[..., 3:]
                    cover, colour = cover + share, colour + share * moved[..., :3]
            frame = (1 - cover) * frame + colour
        frames.append(frame)
    return np.clip(np.stack(frames), 0, 1)


def _moved(image: np.ndarray, source: np.ndarray, target: np.ndarray, border: int) -> np.ndarray:
    matrix = geometry.similarity(source[:, :2], target[:, :2])
    size = (image.shape[1], image.shape[0])
    return cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=border)
