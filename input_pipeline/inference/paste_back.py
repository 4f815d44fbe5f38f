"""The generated head-and-shoulders square, back in the photo that it was cropped from."""

import cv2
import numpy as np

from input_pipeline.errors import InputError
from input_pipeline.faces import geometry
from input_pipeline.inference.subject import Subject

FEATHER = 0.08


class Paste:
    """Lays frames over a photo, with soft edges.

    The weight of a frame rises from 0 at the edges of the square to 1 without a kink, as
    3t^2 - 2t^3. An edge with no photo beyond it has no ramp: the frame reaches the photo's edge.

    Args:
      photo: uint8 [H, W, 3].
      crop: photo -> frames; the square may reach over the edges of the photo.
      feather: width of the ramp as a share of the square's side, 0 to 0.5; 0 is a hard edge.

    Raises:
      InputError: another feather.
    """

    def __init__(self, photo: np.ndarray, crop: geometry.Crop, feather: float = FEATHER):
        if not 0 <= feather <= 0.5:
            raise InputError(f"feather {feather:g}: use 0 to 0.5, a share of the square's side")
        self._photo, self._crop = photo, crop
        height, width = photo.shape[:2]
        rows, down = _ramp(crop.cy, crop.side, feather, height)
        columns, across = _ramp(crop.cx, crop.side, feather, width)
        self._box = rows, columns
        self._weight = np.outer(down, across).astype(np.float32)

    @classmethod
    def into(cls, subject: Subject, feather: float = FEATHER) -> "Paste":
        """Into the photo of a subject, or the first frame if it is a clip; it is read again."""
        return cls(subject.photo(), subject.crop, feather)

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """The photo with the frame in its place.

        Args:
          frame: uint8 [S, S, 3], of any size; enlarged by cubics, reduced by area.

        Returns:
          uint8 [H, W, 3]; outside the square the very pixels of the photo.
        """
        pasted = self._photo.copy()
        inside = pasted[self._box]
        pasted[self._box] = cv2.blendLinear(
            self._placed(frame), np.ascontiguousarray(inside), self._weight, 1 - self._weight
        )
        return pasted

    def _placed(self, frame: np.ndarray) -> np.ndarray:
        """uint8 [h, w, 3]: the frame on the pixels of the photo that the square covers."""
        rows, columns = self._box
        matrix = self._crop.matrix(len(frame))
        scale = matrix[0, 0]
        # Where it shrinks, bilinear samples at most one pixel of the frame apart are averaged.
        fine = max(1, int(np.ceil(scale - 0.1)))
        shift = matrix[:, 2] + scale * (np.array([columns.start, rows.start]) + (1 / fine - 1) / 2)
        size = columns.stop - columns.start, rows.stop - rows.start
        flags = cv2.WARP_INVERSE_MAP | (cv2.INTER_CUBIC if scale < 1 else cv2.INTER_LINEAR)
        placed = cv2.warpAffine(
            frame,
            np.column_stack([np.eye(2) * scale / fine, shift]),
            (size[0] * fine, size[1] * fine),
            flags=flags,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return cv2.resize(placed, size, interpolation=cv2.INTER_AREA) if fine > 1 else placed


def _ramp(centre: float, side: float, feather: float, length: int) -> tuple[slice, np.ndarray]:
    """The pixels of a line of `length` that the square covers, and its weight at each."""
    low, high = centre - side / 2, centre + side / 2
    pixels = slice(max(0, int(np.ceil(low))), min(length - 1, int(np.floor(high))) + 1)
    place = np.arange(pixels.start, pixels.stop)
    width = max(feather * side, 1e-6)
    share = np.ones(len(place))
    if low > 0:
        share = np.minimum(share, (place - low) / width)
    if high < length - 1:
        share = np.minimum(share, (high - place) / width)
    return pixels, share**2 * (3 - 2 * share)
