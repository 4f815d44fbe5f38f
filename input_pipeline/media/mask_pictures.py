"""Masks that people paint: white where something shows, in any kind of picture."""

from pathlib import Path

import numpy as np
from PIL import Image

from input_pipeline.errors import InputError
from input_pipeline.media.colours import opened
from input_pipeline.media.files import check_file
from input_pipeline.media.pictures import LONGEST_SIDE, read_picture

# Of 255. What is darker or brighter is black or white, as far as paint goes.
_DARK, _BRIGHT = 64, 191
# Pictures whose brightest value is less hold numbers of classes, unless there are just two.
_MOST_CLASSES = 32
# Share of the painted pixels: fewer are soft edges.
_EDGES = 0.05


def read_mask(path: str | Path) -> np.ndarray:
    """Where a mask is white, bool [H, W], upright by its EXIF orientation.

    White is what is brighter than half of the brightest value, so that masks of 0 and 1, of greys
    and of 16 bits are read as well; of two entries of a palette the brighter or the later one. What
    is transparent is not covered: of a picture with an alpha channel the opaque part counts, that
    is what is more than half as opaque as the most opaque pixel, and of that the white part where
    it is painted in black and white. The long side is scaled down to 4096 pixels, as that of
    photos.

    InputError: no such file, unreadable, several classes, or black on transparent.
    """
    path = Path(path)
    check_file(path)
    try:
        with opened(path) as picture:
            covered = _covered(picture, path)
    except InputError:
        raise
    # What Pillow cannot read or cannot convert, another reader may; if not it says what is wrong.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        covered = read_picture(path).max(-1) > 127
    small = Image.fromarray(covered.astype(np.uint8) * 255)
    small.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    return np.asarray(small) > 127


def _covered(picture: Image.Image, path: Path) -> np.ndarray:
    if picture.has_transparency_data:
        rgba = np.asarray(picture.convert("RGBA"))
        opaque = rgba[..., 3] > rgba[..., 3].max() / 2  # brushes may be soft all over
        if not opaque.all():
            return _painted(rgba[..., :3].max(-1), opaque, path)
        picture = picture.convert("RGB")
    if picture.mode == "P":
        return _by_palette(picture, path)
    if picture.mode == "F" or picture.mode.startswith("I"):
        return _by_value(np.nan_to_num(np.asarray(picture, np.float64)), path)
    return _by_value(np.asarray(picture.convert("RGB")).max(-1), path)


def _painted(values: np.ndarray, opaque: np.ndarray, path: Path) -> np.ndarray:
    """values uint8 [H, W] of a picture that is partly transparent, opaque bool [H, W]."""
    shown = values[opaque]
    if not shown.size:
        return opaque
    if shown.max() < _DARK:
        raise InputError(
            f"{path}: black on transparent: its alpha channel does not tell which of them is "
            "covered; paint white where it shows, on black or on transparent"
        )
    dark, bright = (shown < _DARK).mean(), (shown > _BRIGHT).mean()
    is_black_and_white = min(dark, bright) > 0 and dark + bright > 1 - _EDGES
    return opaque & (values > 127) if is_black_and_white else opaque


def _by_palette(picture: Image.Image, path: Path) -> np.ndarray:
    """By the colours of a palette, or by its numbers where two colours are equally bright."""
    numbers, colours = np.asarray(picture), np.asarray(picture.convert("RGB"))
    values = colours.max(-1)
    used = np.unique(numbers)
    if len(used) == 2:
        low, high = (values[numbers == number][0] for number in used)
        is_alike = abs(int(low) - int(high)) < _DARK and max(low, high) > _MOST_CLASSES
        if is_alike or low == high:
            return numbers == used[1]
    elif len(used) > 2 and (colours.min(-1) != values).any():
        raise InputError(
            f"{path}: {len(used)} colours of a palette, a map of classes: give a mask that is "
            "white where it shows and black elsewhere"
        )
    return _by_value(values, path)


def _by_value(values: np.ndarray, path: Path) -> np.ndarray:
    """values [H, W], of any range."""
    low, high = values.min(), values.max()
    found = np.unique(values)
    if low == high:
        return values > 0
    if len(found) == 2 and (low < high / 2 or high <= 127):
        return values == high
    if 1 < high < _MOST_CLASSES:
        shown = ", ".join(f"{value:g}" for value in found[:5])
        raise InputError(
            f"{path}: its values are {shown}{', ...' if len(found) > 5 else ''}, a map of classes: "
            "give a mask that is 255 where it shows and 0 elsewhere"
        )
    return values > high / 2
