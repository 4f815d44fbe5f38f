"""Networks whose weights the packages of [eval] carry: LPIPS, FVD of Kinetics, identity."""

import jax
import numpy as np

from durian_jax.evaluate.network import ClipFrechet, Identity, Network
from durian_jax.evaluate.scores import Prediction
from durian_jax.metrics import i3d, lpips
from input_pipeline.faces import descriptor
from input_pipeline.packages import PackagedFile

_BATCH = 16
# Pixels of a batch of pairs: the first layers of VGG-16 hold 0.5 kB of each.
_PIXELS = 1 << 20


def _facts(file: PackagedFile) -> dict[str, str]:
    return {"weights": f"{file.package} {file.version}: {file.path}", "sha256": file.sha256}


class Lpips(Network):
    """LPIPS, see `metrics.lpips`. trunk: "alex" or "vgg"."""

    def __init__(self, name: str, trunk: str):
        super().__init__(name, _facts(lpips.FILES[trunk]))
        self._trunk, self._weights = trunk, jax.device_put(lpips.load(trunk))

    def value(self, prediction: Prediction) -> float | None:
        """None without a truth, and for pictures too small for the network."""
        first, side = prediction.case.scored_from, prediction.frames.shape[1]
        if prediction.pictures.truth is None or side < lpips.SMALLEST[self._trunk]:
            return None
        truth = prediction.pictures.truth.video[first:] / np.float32(255)
        frames = prediction.frames[first:]
        size, found = int(np.clip(_PIXELS // side**2, 1, _BATCH)), []
        for start in range(0, len(frames), size):
            pair = [_padded(one[start : start + size], size) for one in (frames, truth)]
            found.append(np.asarray(lpips.distances(self._weights, *pair, self._trunk)))
        return float(np.concatenate(found)[: len(frames)].mean(dtype=np.float64))


class FvdKinetics(ClipFrechet):
    """Fréchet distance of the logits of `metrics.i3d`."""

    def __init__(self, name: str):
        super().__init__(name, _facts(i3d.FILE))
        self._weights = jax.device_put(i3d.load())

    def clip_features(self, clip: np.ndarray) -> np.ndarray:
        return np.asarray(i3d.logits(self._weights, np.float32(clip)))


def sface(name: str) -> Identity:
    """The metric of `descriptor.SFACE`."""
    return Identity(name, _facts(descriptor.SFACE), descriptor.load(descriptor.PACKAGED))


def _padded(frames: np.ndarray, count: int) -> np.ndarray:
    """float32; the last frame repeated up to `count`, so that one program serves all batches."""
    return np.pad(np.float32(frames), ((0, count - len(frames)), (0, 0), (0, 0), (0, 0)), "edge")
