"""An animation of cases and predictions side by side, for the eye: WebP or GIF.

    python -m benchmarks.showcase CASES PREDICTIONS OUT.webp [ID ...]

One row per case: portrait, attributes, driver, prediction, truth; PREDICTIONS is a folder as
`durian evaluate` keeps in REPORT/predictions. Without IDs all cases are shown.
"""

import sys
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from durian_jax.evaluate.predictions import FolderPredictions
from input_pipeline.dataset.cases import CaseSet

TILE, STRIP = 160, 20


def rows(
    cases: CaseSet, predictions: FolderPredictions, chosen: list
) -> tuple[list[str], np.ndarray]:
    """Titles of the columns, and uint8 [F, H, W, 3]: the rows of all cases over each other."""
    widest = max(len(case.attributes) for case in chosen)
    titles = ["portrait", *["attribute"] * widest, "driver", "result", "truth"]
    films = []
    for case in chosen:
        shown = cases.load(case)
        stills = [shown.portrait, *shown.attributes]
        stills += [np.full_like(shown.portrait, 255)] * (widest - len(shown.attributes))
        prediction = np.round(predictions(case) * 255).astype(np.uint8)
        columns = [np.repeat(still[None], case.frames, 0) for still in stills]
        columns += [shown.driving, prediction, shown.truth.video]
        film = [
            np.hstack(
                [cv2.resize(c[i], (TILE, TILE), interpolation=cv2.INTER_CUBIC) for c in columns]
            )
            for i in range(case.frames)
        ]
        films.append(np.stack(film))
    return titles, np.concatenate(films, axis=1)


def titled(titles: list[str], film: np.ndarray) -> list[Image.Image]:
    """The frames with a title over each column."""
    head = Image.new("RGB", (TILE * len(titles), STRIP), "white")
    pen = ImageDraw.Draw(head)
    for i, title in enumerate(titles):
        pen.text((TILE * i + 4, 2), title, "black", ImageFont.load_default(13))
    return [Image.fromarray(np.vstack([np.asarray(head), frame])) for frame in film]


def main(cases: str, predictions: str, out: str, *ids: str) -> None:
    found = CaseSet.read(cases)
    chosen = [case for case in found.cases if not ids or case.id in ids]
    predictions = FolderPredictions(predictions, found, tuple(chosen))
    first, *rest = titled(*rows(found, predictions, chosen))
    duration = round(1000 / float(found.fps))
    options = {"quality": 80} if Path(out).suffix == ".webp" else {}
    first.save(out, save_all=True, append_images=rest, duration=duration, loop=0, **options)


if __name__ == "__main__":
    main(*sys.argv[1:])
