"""Pictures that move: GIF, animated WebP, PNG and AVIF, read by Pillow."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from input_pipeline.errors import InputError
from input_pipeline.media import timing
from input_pipeline.media.colours import stated, to_rgb

_FORMATS = ("GIF", "WEBP", "PNG", "AVIF")
# ms a frame is shown that says nothing or at most _NOTHING: as browsers do.
_USUAL, _NOTHING = 100, 10


def is_animation(path: Path) -> bool:
    """Whether the file is a picture of these kinds with several frames."""
    try:
        with Image.open(path, formats=_FORMATS) as opened:
            return getattr(opened, "n_frames", 1) > 1
    except (OSError, SyntaxError, ValueError):
        return False


def when(path: Path) -> timing.Timing:
    """At which rate the animation is read; its frames are decoded for that."""
    shown = [Fraction(ms) / 1000 for ms, _ in _frames(path)]
    seconds = np.cumsum([0, *shown[:-1]]).astype(float)
    return timing.of_times(seconds, float(shown[-1]))


def read(path: Path) -> Iterator[tuple[Fraction, np.ndarray]]:
    """(seconds, uint8 [H, W, 3]) of each frame. InputError: damaged."""
    seconds, codes = Fraction(0), stated(path)
    for ms, opened in _frames(path):
        yield seconds, np.array(to_rgb(opened, path, codes))
        seconds += Fraction(ms) / 1000


def _frames(path: Path) -> Iterator[tuple[float, Image.Image]]:
    number = 0
    try:
        with Image.open(path, formats=_FORMATS) as opened:
            # A PNG may hold a picture for readers that know no animation.
            first = int(bool(getattr(opened, "default_image", False)))
            for number in range(first, opened.n_frames):
                opened.seek(number)
                opened.load()
                shown = opened.info.get("duration") or 0
                yield shown if shown > _NOTHING else _USUAL, opened
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise InputError(
            f"{path}: frame {number}: damaged animation ({error}); export it again"
        ) from None
