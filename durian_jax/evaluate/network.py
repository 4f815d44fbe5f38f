"""What metrics with a network have in common, and the two kinds that several networks serve."""

import numpy as np

from durian_jax.evaluate.scores import Prediction
from durian_jax.metrics.frechet import frechet_distance
from input_pipeline.faces.descriptor import FaceDescriptor

# As all published FVDs take them.
FVD_FRAMES = 16


class Network:
    """One metric. `score` gives the values of a prediction that are its own, `over_all` those that
    only the whole set has: a cell of the table for each method, or None."""

    def __init__(self, name: str, facts: dict[str, str]):
        """name: of the metric. facts: what its weights are, for the report."""
        self.name, self.facts = name, facts

    def score(self, method: str, prediction: Prediction) -> dict[str, float | None]:
        return {self.name: self.value(prediction)}

    def value(self, prediction: Prediction) -> float | None:
        """None where the metric has nothing to say."""
        raise NotImplementedError

    def over_all(self) -> dict[str, dict] | None:
        return None


class Identity(Network):
    """Is the person in the prediction that of the portrait?"""

    def __init__(self, name: str, facts: dict[str, str], descriptor: FaceDescriptor):
        super().__init__(name, facts)
        self._embed = descriptor

    def value(self, prediction: Prediction) -> float:
        first, track = prediction.case.scored_from, prediction.track
        own = self._embed(prediction.pictures.portrait, prediction.reference.portrait)
        similarities = [
            float(own @ self._embed(np.round(frame * 255).astype(np.uint8), keypoints))
            if found else 0.0
            for frame, keypoints, found in zip(
                prediction.frames[first:], track.keypoints[first:], track.found[first:]
            )
        ]  # fmt: skip
        return float(np.mean(similarities))


class Frechet(Network):
    """Features of all predictions and of what they should look like; their distance."""

    too_few: str

    def __init__(self, name: str, facts: dict[str, str]):
        super().__init__(name, facts)
        self._found: dict[str, list[tuple[str, np.ndarray]]] = {}
        self._true: dict[str, np.ndarray] = {}

    def features(self, frames: np.ndarray) -> np.ndarray:
        """[n, d] of frames [F, S, S, 3] in [0, 1]; n may be 0."""
        raise NotImplementedError

    def score(self, method: str, prediction: Prediction) -> dict[str, float | None]:
        first = prediction.case.scored_from
        frames, pictures = prediction.frames[first:], prediction.pictures
        true = pictures.driving if pictures.truth is None else pictures.truth.video
        true = true[first:] / np.float32(255)
        if prediction.case.id not in self._true:
            self._true[prediction.case.id] = self.features(true)
        same = np.array_equal(frames, true)  # the baseline "truth"
        features = self._true[prediction.case.id] if same else self.features(frames)
        self._found.setdefault(method, []).append((prediction.case.id, features))
        return {}

    def over_all(self) -> dict[str, dict]:
        cells = {}
        for method, parts in self._found.items():
            pairs = [(features, self._true[id]) for id, features in parts]
            # A clip that is too short has none, and its empty array another width.
            found, true = ([part for part in side if len(part)] for side in zip(*pairs))
            if min(sum(map(len, found)), sum(map(len, true))) < 2:
                cells[method] = {"not_available": self.too_few}
            else:
                found, true = np.concatenate(found), np.concatenate(true)
                distance = frechet_distance(found, true)
                cells[method] = {"mean": distance, "count": len(parts), "samples": len(found)}
        return cells


class ClipFrechet(Frechet):
    """That of whole clips, by their first frames."""

    too_few = f"needs 2 clips of {FVD_FRAMES} frames"

    def features(self, frames: np.ndarray) -> np.ndarray:
        if len(frames) < FVD_FRAMES:
            return np.zeros((0, 1))
        return self.clip_features(frames[None, :FVD_FRAMES])

    def clip_features(self, clip: np.ndarray) -> np.ndarray:
        """[1, d] of frames [1, 16, S, S, 3] in [0, 1]."""
        raise NotImplementedError
