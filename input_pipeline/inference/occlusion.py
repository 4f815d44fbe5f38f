"""Attributes of different people on one head: what lies under another one does not show."""

import numpy as np

from input_pipeline.faces import geometry
from input_pipeline.inference import aligners
from input_pipeline.inference.subject import Subject

# The kinds that lie over a kind on every head. Hair falls over the arms of glasses or behind them,
# and beard and glasses or hat hardly meet: there each photo shows its own order.
COVERED_BY = {"hair": ("hat",)}


def uncovered(sources: list[tuple[Subject, str]], masks: list[np.ndarray]) -> list[np.ndarray]:
    """What of each attribute is still to be seen when all are worn together.

    A cover is laid on the head of the person below, by `aligners.geometric`, and hides all down to
    its lower edge: it presses down what would stick out above it. In a photo that shows both, it
    has done so already. The order of the attributes does not matter.

    Args:
      sources: who shows the attributes, and of which kind. masks: bool [S, S], where.

    Returns:
      bool [S, S] for each; empty where nothing is left.
    """
    return [
        mask & ~_cover(source, kind, sources, masks) for (source, kind), mask in zip(sources, masks)
    ]


def _cover(below: Subject, kind: str, sources, masks) -> np.ndarray:
    covered = np.zeros(below.image.shape[:2], bool)
    for (source, above), mask in zip(sources, masks):
        if above in COVERED_BY.get(kind, ()) and source.path != below.path:
            covered |= _and_above(aligners.geometric(source, above, mask, below), below.keypoints)
    return covered


def _and_above(mask: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
    """The mask, and all that is farther up on this head than its lower edge, across gaps."""
    if not mask.any():
        return mask
    down = geometry.head_pose(keypoints)[0][:2, 1]
    y, x = np.indices(mask.shape)
    depth = x * down[0] + y * down[1]
    column = np.round((x * down[1] - y * down[0]) / np.linalg.norm(down)).astype(int)
    column -= column.min()
    edge = np.full(column.max() + 1, -np.inf)
    np.maximum.at(edge, column[mask], depth[mask])
    (known,) = np.nonzero(np.isfinite(edge))
    edge = np.interp(np.arange(len(edge)), known, edge[known], left=-np.inf, right=-np.inf)
    return depth <= edge[column]
