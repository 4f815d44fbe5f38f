"""What changes from one frame of a clip to the next: nothing, as usual, or all of it."""

from pathlib import Path

import cv2
import numpy as np

from input_pipeline.errors import InputError

SIDE = 128
# Mean grey difference (of 255, on 128 x 128) below which a frame repeats the last one.
REPEATED = 0.05
# A hard cut changes both the picture and its colours. Between the shots of the talking-head clips
# these were chosen on: at least 34 and 0.39; within them, fast head motion: at most 22 and 0.10.
CUT_DIFFERENCE = 15.0
CUT_COLOURS = 0.25
# Standard deviation of grey, below which a frame is blank: a clip that begins or flashes black.
_BLANK = 3.0


class Changes:
    """Watches the frames of a clip, one call for each.

    small: uint8 [128, 128, 3] of the last frame.
    """

    def __init__(self, path: str | Path):
        self._path, self._index, self._last = path, -1, None

    def __call__(self, image: np.ndarray) -> bool:
        """Whether the frame, uint8 [H, W, 3], is new; False if it repeats the one before.

        InputError, with its number: another shot begins here. Blank frames are passed over.
        """
        self._index += 1
        self.small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        grey = cv2.cvtColor(self.small, cv2.COLOR_RGB2GRAY).astype(np.float32)
        if grey.std() < _BLANK:
            return True
        colours = cv2.calcHist([self.small], [0, 1, 2], None, [8] * 3, [0, 256] * 3) / SIDE**2
        last, fresh = self._last, True
        if last is not None:
            difference = np.abs(grey - last[0]).mean()
            if difference > CUT_DIFFERENCE and np.abs(colours - last[1]).sum() / 2 > CUT_COLOURS:
                raise InputError(
                    f"{self._path}: frame {self._index}: hard cut; split the clip at its cuts"
                )
            fresh = bool(difference >= REPEATED)
        if fresh:
            self._last = grey, colours
        return fresh
