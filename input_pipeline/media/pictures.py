"""Pictures: read from any file, written whole, resized."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from input_pipeline.errors import InputError
from input_pipeline.media.files import check_file, check_output, written_beside
from input_pipeline.media.video import read_frames

# Pixels: longer sides are scaled down, shorter ones refused.
LONGEST_SIDE = 4096
SHORTEST_SIDE = 64


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """The square picture at `size` pixels a side: area average to shrink, linear to enlarge."""
    if image.shape[0] == size:
        return image
    shrinks = image.shape[0] > size
    return cv2.resize(
        image, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )


def read_picture(path: str | Path) -> np.ndarray:
    """Reads a picture, uint8 [H, W, 3] RGB, upright by its EXIF orientation.

    Grey, palette, CMYK and 16-bit pictures are converted; transparency is laid over white. The
    long side is scaled down to 4096 pixels. Of a video or an animation the first frame is taken.

    InputError: no such file, unreadable, float pixels, or a short side below 64 pixels.
    """
    path = Path(path)
    check_file(path)
    try:
        with Image.open(path) as opened:
            picture = _to_rgb(ImageOps.exif_transpose(opened), path)
    except UnidentifiedImageError:
        picture = Image.fromarray(_first_frame(path))
    except Image.DecompressionBombError:
        limit = 2 * Image.MAX_IMAGE_PIXELS // 10**6
        raise InputError(f"{path}: more than {limit} megapixels; scale it down first") from None
    except (OSError, SyntaxError) as error:  # Pillow's PNG reader raises SyntaxError
        raise InputError(f"{path}: damaged picture ({error}); export it again") from None
    if min(picture.size) < SHORTEST_SIDE:
        raise InputError(
            f"{path}: {picture.width}x{picture.height} pixels; the shorter side must be at least "
            f"{SHORTEST_SIDE}: use a larger picture"
        )
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    return np.array(picture)


def write_picture(path: str | Path, image: np.ndarray) -> None:
    """Writes uint8 [H, W, 3] RGB as PNG, complete or not at all. InputError: not writable."""
    path = Path(path)
    check_output(path, ".png")
    with written_beside(path) as beside:
        Image.fromarray(image).save(beside)


def _first_frame(path: Path) -> np.ndarray:
    try:
        return next(read_frames(path))
    except InputError:
        raise InputError(
            f"{path}: neither a readable picture nor a readable video; export it as PNG or JPEG"
        ) from None


def _to_rgb(picture: Image.Image, path: Path) -> Image.Image:
    if picture.mode == "F":
        raise InputError(f"{path}: pixels are floats; export it as 8-bit or 16-bit PNG")
    if picture.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip at 255
        grey = np.asarray(picture, np.int64) >> 8
        return Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")
