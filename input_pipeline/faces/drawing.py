"""Keypoints and masks drawn over pictures."""

import cv2
import numpy as np

from input_pipeline.faces.geometry import CONTOURS

COLOURS = {
    "hair": (235, 60, 60), "glasses": (60, 140, 255), "beard": (60, 200, 90), "hat": (250, 180, 40)
}  # fmt: skip
_LINES = {
    "oval": (255, 255, 255), "lips": (255, 90, 160), "eyes": (80, 255, 120),
    "brows": (255, 210, 60), "nose": (90, 210, 255), "irises": (255, 80, 60),
}  # fmt: skip


def draw_keypoints(tile: np.ndarray, points: np.ndarray, width: int = 1) -> np.ndarray:
    """A copy of uint8 [S, S, 3] with the contours of keypoints [478, 2], pixels of the tile."""
    tile = tile.copy()
    for name, chains in CONTOURS.items():
        for chain in chains:
            line = np.round(points[list(chain)] * 16).astype(np.int32)  # 4 fractional bits
            cv2.polylines(tile, [line], False, _LINES[name], width, cv2.LINE_AA, 4)
    return tile


def draw_masks(tile: np.ndarray, masks: dict[str, np.ndarray]) -> np.ndarray:
    """A copy of uint8 [S, S, 3] with bool masks of any size laid over it in COLOURS."""
    tile = tile.astype(np.float32)
    for kind, mask in masks.items():
        share = cv2.resize(mask.astype(np.float32), tile.shape[1::-1], interpolation=cv2.INTER_AREA)
        share = 0.55 * share[..., None]
        tile = (1 - share) * tile + share * np.float32(COLOURS[kind])
    return tile.round().astype(np.uint8)
