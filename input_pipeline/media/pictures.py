"""Pictures: read from any file, written whole, resized."""

import contextlib
import struct
import zlib
from pathlib import Path

import av
import cv2
import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from input_pipeline.errors import InputError
from input_pipeline.media.colours import opened, stated, to_rgb
from input_pipeline.media.container import open_media
from input_pipeline.media.contents import describe_instead
from input_pipeline.media.files import check_file, check_output, local, written_beside
from input_pipeline.media.video import read_frames

with contextlib.suppress(ImportError):  # the extra `heic`
    import pi_heif

    pi_heif.register_heif_opener()

# Suffixes by which a file is taken for a photo.
PICTURE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".avif"}
    | {".heic", ".heif", ".hif", ".jp2"}
)
# Bytes: profiles of 2 MB and prompts or edit histories of several are common.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 1 << 28
# What Pillow's readers raise at damaged files, SyntaxError included.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)
_HEIF_KINDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
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

    Grey, palette, CMYK and 16-bit pictures are converted, colours to sRGB; transparency is laid
    over white. The long side is scaled down to 4096 pixels. Of a video or an animation the first
    frame is taken.

    InputError: no such file, unreadable, float pixels, or a short side below 64 pixels.
    """
    path = local(path)
    check_file(path)
    try:
        with opened(path) as stored:
            picture = to_rgb(stored, path, stated(path))
    except UnidentifiedImageError:
        picture = Image.fromarray(_first_frame(path))
    except Image.DecompressionBombError:
        limit = 2 * Image.MAX_IMAGE_PIXELS // 10**6
        raise InputError(f"{path}: more than {limit} megapixels; scale it down first") from None
    except InputError:
        raise
    except _DAMAGED as error:
        raise InputError(f"{path}: damaged picture ({error}); export it again") from None
    if min(picture.size) < SHORTEST_SIDE:
        raise InputError(
            f"{path}: {picture.width}x{picture.height} pixels; the shorter side must be at least "
            f"{SHORTEST_SIDE}: use a larger picture"
        )
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    return np.array(picture)


def write_picture(path: str | Path, image: np.ndarray) -> None:
    """Writes uint8 RGB [H, W, 3] (or RGBA) as PNG, complete or not at all. InputError: not
    writable."""
    path = local(path)
    check_output(path, ".png")
    with written_beside(path) as beside:
        Image.fromarray(image).save(beside)


def _first_frame(path: Path) -> np.ndarray:
    _check_whole(path)
    try:
        return next(read_frames(path))
    except InputError:
        what = describe_instead(path, text=False)
        if what and not what.endswith("picture"):
            raise InputError(f"{path}: not a readable picture: {what}") from None
        raise InputError(
            f"{path}: neither a readable picture nor a readable video; export it as PNG or JPEG"
        ) from None


def _check_whole(path: Path) -> None:
    """InputError: a HEIC in tiles, each of which would pass for a picture."""
    with path.open("rb") as file:
        if file.read(12)[4:] not in {b"ftyp" + kind for kind in _HEIF_KINDS}:
            return
    with contextlib.suppress(av.FFmpegError), open_media(path) as container:
        if len(container.streams.video) == 1:
            return
    raise InputError(
        f"{path}: HEIC, as phones save photos: export it as JPEG, or pip install 'durian_jax[heic]'"
    )
