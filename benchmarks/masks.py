"""Face aligner and borrowed masks against the rendered truth.

    python -m benchmarks.masks > benchmarks/results/masks-DATE.md

Portrait and source are two rendered people whose heads are turned against each other by up to 35
degrees; the truth is the portrait rendered again, wearing what the source wears. Keypoints are
found by the landmarker, as in use.
"""

import argparse
import datetime
import functools
import importlib.metadata
import os
import platform
import sys
from pathlib import Path

import cv2
import numpy as np

from benchmarks.mask_pairs import Pairs, pairs
from input_pipeline.faces import geometry
from input_pipeline.kinds import KINDS, MIN_ATTRIBUTE_AREA
from input_pipeline.masks import alignment, regions

_LARGE = 20  # degrees


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=200, help="of each kind")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--cache", type=Path, help="folder that keeps the rendered pairs")
    options = parser.parse_args()
    rendered = {kind: pairs(kind, options.pairs, options.size, options.cache) for kind in KINDS}
    print("# Aligned and borrowed masks against the rendered truth\n")
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("jax", "numpy")]
    print(f"{datetime.date.today()}, {os.cpu_count()} cores {platform.machine()}, ", end="")
    print(f"{', '.join(versions)}\n\n    python -m benchmarks.masks {' '.join(sys.argv[1:])}\n")
    print("The constants of the aligner were chosen on the first 60 pairs of each kind.\n")
    _print_aligners(rendered)
    _print_expansions(rendered)


def _print_aligners(rendered: dict[str, Pairs]) -> None:
    print("## Aligner: IoU with the true mask, mean and its standard error\n")
    columns = ["", "pairs", "not aligned", "similarity", "geometric", "geometric, turned more than"]
    columns[-1] += f" {_LARGE} degrees"
    columns += ["similarity, likewise", "geometric, exact keypoints"]
    print("|", " | ".join(columns), " |\n|", " --- |" * len(columns), sep="")
    for kind, given in rendered.items():
        found = given.source_mask, given.source_found, given.portrait_found
        exact = given.source_mask, given.source_truth, given.portrait_truth
        none = _ious(given.source_mask, given.true_mask)
        similar = _ious(map(similarity, *found), given.true_mask)
        geometric = functools.partial(alignment.align, kind=kind, size=given.true_mask.shape[1])
        aligned = _ious(map(geometric, *found), given.true_mask)
        ideal = _ious(map(geometric, *exact), given.true_mask)
        large = given.degrees > _LARGE
        cells = [none, similar, aligned, aligned[large], similar[large], ideal]
        print(f"| {kind} | {len(aligned)} |", " | ".join(map(_mean, cells)), "|")
    print()


def _print_expansions(rendered: dict[str, Pairs]) -> None:
    """Recall of the true region, and what is hidden beside it as a share of it."""
    print("## Expansion: recall of the true region / excess beside it, as shares of its area\n")
    print("The portrait's own mask, and what is added to it; n donors are drawn at random.\n")
    print("| | pairs | own | grown 4 % | grown 12 % | 1 donor, similarity | 1 donor | 2 | 4 |")
    print("|---|---|---|---|---|---|---|---|---|")
    for kind, given in rendered.items():
        wearing = np.flatnonzero(given.own_mask.mean((1, 2)) >= MIN_ATTRIBUTE_AREA)
        columns = [[] for _ in range(7)]
        for i in wearing:
            own, true, points = given.own_mask[i], given.true_mask[i], given.portrait_found[i]
            people = np.delete(np.arange(len(given.degrees)), i)
            others = np.random.default_rng(int(i)).choice(people, 4, replace=False)
            donors = [(given.source_mask[j], given.source_found[j]) for j in others]
            carried = [alignment.align(*donor, points, kind, len(true)) for donor in donors]
            height = np.ptp(points[:, 1])
            hidden = [own, *(regions.grow(own, share * height) for share in (0.04, 0.12))]
            hidden.append(own | similarity(*donors[0], points))
            hidden += [own | np.any(carried[:count], axis=0) for count in (1, 2, 4)]
            for column, mask in zip(columns, hidden):
                column.append(((mask & true).sum(), (mask & ~true).sum(), true.sum()))
        totals = [np.sum(column, axis=0) for column in columns]
        cells = [f"{hit / true:.2f} / {beside / true:.2f}" for hit, beside, true in totals]
        print(f"| {kind} | {len(wearing)} |", " | ".join(cells), "|")


def similarity(mask: np.ndarray, keypoints: np.ndarray, portrait_keypoints: np.ndarray):
    """The peer: the similarity of all keypoints in the picture plane, least squares."""
    matrix = geometry.similarity(keypoints[:, :2], portrait_keypoints[:, :2])
    return cv2.warpAffine(mask.astype(np.float32), matrix, mask.shape[::-1]) > 0.5


def _ious(masks, true: np.ndarray) -> np.ndarray:
    return np.array([(m & t).sum() / (m | t).sum() for m, t in zip(masks, true)])


def _mean(values: np.ndarray) -> str:
    return f"{values.mean():.3f} ± {values.std(ddof=1) / np.sqrt(len(values)):.3f}"


if __name__ == "__main__":
    main()
