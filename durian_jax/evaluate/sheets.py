"""Contact sheets: a case and every prediction of it, side by side, for the eye."""

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from input_pipeline.dataset.cases import Case, Pictures

_MOST = 24  # cases that are drawn, evenly chosen
_FRAMES = 4
_TILE, _STRIP = 160, 22


def choose(scored: tuple[Case, ...]) -> list[Case]:
    """The cases to draw: evenly chosen, so that every group of some size is there."""
    places = np.linspace(0, len(scored) - 1, min(_MOST, len(scored)))
    return [scored[round(place)] for place in places]


def columns(
    case: Case, pictures: Pictures, predictions: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """uint8 [F, S, S, 3], or [1, S, S, 3] of what stands still, by what they show: portrait,
    attributes, driver, truth, the other predictions.

    predictions: float [F, S, S, 3] in [0, 1] by name.
    """
    found = {"portrait": pictures.portrait[None]}
    for i, (attribute, image) in enumerate(zip(case.attributes, pictures.attributes)):
        share = "" if attribute.weight == 1 else f" {attribute.weight:.0%}"
        found[f"{attribute.kind}{share}" + (f" ({i})" if i else "")] = image[None]
    found["driver"] = pictures.driving
    for name in sorted(predictions, key=lambda name: name != "truth"):
        found[name] = np.round(predictions[name] * 255).astype(np.uint8)
    return found


def draw(case: Case, pictures: Pictures, predictions: dict[str, np.ndarray]) -> np.ndarray:
    """uint8 [H, W, 3]: all `columns`; a few frames, one a row."""
    shown = columns(case, pictures, predictions)
    rows = np.linspace(case.scored_from, case.frames - 1, min(_FRAMES, case.frames))
    picture = [_strip([f"case {case.id}, {case.group}"] + [""] * (len(shown) - 1))]
    picture.append(_strip(list(shown)))
    for row in rows.round().astype(int):
        tiles = [
            cv2.resize(frames[min(row, len(frames) - 1)], (_TILE, _TILE),
                       interpolation=cv2.INTER_AREA)
            for frames in shown.values()
        ]  # fmt: skip
        picture.append(np.concatenate(tiles, 1))
    return np.concatenate(picture)


def _strip(words: list[str]) -> np.ndarray:
    """uint8 [strip, tiles, 3]: a line of words, one over each column."""
    picture = Image.new("RGB", (_TILE * len(words), _STRIP))
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(13)
    for i, word in enumerate(words):
        pen.text((_TILE * i + 4, 3), word, "white", font)
    return np.asarray(picture)
