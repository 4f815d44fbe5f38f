"""Pictures of Pillow in any mode and any colour profile -> sRGB."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from input_pipeline.errors import InputError

_SRGB = ImageCms.createProfile("sRGB")


def to_rgb(picture: Image.Image, path: Path) -> Image.Image:
    """Mode RGB: colour profiles are applied, transparency is laid over white.

    Raises InputError, naming the path: pixels that are floats.
    """
    if picture.mode == "F":
        raise InputError(f"{path}: pixels are floats; export it as 8-bit or 16-bit PNG")
    if picture.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip at 255
        grey = np.asarray(picture, np.int64) >> 8
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
