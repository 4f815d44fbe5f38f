"""Regions of a picture: enlarged, hidden."""

import cv2
import numpy as np


def grow(mask: np.ndarray, radius: float) -> np.ndarray:
    """bool [H, W]: the mask and all pixels within `radius` pixels of it."""
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    if not width:
        return mask
    reach = int(radius) + 1
    near = np.s_[max(0, y - reach) : y + height + reach, max(0, x - reach) : x + width + reach]
    grown = np.zeros_like(mask)
    apart = (~mask[near]).astype(np.uint8)
    grown[near] = cv2.distanceTransform(apart, cv2.DIST_L2, 5) <= radius
    return grown


def hide(image: np.ndarray, region: np.ndarray) -> np.ndarray:
    """A copy of uint8 [H, W, 3], black where `region` bool [H, W] is True (Eq. 2)."""
    return cv2.copyTo(image, (~region).astype(np.uint8))
