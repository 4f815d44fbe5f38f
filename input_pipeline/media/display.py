"""Decoded frames as players show them: turned, mirrored, square pixels, SDR, whole pictures."""

import math
import re
from collections.abc import Iterable, Iterator
from fractions import Fraction

import av
import numpy as np
from av.sidedata.sidedata import Type
from av.video.reformatter import Colorspace, Interpolation

from input_pipeline.media import hdr

# Without these flags swscale rounds down: pictures get one level darker with every read or write.
EXACT = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
_ODDEST = 8  # aspect of a pixel, beyond which the header is taken for broken
_UNSPECIFIED = 2  # of primaries and matrices, ITU-T H.273
_FLOATS = re.compile(r"f(16|32)")  # in names of FFmpeg's pixel formats
_BT2020, _BT2020_MATRICES = 9, (9, 10)
# A picture that is larger and does not say its matrix is of BT.709, as players have it.
_SD_WIDTH, _SD_HEIGHT = 1024, 576


def picture(frame: av.VideoFrame, aspect: Fraction | None) -> np.ndarray:
    """uint8 [H, W, 3] RGB, over white. aspect: width of a pixel over its height, if known."""
    size, colours = _square(frame.width, frame.height, aspect), {"src_colorspace": _matrix(frame)}
    if _is_linear(frame) or hdr.kind(_primaries(frame), frame.color_trc):
        # EXACT's full chroma gives false colours at 16 bits.
        coarse = Interpolation.BILINEAR
        wide = frame.reformat(*size, format="rgb48le", interpolation=coarse, **colours)
        transfer = hdr.LINEAR if _is_linear(frame) else frame.color_trc
        image = hdr.to_sdr(wide.to_ndarray(), _primaries(frame), transfer)
    else:
        image = frame.reformat(*size, format="rgb24", interpolation=EXACT, **colours).to_ndarray()
    if has_alpha(frame.format):
        alpha = frame.reformat(*size, format="rgba").to_ndarray()[..., 3:]
        image = (255 - (255 - image) * (alpha / np.float32(255)) + 0.5).astype(np.uint8)
    return np.ascontiguousarray(_turned(image, _shown(frame)))


def progressive(frames: Iterable[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """The frames, as many; those made of two fields are rebuilt as whole pictures (BWDIF)."""
    graph, shape = None, None
    for frame in frames:
        if graph is not None and shape != _shape(frame):
            graph.push(None)
            yield from _pulled(graph)
            graph = None
        if graph is None and frame.interlaced_frame:
            graph, shape = _deinterlacer(frame), _shape(frame)
        if graph is None:
            yield frame
        else:
            graph.push(frame)
            yield from _pulled(graph)
    if graph is not None:
        graph.push(None)
        yield from _pulled(graph)


def notes(frame: av.VideoFrame, aspect: Fraction | None) -> list[str]:
    """What was done to pictures like this one and is no matter of course."""
    found = []
    if (kind := hdr.kind(_primaries(frame), frame.color_trc)) is not None:
        found.append(f"{kind}, converted to the colours of a usual screen")
    if frame.interlaced_frame:
        found.append("interlaced, deinterlaced")
    if _square(frame.width, frame.height, aspect) != (frame.width, frame.height):
        found.append(f"pixels of {aspect.numerator}:{aspect.denominator}, made square")
    return found


def has_alpha(pixels: av.VideoFormat) -> bool:
    return any(component.is_alpha for component in pixels.components)


def _square(width: int, height: int, aspect: Fraction | None) -> tuple[int, int]:
    """Width and height at square pixels; nothing is made smaller."""
    if not aspect or not 1 / _ODDEST <= aspect <= _ODDEST:
        return width, height
    if aspect > 1:
        return round(width * aspect), height
    return width, round(height / aspect)


def _primaries(frame: av.VideoFrame) -> int:
    """Code of the primaries; HDR and BT.2020's matrices do without the word."""
    wide = frame.color_trc in hdr.TRANSFERS or frame.colorspace in _BT2020_MATRICES
    return _BT2020 if wide and frame.color_primaries == _UNSPECIFIED else frame.color_primaries


def _matrix(frame: av.VideoFrame) -> Colorspace | None:
    """From YUV to RGB, where the frame does not say it."""
    if frame.colorspace != _UNSPECIFIED:
        return None
    if frame.color_trc in hdr.TRANSFERS:
        return Colorspace.BT2020
    large = frame.width > _SD_WIDTH or frame.height > _SD_HEIGHT
    return Colorspace.ITU709 if large else None


def _is_linear(frame: av.VideoFrame) -> bool:
    """Floats are light: OpenEXR, Radiance, TIFF and PFM. What is brighter than 1 is white."""
    return _FLOATS.search(frame.format.name) is not None


def _shape(frame: av.VideoFrame) -> tuple:
    return frame.width, frame.height, frame.format.name


def _shown(frame: av.VideoFrame) -> np.ndarray:
    """[2, 2] of the header: (x, y) of a pixel @ matrix = where players show it, but for a shift."""
    try:
        found = frame.side_data
    except ValueError:  # beside it is data of a kind that PyAV does not know, such as EXIF
        turn = math.radians(-frame.rotation)
        return np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    for data in found:
        if data.type == Type.DISPLAYMATRIX:
            # Row by row a b u, c d v, x y w; ISO/IEC 14496-12, 8.3.2.
            return np.frombuffer(data, np.int32).reshape(3, 3)[:2, :2].astype(float)
    return np.eye(2)


def _turned(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The nearest of the eight turns and mirrors."""
    if np.abs(np.diag(matrix)).sum() < np.abs(matrix).sum() / 2:
        image, matrix = image.swapaxes(0, 1), matrix[::-1]
    across, down = np.where(np.diag(matrix) < 0, -1, 1)
    return image[::down, ::across]


def _deinterlacer(frame: av.VideoFrame) -> av.filter.Graph:
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
    )
    fields = graph.add("bwdif", "mode=send_frame:deint=interlaced")
    graph.link_nodes(source, fields, graph.add("buffersink")).configure()
    return graph


def _pulled(graph: av.filter.Graph) -> Iterator[av.VideoFrame]:
    try:
        while True:
            yield graph.pull()
    except (BlockingIOError, EOFError):
        return
