"""The pictures of a driver that a portrait follows, drawn as they are read."""

from collections.abc import Callable

import numpy as np

from input_pipeline.errors import InputError
from input_pipeline.motion import control_pictures
from input_pipeline.motion.driver import Motion

# How many frames are held at first; 128 of 512 px are 100 MB.
_HELD = 128


class FollowedPictures:
    """The pictures of one name; read as an array uint8 [F, S, S, 3], by a place or by places [n].

    Frames are held as far back as they were ever read again, at least 128, so that the memory is
    that of the frames in progress: a window's where windows follow each other, the whole clip's
    where they go round it. Reading further back than that opens the clip anew.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, frames: "_Frames", name: str):
        self._frames, self._name = frames, name
        self.shape = (len(frames), frames.size, frames.size, 3)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, places) -> np.ndarray:
        """uint8 [S, S, 3] of a place, [n, S, S, 3] of places int [n]; negative from the end.

        Raises InputError: the clip has become shorter since it was tracked.
        """
        places = np.arange(len(self))[places]
        read = [self._frames.drawn(int(place))[self._name] for place in places.reshape(-1)]
        return np.stack(read).reshape(*places.shape, *self.shape[1:])


def follow(
    motion: Motion,
    keypoints: np.ndarray,
    matrix: np.ndarray,
    size: int,
    draw: Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]],
) -> dict[str, FollowedPictures]:
    """What `draw` makes of each of the driver's frames, by name.

    Args:
      keypoints: [F, 478, 2] in the driver's cropped pictures of `size` pixels.
      matrix: [2, 3], moves the driver's face onto the portrait's.
      draw: of a moved frame uint8 [S, S, 3] and its keypoints [478, 2] the pictures, by name.
    """
    frames = _Frames(motion, keypoints, matrix, size, draw)
    return {name: FollowedPictures(frames, name) for name in frames.drawn(0)}


class _Frames:
    """A clip that is read forwards, from its beginning again where it must be."""

    def __init__(self, motion, keypoints, matrix, size, draw):
        self._motion, self._matrix, self._draw, self.size = motion, matrix, draw, size
        self._keypoints = control_pictures.moved(keypoints, matrix)
        self._frames, self._next = motion.frames(size), 0
        self._drawn, self._held, self._furthest = {}, _HELD, 0

    def __len__(self) -> int:
        return len(self._keypoints)

    def drawn(self, place: int) -> dict[str, np.ndarray]:
        """The pictures of a frame, by name."""
        if place not in self._drawn:
            frame = self._read(place)
            moved = control_pictures.warped(frame, self._matrix)
            self._drawn[place] = self._draw(moved, self._keypoints[place])
            while len(self._drawn) > self._held:
                del self._drawn[next(iter(self._drawn))]
        return self._drawn[place]

    def _read(self, place: int) -> np.ndarray:
        self._furthest = max(self._furthest, place)
        if place < self._next:
            self._held = max(self._held, 2 * (self._furthest - place))
            self._frames, self._next = self._motion.frames(self.size), 0
        while self._next <= place:
            frame, self._next = next(self._frames, None), self._next + 1
            if frame is None:
                raise InputError(
                    f"{self._motion.path}: ends after {self._next - 1} frames and had {len(self)} "
                    "when it was tracked: leave it as it is until the video is made"
                )
        return frame
