"""How visible the joints of windows are in clips that a model made, and whether they drift.

    durian evaluate --protocol reenact --dataset DATASET --checkpoint RUN --out REPORT
    python -m benchmarks.seams DATASET/reenact --every 7 REPORT/predictions ...

Seam: the mean absolute change from the last frame of a window to the first of the next, over that
between all other neighbours. A clip moves more at one place than at another, so the truth's own
ratio at the same frames stands beside it; the joint itself is their quotient. Drift: slope of the
error (L1 to the truth) over time, a second; above 0 for all, because clips begin in the portrait's
pose: compare with a model that makes every frame by itself. Prints a table in Markdown, means over
the cases with 95 % bootstrap intervals.
"""

import argparse
from pathlib import Path

import numpy as np

from input_pipeline.dataset.cases import CaseSet
from input_pipeline.media import video

_RESAMPLES = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", type=Path)
    parser.add_argument("predictions", type=Path, nargs="+")
    parser.add_argument("--every", type=int, required=True, help="new frames of a window")
    options = parser.parse_args()
    cases = CaseSet.read(options.cases)
    print("| | change at seams / elsewhere | the truth's | quotient | drift of L1, 1/s |")
    print("|---|---|---|---|---|")
    for folder in options.predictions:
        rows = []
        for case in cases.cases:
            truth = cases.load(case).truth.video / 255.0
            frames = np.stack([*video.read_frames(folder / f"{case.id}.mp4")]) / 255.0
            if not 1 < options.every < len(frames):
                parser.error(f"--every {options.every}: use 2 to {len(frames) - 1}")
            seconds = np.arange(len(frames)) / float(cases.fps)
            error = np.abs(frames - truth).mean(axis=(1, 2, 3))
            slope = np.polyfit(seconds, error, 1)[0]
            rows.append([*changes(frames, options.every), *changes(truth, options.every), slope])
        print(f"| {folder.parent.name} | " + " | ".join(cells(np.array(rows))) + " |", flush=True)


def changes(frames: np.ndarray, every: int) -> tuple[float, float]:
    """Mean change to the frames every, 2 every, ... and to the others, of [F, H, W, 3]."""
    change = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3))
    seam = np.arange(1, len(frames)) % every == 0
    return float(change[seam].mean()), float(change[~seam].mean())


def cells(rows: np.ndarray) -> list[str]:
    """The columns of the table from rows [cases, 5]: ratios of means, and a mean."""

    def values(means: np.ndarray) -> np.ndarray:
        made, true = means[..., 0] / means[..., 1], means[..., 2] / means[..., 3]
        return np.stack([made, true, made / true, means[..., 4]], axis=-1)

    picks = np.random.default_rng(0).integers(len(rows), size=(_RESAMPLES, len(rows)))
    low, high = np.percentile(values(rows[picks].mean(axis=1)), (2.5, 97.5), axis=0)
    forms = (".3f", ".3f", ".3f", "+.4f")
    return [
        f"{value:{form}} [{a:{form}}, {b:{form}}]"
        for value, a, b, form in zip(values(rows.mean(axis=0)), low, high, forms, strict=True)
    ]


if __name__ == "__main__":
    main()
