"""Clips, in and out, by PyAV. uint8 RGB everywhere."""

import contextlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.reformatter import Colorspace

from input_pipeline.errors import InputError
from input_pipeline.media import animations, display, sound, timing
from input_pipeline.media.container import open_media
from input_pipeline.media.contents import describe_instead
from input_pipeline.media.files import as_url, check_file, check_output, local, written_beside

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".gif", ".apng", ".ts"}
    | {".mts", ".m2ts", ".m2t", ".wmv", ".asf", ".flv", ".f4v", ".3gp", ".3g2", ".ogv", ".ogg"}
    | {".vob", ".m2v", ".mxf", ".divx", ".qt", ".h264", ".hevc", ".y4m", ".dv", ".mjpeg"}
)
# What `VideoWriter` writes: container and encoder.
_OUTPUTS = {
    ".mp4": ("mp4", "libx264"),
    ".mov": ("mov", "libx264"),
    ".webm": ("webm", "libvpx-vp9"),
    ".gif": ("gif", "gif"),
}
OUTPUT_SUFFIXES = tuple(_OUTPUTS)
_BT709, _MPEG_RANGE = 1, 1
_GIF_FPS = 50
_SKEW = 0.03  # of the ratio of the sides, by which rounded sizes may differ


@dataclass(frozen=True)
class VideoInfo:
    """What a clip is before it is decoded.

    width, height: pixels, as players show it. fps: pictures per second, by the time stamps.
    frame_count: pictures at that rate, 0 if the file does not tell. notes: what is done to the
    pictures that is no matter of course.
    """

    path: Path
    width: int
    height: int
    fps: Fraction
    frame_count: int
    has_audio: bool
    notes: tuple[str, ...] = ()


def probe(path: str | Path) -> VideoInfo:
    """Describes a clip from its stamps and first frame. InputError as in `read_frames`."""
    path = local(path)
    check_file(path)
    if animations.is_animation(path):
        when = animations.when(path)
        _, image = next(animations.read(path))
        return VideoInfo(path, image.shape[1], image.shape[0], when.rate, when.count, False)
    when = _timing(path)
    with _open(path) as container:
        stream = _video_stream(container, path)
        frame, aspect = next(_decoded(container, stream, path)), stream.sample_aspect_ratio
        height, width = display.picture(frame, aspect).shape[:2]
        return VideoInfo(
            path=path,
            width=width,
            height=height,
            fps=when.rate,
            frame_count=when.count,
            has_audio=bool(container.streams.audio),
            notes=(*display.notes(frame, aspect), *_unread(stream)),
        )


def read_frames(path: str | Path) -> Iterator[np.ndarray]:
    """Yields the pictures of a clip, uint8 [H, W, 3] RGB, as players show them; constant memory.

    They come at the even rate that `probe` tells, in time with the sound: where the file has none
    to show a picture is repeated, where it has two one is left out. Turned and mirrored as the
    header asks, with square pixels, deinterlaced, HDR in the colours of a usual screen, all of the
    size of the first.

    InputError: no such file, not a video, no picture track, no frames, or (naming the frame)
    pictures of another shape or a stream that breaks before its end.
    """
    path = local(path)
    check_file(path)
    if animations.is_animation(path):
        yield from animations.when(path).spread(animations.read(path))
        return
    when = _timing(path)
    with _open(path) as container:
        stream = _video_stream(container, path)
        aspect = stream.sample_aspect_ratio
        frames = display.progressive(_decoded(container, stream, path))
        shown = ((_seconds(x), display.picture(x, aspect)) for x in frames)
        yield from when.spread(_of_one_size(shown, path))


def start(path: Path) -> Fraction:
    """When the first picture is shown, in seconds on the clock of the file."""
    return _timing(path).start


class VideoWriter:
    """Writes a clip frame by frame, in constant memory.

    .mp4 and .mov: H.264, yuv420p, BT.709, index first. .webm: VP9. .gif: a palette for each frame,
    no sound; above 50 frames a second only every second, third, ... frame.

    Complete or not at all: the file appears when the `with` block ends without an exception.

    Args:
      path: ends in one of OUTPUT_SUFFIXES; its folder is made if needed.
      fps: frames per second.
      audio_from: clip whose sound is kept, cut to the length of the frames, see `sound.choose`.
        What the container takes (AAC, MP3, AC-3, ALAC; Opus and Vorbis in .webm) is copied, other
        codecs are encoded to AAC or Opus. A clip without sound is fine.
      crf: constant rate factor, 0 (lossless but for the colour conversion) to 51.
      lossless: of .mp4 and .mov, RGB (libx264rgb, qp 0) in place of yuv420p and crf: `read_frames`
        gives the very frames back. Few players show such a file.
      reproducible: the same frames give the same bytes, on any number of cores; slower.

    Raises:
      InputError: on entering, path is not writable or of another kind, or audio_from is
        unreadable; on leaving, no frame was written, the disk is full or the folder vanished.

    Example:
      with VideoWriter("out.mp4", Fraction(25)) as writer:
          writer.write(frame)
    """

    def __init__(
        self,
        path: str | Path,
        fps: Fraction,
        audio_from: str | Path | None = None,
        crf: int = 18,
        lossless: bool = False,
        reproducible: bool = False,
    ):
        self._path, self._fps, self._audio_from = local(path), Fraction(fps), audio_from
        self._suffix = self._path.suffix.lower()
        self._codec = _OUTPUTS.get(self._suffix, ("", ""))[1]
        self._pixels, self._options, self._stride = "yuv420p", {"crf": str(crf)}, 1
        if self._suffix == ".gif":
            self._pixels, self._options = "pal8", {}
            # Its delays are whole 1/100 s, and players slow down frames with less than 2.
            self._stride = math.ceil(self._fps / _GIF_FPS)
        elif self._suffix == ".webm":
            self._options |= {"b": "0", "cpu-used": "4", "row-mt": "1"}
        elif lossless:
            self._codec, self._pixels, self._options = "libx264rgb", "rgb24", {"qp": "0"}
        if reproducible:
            # mbtree's vector code reads past the rows of narrow pictures.
            self._options |= {"threads": "1", "mbtree": "0"}
        self._count = 0

    def __enter__(self) -> "VideoWriter":
        check_output(self._path, *OUTPUT_SUFFIXES)
        with contextlib.ExitStack() as stack:
            beside = stack.enter_context(written_beside(self._path))
            container = _OUTPUTS[self._suffix][0]
            options = {"movflags": "+faststart"} if container in ("mp4", "mov") else {}
            self._output = stack.enter_context(
                av.open(as_url(beside), "w", format=container, options=options)
            )
            self._sounds = iter(())
            if self._audio_from is not None and self._suffix != ".gif":
                source = stack.enter_context(_open(local(self._audio_from)))
                track = sound.choose(local(self._audio_from)).track
                if track is not None:
                    begin = start(local(self._audio_from))
                    self._sounds = sound.packets(source, track, self._output, begin, self._suffix)
            stack.push(self._finish)
            self._opened = stack.pop_all()
        return self

    def __exit__(self, *error) -> None:
        self._opened.__exit__(*error)

    def write(self, frame: np.ndarray) -> None:
        """Adds a frame, uint8 [H, W, 3] RGB; all are of one size. An odd side is made even by
        repeating its last row or column. Raises ValueError: a frame of another size."""
        if self._count == 0:
            self._start(frame.shape)
        if frame.shape != self._shape:
            raise ValueError(f"frame {self._count} is {frame.shape}, frame 0 is {self._shape}")
        if self._count % self._stride:
            self._count += 1
            return
        height, width, _ = frame.shape
        even = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
        picture = av.VideoFrame.from_ndarray(even, format="rgb24")
        if self._pixels == "yuv420p":
            picture = picture.reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU709, interpolation=display.EXACT
            )
        picture.pts, picture.time_base = self._count // self._stride, self._stride / self._fps
        if self._pixels == "pal8":
            picture = self._reduced(picture)
        self._output.mux(self._stream.encode(picture))
        self._count += 1
        end = self._count / self._fps
        while self._sound is not None and self._sound.pts * self._sound.time_base < end:
            self._output.mux(self._sound)
            self._sound = next(self._sounds, None)

    def _start(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        height, width = shape[:2]
        rate = self._fps / self._stride
        stream = self._output.add_stream(self._codec, rate=rate, options=self._options)
        stream.width, stream.height = width + width % 2, height + height % 2
        stream.pix_fmt = self._pixels
        if self._pixels == "yuv420p":
            context = stream.codec_context
            context.colorspace = context.color_primaries = context.color_trc = _BT709
            context.color_range = _MPEG_RANGE
        self._stream, self._sound = stream, next(self._sounds, None)

    def _reduced(self, picture: av.VideoFrame) -> av.VideoFrame:
        """At most 256 colours, the best for this very picture."""
        graph = av.filter.Graph()
        source = graph.add_buffer(
            width=picture.width, height=picture.height, format=picture.format,
            time_base=picture.time_base,
        )  # fmt: skip
        split, palette = graph.add("split"), graph.add("palettegen", "stats_mode=single")
        mapped, sink = graph.add("paletteuse", "new=1:dither=bayer"), graph.add("buffersink")
        source.link_to(split)
        split.link_to(palette, 0)
        split.link_to(mapped, 1, 0)
        palette.link_to(mapped, 0, 1)
        mapped.link_to(sink)
        graph.configure()
        graph.push(picture)
        graph.push(None)
        reduced = graph.pull()
        reduced.pts, reduced.time_base = picture.pts, picture.time_base
        return reduced

    def _finish(self, error: type[BaseException] | None, *_) -> None:
        if error is not None:
            return
        if self._count == 0:
            raise InputError(f"{self._path}: 0 frames to write; give a clip with at least 1 frame")
        self._output.mux(self._stream.encode())


def write_video(path: str | Path, frames: Iterable[np.ndarray], fps: Fraction, **options) -> None:
    """Writes frames, uint8 [H, W, 3] RGB, at least one, as `VideoWriter` does; its options.

    InputError: as there, if the place is bad before the first frame is asked for.
    """
    with VideoWriter(path, fps, **options) as writer:
        for frame in frames:
            writer.write(frame)


def _open(path: Path) -> av.container.InputContainer:
    check_file(path)
    try:
        return open_media(path)
    except av.FFmpegError as error:
        if what := describe_instead(path):
            raise InputError(f"{path}: not a readable video: {what}") from None
        raise InputError(
            f"{path}: not a readable video ({error.strerror}); it is of another kind or cut "
            "short: export it again as mp4"
        ) from None


def _video_stream(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    """The track that players show: of several the largest of those they prefer."""
    usual, cover = av.stream.Disposition.default, av.stream.Disposition.attached_pic
    # The cover picture of a sound file is stored as a video stream of one frame.
    tracks = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not tracks:
        raise InputError(f"{path}: holds no picture track; give a video")
    known = [stream for stream in tracks if stream.codec_context is not None]
    if not known:
        raise InputError(f"{path}: its pictures are of an unknown codec: export it as mp4")
    stream = max(known, key=lambda x: (bool(x.disposition & usual), x.width * x.height))
    stream.thread_type = "AUTO"  # by default, damage in slices is not told
    return stream


def _unread(stream: av.VideoStream) -> list[str]:
    """A note if the file has transparency that FFmpeg's decoders of VP8 and VP9 leave out."""
    if stream.metadata.get("alpha_mode") != "1":
        return []
    return ["its transparency is not read: what lies under it is seen"]


def _timing(path: Path) -> timing.Timing:
    with _open(path) as container:
        stream = _video_stream(container, path)
        try:
            return timing.of_stream(container, stream)
        except av.FFmpegError as error:
            raise InputError(_broken(path, 0, error.strerror)) from None


def _decoded(
    container: av.container.InputContainer, stream: av.VideoStream, path: Path
) -> Iterator[av.VideoFrame]:
    """The frames in display order, at least one; InputError, with the frame, where it breaks."""
    count = 0
    try:
        for packet in container.demux(stream):
            # In a transport stream that is a jump of its counters, as where two were joined.
            if packet.is_corrupt and container.format.name != "mpegts":
                raise InputError(_broken(path, count, "the file is cut short"))
            for frame in packet.decode():
                if frame.is_corrupt:
                    raise InputError(_broken(path, count, "damaged data"))
                yield frame
                count += 1
    except av.FFmpegError as error:
        raise InputError(_broken(path, count, error.strerror)) from None
    if count == 0:
        raise InputError(f"{path}: 0 frames; at least 1 is needed: export the clip again")


def _of_one_size(
    frames: Iterable[tuple[Fraction | None, np.ndarray]], path: Path
) -> Iterator[tuple[Fraction | None, np.ndarray]]:
    """Pictures scaled to the size of the first: calls over a network change theirs on the way.

    InputError, with the frame: its width over its height is another.
    """
    first = None
    for number, (seconds, image) in enumerate(frames):
        height, width = image.shape[:2]
        if first is None:
            first = width, height
        if (width, height) != first:
            if abs(width * first[1] - height * first[0]) > _SKEW * width * first[1]:
                raise InputError(
                    f"{path}: frame {number}: {width}x{height} pixels from here on, "
                    f"{first[0]}x{first[1]} before: split the clip there"
                )
            shrinks = width > first[0]
            way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            image = cv2.resize(image, first, interpolation=way)
        yield seconds, image


def _seconds(frame: av.VideoFrame) -> Fraction | None:
    return None if frame.pts is None else frame.pts * frame.time_base


def _broken(path: Path, frame: int, reason: str) -> str:
    return f"{path}: frame {frame}: broken stream ({reason}); copy or export the clip again"
