"""Clips and pictures, in and out: PyAV for video, Pillow for pictures. uint8 RGB everywhere."""

import contextlib
import itertools
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Colorspace, Interpolation
from PIL import Image, ImageOps, UnidentifiedImageError

from input_pipeline.errors import InputError

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg"})
LONGEST_SIDE = 4096
SHORTEST_SIDE = 64
# Codecs that both the mp4 container and common players take; others are encoded anew to AAC.
_MP4_AUDIO = frozenset({"aac", "mp3", "ac3", "eac3", "alac"})
_AAC_RATE = 48_000
_BT709, _MPEG_RANGE = 1, 1
# Without these flags swscale rounds down: pictures get one level darker with every read or write.
_EXACT = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


@dataclass(frozen=True)
class _Codec:
    name: str
    pixels: str
    options: dict[str, str]


@dataclass(frozen=True)
class VideoInfo:
    """What a clip is before it is decoded.

    width, height: pixels, after the rotation the container asks for. fps: mean frame rate.
    frame_count: as stated by the container, otherwise duration x fps (an estimate, perhaps 0).
    """

    path: Path
    width: int
    height: int
    fps: Fraction
    frame_count: int
    has_audio: bool


def probe(path: str | Path) -> VideoInfo:
    """Describes a clip from its header and first frame. InputError as in `read_frames`."""
    path = Path(path)
    height, width = next(read_frames(path)).shape[:2]
    with _open(path) as container:
        stream = _video_stream(container, path)
        fps = stream.average_rate or stream.guessed_rate or Fraction(25)
        if container.duration is None:
            seconds = 0.0
        else:
            seconds = container.duration / av.time_base
        return VideoInfo(
            path=path,
            width=width,
            height=height,
            fps=fps,
            frame_count=stream.frames or round(seconds * fps),
            has_audio=bool(container.streams.audio),
        )


def read_frames(path: str | Path) -> Iterator[np.ndarray]:
    """Yields every frame, uint8 [H, W, 3] RGB, in display order and upright; constant memory.

    InputError: no such file, not a video, no picture track, no frames, or (naming the frame) a
    stream that breaks before its end.
    """
    path = Path(path)
    count = 0
    with _open(path) as container:
        stream = _video_stream(container, path)
        try:
            for packet in container.demux(stream):
                if packet.is_corrupt:
                    raise InputError(_broken(path, count, "the file is cut short"))
                for frame in packet.decode():
                    if frame.is_corrupt:
                        raise InputError(_broken(path, count, "damaged data"))
                    yield _upright(frame)
                    count += 1
        except av.FFmpegError as error:
            raise InputError(_broken(path, count, error.strerror)) from None
    if count == 0:
        raise InputError(f"{path}: 0 frames; at least 1 is needed: export the clip again")


def read_picture(path: str | Path) -> np.ndarray:
    """Reads a picture, uint8 [H, W, 3] RGB, upright by its EXIF orientation.

    Grey, palette, CMYK and 16-bit pictures are converted; transparency is laid over white. The
    long side is scaled down to 4096 pixels. Of a video or an animation the first frame is taken.

    InputError: no such file, unreadable, float pixels, or a short side below 64 pixels.
    """
    path = Path(path)
    _check_file(path)
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


def write_video(
    path: str | Path,
    frames: Iterable[np.ndarray],
    fps: Fraction,
    audio_from: str | Path | None = None,
    crf: int = 18,
    lossless: bool = False,
    reproducible: bool = False,
) -> None:
    """Writes an mp4 (H.264, yuv420p, BT.709, index first), complete or not at all.

    Args:
      path: must end in .mp4; its folder is made if needed.
      frames: uint8 [H, W, 3] RGB, all of one size, at least one. An odd side is made even by
        repeating its last row or column.
      fps: frames per second.
      audio_from: clip whose sound is kept, cut to the length of the frames. AAC, MP3, AC-3 and
        ALAC packets are copied, other codecs are encoded to AAC. A clip without sound is fine.
      crf: x264 constant rate factor, 0 (lossless but for the colour conversion) to 51.
      lossless: RGB (libx264rgb, qp 0) in place of yuv420p and crf: `read_frames` gives the very
        frames back. Few players show such a file.
      reproducible: the same frames give the same bytes, on any number of cores; slower.

    InputError: path is not writable (raised before the first frame is asked for) or not .mp4,
      audio_from is unreadable, or there are no frames.
    """
    path = Path(path)
    check_output(path, ".mp4")
    with contextlib.ExitStack() as stack:
        beside = stack.enter_context(written_beside(path))
        output = stack.enter_context(
            av.open(str(beside), "w", format="mp4", options={"movflags": "+faststart"})
        )
        audio = iter(())
        if audio_from is not None:
            source = stack.enter_context(_open(Path(audio_from)))
            audio = _audio_packets(source, output, Path(audio_from))
        codec = _Codec("libx264rgb", "rgb24", {"qp": "0"})
        if not lossless:
            codec = _Codec("libx264", "yuv420p", {"crf": str(crf)})
        if reproducible:
            # mbtree's vector code reads past the rows of narrow pictures.
            codec.options.update(threads="1", mbtree="0")
        _mux(output, iter(frames), Fraction(fps), audio, codec, path)


def write_picture(path: str | Path, image: np.ndarray) -> None:
    """Writes uint8 [H, W, 3] RGB as PNG, complete or not at all. InputError: not writable."""
    path = Path(path)
    check_output(path, ".png")
    with written_beside(path) as beside:
        Image.fromarray(image).save(beside)


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give a file")
    if not path.exists():
        raise InputError(f"{path}: no such file; check the path")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: 0 bytes; copy or export it again")


def _open(path: Path) -> av.container.InputContainer:
    _check_file(path)
    try:
        return av.open(str(path))
    except av.FFmpegError as error:
        raise InputError(
            f"{path}: not a readable video ({error.strerror}); it is of another kind or cut "
            "short: export it again as mp4"
        ) from None


def _video_stream(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    for stream in container.streams.video:
        # The cover picture of a sound file is stored as a video stream of one frame.
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    raise InputError(f"{path}: holds no picture track; give a video")


def _broken(path: Path, frame: int, reason: str) -> str:
    return f"{path}: frame {frame}: broken stream ({reason}); copy or export the clip again"


def _upright(frame: av.VideoFrame) -> np.ndarray:
    image = frame.reformat(format="rgb24", interpolation=_EXACT).to_ndarray()
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns))


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


def check_output(path: str | Path, suffix: str) -> None:
    """Makes the folder of an output. InputError: another suffix, or a file cannot be made there."""
    path = Path(path)
    if path.suffix.lower() != suffix.lower():
        raise InputError(f"{path}: ends in '{path.suffix}'; name the output *{suffix}")
    try:
        if path.is_dir():
            raise IsADirectoryError(None, "is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); choose a writable place"
        ) from None


@contextlib.contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """A path to write to, in the same folder; becomes `path` if all goes well, else goes away.

    InputError, at once: not writable.
    """
    beside = path.with_name(f".{path.stem}.tmp{path.suffix}")
    check_output(path, path.suffix)
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _mux(
    output: av.container.OutputContainer,
    frames: Iterator[np.ndarray],
    fps: Fraction,
    audio: Iterator[av.Packet],
    codec: "_Codec",
    path: Path,
) -> None:
    first = next(frames, None)
    if first is None:
        raise InputError(f"{path}: 0 frames to write; give a clip with at least 1 frame")
    height, width = first.shape[:2]
    stream = output.add_stream(codec.name, rate=fps, options=codec.options)
    stream.width, stream.height = width + width % 2, height + height % 2
    stream.pix_fmt = codec.pixels
    if codec.pixels == "yuv420p":
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _MPEG_RANGE
    next_sound = next(audio, None)
    for index, image in enumerate(itertools.chain([first], frames)):
        if image.shape != first.shape:
            raise ValueError(f"frame {index} is {image.shape}, frame 0 is {first.shape}")
        image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        if codec.pixels == "yuv420p":
            frame = frame.reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU709, interpolation=_EXACT
            )
        frame.pts, frame.time_base = index, 1 / fps
        output.mux(stream.encode(frame))
        end = (index + 1) / fps
        while next_sound is not None and next_sound.pts * next_sound.time_base < end:
            output.mux(next_sound)
            next_sound = next(audio, None)
    output.mux(stream.encode())


def _audio_packets(
    source: av.container.InputContainer, output: av.container.OutputContainer, path: Path
) -> Iterator[av.Packet]:
    """Adds the sound track of `source`, if any, to `output`; its packets, timed from frame 0."""
    if not source.streams.audio:
        return iter(())
    track = source.streams.audio[0]
    picture = _video_stream(source, path)
    start = (picture.start_time or 0) * picture.time_base
    if track.codec_context.name in _MP4_AUDIO:
        return _copied(source, track, output.add_stream_from_template(track), start)
    encoder = output.add_stream("aac", rate=_AAC_RATE)
    encoder.layout = "mono" if track.codec_context.channels == 1 else "stereo"
    return _encoded(source, track, encoder, start)


def _copied(source, track, copy, start: Fraction) -> Iterator[av.Packet]:
    shift = round(start / track.time_base)
    for packet in source.demux(track):
        if packet.dts is None:  # the empty packet at the end
            continue
        packet.pts -= shift
        packet.dts -= shift
        packet.stream = copy
        yield packet


def _encoded(source, track, encoder, start: Fraction) -> Iterator[av.Packet]:
    resampler = av.AudioResampler("fltp", encoder.layout, _AAC_RATE, encoder.frame_size)
    for frame in itertools.chain(source.decode(track), [None]):
        if frame is not None:
            frame.pts -= round(start / frame.time_base)
        for sound in resampler.resample(frame):
            yield from encoder.encode(sound)
    yield from encoder.encode()
