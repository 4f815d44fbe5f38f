"""Pictures of Pillow in any mode and of any colours -> sRGB."""

import contextlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageCms

from input_pipeline.errors import InputError
from input_pipeline.media import hdr
from input_pipeline.media.container import open_media

_SRGB = ImageCms.createProfile("sRGB")
_ORIENTATION, _SUBFILE = 0x0112, 0x00FE
_REDUCED = 1  # bit of a TIFF's subfile type
_RAW_SUFFIXES = frozenset(
    {".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".raf", ".orf", ".rw2"}
    | {".pef", ".srw", ".x3f", ".3fr", ".iiq", ".rwl", ".erf", ".kdc", ".dcr", ".mrw", ".raw"}
)
_UNSPECIFIED = 2, 2  # codes of ITU-T H.273
_GAMMAS = (2, 4, 5, 8)  # transfer, where a PNG has no word on it but its gamma
_USUAL_GAMMA, _ALIKE = 1 / 2.2, 0.05  # what differs by less is no other gamma
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
    raw = InputError(
        f"{path}: a raw photo, of which only the preview can be read: export it as JPEG"
    )
    if path.suffix.lower() in _RAW_SUFFIXES:
        raise raw
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of broken EXIF, and 100 megapixels are no bomb
        with Image.open(path) as picture:
            if getattr(picture, "tag_v2", {}).get(_SUBFILE, 0) & _REDUCED:
                raise raw
            picture.load()  # which turns a TIFF
            try:
                orientation = picture.getexif().get(_ORIENTATION)
            except Exception:  # whatever its bytes happen to mean
                orientation = None
            turn = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
            yield picture if turn is None else picture.transpose(turn)


def stated(path: Path) -> tuple[int, int]:
    """Codes of primaries and transfer (ITU-T H.273) that a file of pictures states.

    By cICP of a PNG, else its cHRM; by the colr box of AVIF and HEIC. (2, 2) where there is none.
    """
    with path.open("rb") as file:
        start = file.read(8)
    if start != b"\x89PNG\r\n\x1a\n" and start[4:] != b"ftyp":
        return _UNSPECIFIED
    with contextlib.suppress(av.FFmpegError), open_media(path) as container:
        for stream in container.streams.video[:1]:
            return stream.codec_context.color_primaries, stream.codec_context.color_trc
    return _UNSPECIFIED


def to_rgb(picture: Image.Image, path: Path, codes: tuple[int, int]) -> Image.Image:
    """Mode RGB: colours are converted to sRGB, transparency is laid over white.

    codes: what is `stated` in the file. Raises InputError, naming the path: pixels that are floats.
    """
    info = picture.info
    if picture.mode == "F":
        raise InputError(f"{path}: pixels are floats; export it as 8-bit or 16-bit PNG")
    if picture.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip at 255
        grey = np.asarray(picture, np.int64)
        grey = grey >> 8 if grey.max(initial=0) > 255 else grey
        picture = Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8))
    if picture.has_transparency_data:
        alpha = picture.convert("RGBA").getchannel("A")
        # Profiles of grey fit grey pictures alone.
        opaque = picture.convert("L" if picture.mode in ("L", "LA", "La") else "RGB")
        over = Image.new("RGB", picture.size, "white")
        over.paste(_converted(opaque, info, codes).convert("RGB"), mask=alpha)
        return over
    if picture.mode in ("P", "1", "PA"):
        picture = picture.convert("RGB")
    return _converted(picture, info, codes).convert("RGB")


def _converted(picture: Image.Image, info: dict, codes: tuple[int, int]) -> Image.Image:
    """In sRGB by what the file says: its codes, else a profile, else PNG's gamma.

    Unchanged if it says nothing, or with a profile that is broken or does not fit.
    """
    is_coded = hdr.kind(*codes) is not None
    if not is_coded and (profile := info.get("icc_profile")):
        return _by_profile(picture, profile)
    gamma = info.get("gamma")
    if gamma and codes[1] in _GAMMAS and abs(gamma / _USUAL_GAMMA - 1) > _ALIKE:
        levels = np.rint(255 * hdr.to_srgb(np.linspace(0, 1, 256) ** (1 / gamma)))
        picture = picture.point(levels.astype(int).tolist() * len(picture.getbands()))
    if not is_coded:
        return picture
    signal = np.asarray(picture.convert("RGB"), np.uint16) * 257
    return Image.fromarray(hdr.to_sdr(signal, *codes))


def _by_profile(picture: Image.Image, profile: bytes) -> Image.Image:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.profileToProfile(picture, source, _SRGB, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return picture
