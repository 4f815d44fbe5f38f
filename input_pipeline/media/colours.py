"""Pictures of Pillow in any mode and any colour profile -> sRGB."""

import contextlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from input_pipeline.errors import InputError

_SRGB = ImageCms.createProfile("sRGB")
_ORIENTATION, _SUBFILE = 0x0112, 0x00FE
_REDUCED = 1  # bit of a TIFF's subfile type
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """A picture, upright by its EXIF orientation; a broken EXIF says nothing.

    What Pillow raises. InputError: a photo in raw format, of which it reads a preview only.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of broken EXIF, and 100 megapixels are no bomb
        with Image.open(path) as picture:
            if getattr(picture, "tag_v2", {}).get(_SUBFILE, 0) & _REDUCED:
                raise InputError(
                    f"{path}: a raw photo, of which only the preview can be read: export it as JPEG"
                )
            picture.load()  # which turns a TIFF
            try:
                orientation = picture.getexif().get(_ORIENTATION)
            except Exception:  # whatever its bytes happen to mean
                orientation = None
            turn = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
            yield picture if turn is None else picture.transpose(turn)


def to_rgb(picture: Image.Image, path: Path) -> Image.Image:
    """Mode RGB: colour profiles are applied, transparency is laid over white.

    Raises InputError, naming the path: pixels that are floats.
    """
    if picture.mode == "F":
        raise InputError(f"{path}: pixels are floats; export it as 8-bit or 16-bit PNG")
    if picture.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip at 255
        grey = np.asarray(picture, np.int64)
        grey = grey >> 8 if grey.max(initial=0) > 255 else grey
        return Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).convert("RGB")
    profile = picture.info.get("icc_profile")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        alpha = picture.getchannel("A")
        over = Image.new("RGB", picture.size, "white")
        over.paste(_converted(picture.convert("RGB"), profile), mask=alpha)
        return over
    if picture.mode in ("P", "1", "PA"):
        picture = picture.convert("RGB")
    return _converted(picture, profile).convert("RGB")


def _converted(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """In sRGB; unchanged without a profile, or with one that is broken or does not fit."""
    if not profile:
        return picture
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(source).lower():
            return picture
        return ImageCms.profileToProfile(picture, source, _SRGB, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return picture
