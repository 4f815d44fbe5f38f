"""Long clips: windows of frames that share one noise.

At each step every window is predicted and the predictions are blended where windows overlap
(MultiDiffusion, 2302.08113; Lumiere, 2401.12945), so that all windows take part in one denoising.
Done step by step that would hold the whole clip. But a window needs only its neighbours to be one
step behind, so `Overlapping` takes each as far as these allow: a band of frames is in progress, and
what leaves it at its lower end is finished. The result is the same.

`Circular` windows do go step by step: they go on through the end of the clip to its beginning, and
from another frame at each step, so that no place in the clip is a border at all of them.

`Chained` windows share nothing: each is denoised to its end, and the next is told its last frames.
"""

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np

# Weights of float32 whose sum is at least this have all come.
_WHOLE = 1 - 1e-4


class Windowing(Protocol):
    """Which frames of a clip are denoised together, in what order, and how they are blended.

    Attributes:
      length: frames of every window.
      num_frames: of the clip; a window may reach beyond it.
    """

    length: int
    num_frames: int

    def tasks(self, steps: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """(step, frames int32 [w], weights float32 [w]) of all predictions, in an order in which
        they can be made: all frames of a window have taken the steps before. At each step the
        weights of a frame sum to 1."""


class Overlapping:
    """Overlapping windows that cover a clip evenly, the same at every step.

    Attributes:
      starts: int32 [n], first frame of each.
      weights: float32 [n, w], of its predictions: they ramp linearly over the overlaps and sum to 1
        at every frame.
    """

    def __init__(self, num_frames: int, window: int, overlap: int):
        """
        Args:
          window: frames denoised together.
          overlap: least number that neighbours share, below the window.
        """
        self.num_frames = num_frames
        self.starts = _spread(num_frames, window, overlap)
        self.weights = _blend(self.starts, min(window, num_frames), num_frames, overlap)

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def length(self) -> int:
        """Frames of a window."""
        return self.weights.shape[1]

    def frames(self, i: int) -> np.ndarray:
        """int32 [w], those of window i."""
        return self.starts[i] + np.arange(self.length, dtype=np.int32)

    def settled(self, i: int) -> int:
        """Number of frames that no window behind i covers."""
        return int(self.starts[i + 1]) if i + 1 < len(self) else self.num_frames

    def tasks(self, steps: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """See Windowing."""
        for step, i in self.order(steps):
            yield step, self.frames(i), self.weights[i]

    def order(self, steps: int) -> Iterator[tuple[int, int]]:
        """(step, window) of all predictions, each after those it depends on.

        A window is ready for a step when all that reach into it have taken the step before. Of
        those that are, the furthest advanced goes first: fewest frames are in progress then.
        """
        ahead = np.searchsorted(self.starts, self.starts + self.length)
        done = [0] * steps
        while done[-1] < len(self):
            for step in reversed(range(steps)):
                i = done[step]
                if i < len(self) and (step == 0 or done[step - 1] >= ahead[i]):
                    done[step] += 1
                    yield step, i
                    break


class Circular:
    """Windows that go round the clip, from another frame at each step, with plain averages.

    X-Portrait's scheme. Of a clip shorter than a window there is one window. Offsets depend on the
    step alone, so that a clip does not depend on what is sampled beside it.
    """

    def __init__(
        self,
        num_frames: int,
        window: int,
        overlap: int,
        offset: Callable[[int], int] | None = None,
    ):
        """
        Args:
          window, overlap: frames of a window, and of those that the next shares.
          offset: step -> first frame, 0 to num_frames - 1. Default: drawn, always the same.
        """
        self.num_frames, self.length = num_frames, min(window, num_frames)
        self._stride = max(1, self.length - overlap) if num_frames > window else self.length
        self._offset = offset or self._drawn

    def __len__(self) -> int:
        """Windows of a step."""
        return -(-(self.num_frames - self.length) // self._stride) + 1

    def tasks(self, steps: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """See Windowing."""
        starts = np.arange(len(self)) * self._stride
        for step in range(steps):
            places = self._offset(step) + starts[:, None] + np.arange(self.length)
            places = (places % self.num_frames).astype(np.int32)
            weights = 1 / np.bincount(places.ravel())[places]
            for frames, weight in zip(places, weights):
                yield step, frames, weight.astype(np.float32)

    def _drawn(self, step: int) -> int:
        return int(np.random.default_rng((_SEED, step)).integers(self.num_frames))


_SEED = 999


class Chained:
    """Windows one behind the other, each denoised to its end before the next begins.

    Stable Video-Driven Portraits' scheme (2509.17476): a system with a history is told the last
    frames of the window before. The last window is as long as the others, beyond the clip's end.
    """

    def __init__(self, num_frames: int, window: int, overlap: int = 0):
        """
        Args:
          window: frames denoised together. overlap: of no meaning here.
        """
        del overlap
        self.num_frames, self.length = num_frames, min(window, num_frames)

    def __len__(self) -> int:
        return -(-self.num_frames // self.length)

    def tasks(self, steps: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """See Windowing."""
        for i in range(len(self)):
            frames = i * self.length + np.arange(self.length, dtype=np.int32)
            for step in range(steps):
                yield step, frames, np.ones(self.length, np.float32)


def make(num_frames: int, kind: str, window: int, overlap: int) -> Overlapping | Circular | Chained:
    """The windows of a clip; kind: "overlapping", "circular" or "chained"."""
    kinds = {"overlapping": Overlapping, "circular": Circular, "chained": Chained}
    return kinds[kind](num_frames, window, overlap)


def _spread(total: int, length: int, overlap: int) -> np.ndarray:
    """int32 [n], where n pieces begin that cover a line evenly and share at least `overlap`."""
    count = max(1, int(np.ceil((total - overlap) / (length - overlap))))
    return np.round(np.linspace(0, total - min(length, total), count)).astype(np.int32)


def _blend(starts: np.ndarray, length: int, total: int, overlap: int) -> np.ndarray:
    """float32 [n, length], weights of pieces that ramp over `overlap` and sum to 1 on the line."""
    ramp = np.minimum(np.arange(1, length + 1), np.arange(length, 0, -1)).clip(max=overlap + 1)
    weights = np.tile(ramp.astype(np.float64), (len(starts), 1))
    weights[0, : length // 2] = weights[-1, length // 2 :] = overlap + 1
    places, sums = starts[:, None] + np.arange(length), np.zeros(total)
    np.add.at(sums, places, weights)
    return (weights / sums[places]).astype(np.float32)


def denoise_windows(
    windowing: Windowing,
    steps: int,
    noise: Callable[[np.ndarray], np.ndarray],
    predict: Callable[[np.ndarray, np.ndarray, int], np.ndarray],
    advance: Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int], tuple],
    report: Callable[[], None] = lambda: None,
) -> Iterator[np.ndarray]:
    """The denoised frames, in order, as they are finished.

    All arrays are float32 [B, w, h, w, c], frames are int32 [w], a step is its number.

    Args:
      noise: of frames. predict: at (latents, frames, step). advance: (latents, clean, prediction,
      frames, step) to the latents and clean latents after the step.
      report: called after every prediction.

    Yields:
      [B, n, h, w, c] of the next n frames, n at least 1.
    """
    latents, clean, sums, covered = {}, {}, {}, {}
    finished, first = {}, 0
    for step, frames, weights in windowing.tasks(steps):
        if any(f not in latents for f in frames):
            for f, start in zip(frames, np.moveaxis(np.asarray(noise(frames)), 1, 0)):
                if f not in latents:
                    latents[f], clean[f] = start, np.zeros_like(start)
        z = np.stack([latents[f] for f in frames], 1)
        prediction = np.asarray(predict(z, frames, step))
        for k, f in enumerate(frames):
            sums[f] = sums.get(f, 0) + weights[k] * prediction[:, k]
            covered[f] = covered.get(f, 0) + weights[k]
        report()
        if not any(covered[f] > _WHOLE for f in frames):
            continue
        # Whole windows, though only some frames are wanted: one compiled shape.
        stacked = (np.stack([x[f] for f in frames], 1) for x in (clean, sums))
        after = [np.asarray(x) for x in advance(z, *stacked, frames, step)]
        for k, f in enumerate(frames):
            if covered[f] > _WHOLE:
                latents[f], clean[f] = (x[:, k] for x in after)
                del sums[f], covered[f]
                if step == steps - 1:
                    finished[f] = latents.pop(f)
                    del clean[f]
        ready = []
        while first in finished and first < windowing.num_frames:
            ready.append(finished.pop(first))
            first += 1
        if ready:
            yield np.stack(ready, 1)
