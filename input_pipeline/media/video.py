"""Clips and pictures, in and out: PyAV for video, Pillow for pictures. uint8 RGB everywhere."""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Colorspace, Interpolation

from input_pipeline.errors import InputError
from input_pipeline.media import sound
from input_pipeline.media.files import check_file, check_output, written_beside

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg"})
_BT709, _MPEG_RANGE = 1, 1
# Without these flags swscale rounds down: pictures get one level darker with every read or write.
_EXACT = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


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


class VideoWriter:
    """Writes an mp4 (H.264, yuv420p, BT.709, index first) frame by frame, in constant memory.

    Complete or not at all: the file appears when the `with` block ends without an exception.

    Args:
      path: must end in .mp4; its folder is made if needed.
      fps: frames per second.
      audio_from: clip whose sound is kept, cut to the length of the frames. AAC, MP3, AC-3 and
        ALAC packets are copied, other codecs are encoded to AAC. A clip without sound is fine.
      crf: x264 constant rate factor, 0 (lossless but for the colour conversion) to 51.
      lossless: RGB (libx264rgb, qp 0) in place of yuv420p and crf: `read_frames` gives the very
        frames back. Few players show such a file.
      reproducible: the same frames give the same bytes, on any number of cores; slower.

    Raises:
      InputError: on entering, path is not writable or not .mp4, or audio_from is unreadable; on
        leaving, no frame was written.

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
        self._path, self._fps, self._audio_from = Path(path), Fraction(fps), audio_from
        self._codec, self._pixels, self._options = "libx264rgb", "rgb24", {"qp": "0"}
        if not lossless:
            self._codec, self._pixels, self._options = "libx264", "yuv420p", {"crf": str(crf)}
        if reproducible:
            # mbtree's vector code reads past the rows of narrow pictures.
            self._options |= {"threads": "1", "mbtree": "0"}
        self._count = 0

    def __enter__(self) -> "VideoWriter":
        check_output(self._path, ".mp4")
        with contextlib.ExitStack() as stack:
            beside = stack.enter_context(written_beside(self._path))
            self._output = stack.enter_context(
                av.open(str(beside), "w", format="mp4", options={"movflags": "+faststart"})
            )
            self._sounds = iter(())
            if self._audio_from is not None:
                source = stack.enter_context(_open(Path(self._audio_from)))
                picture = _video_stream(source, Path(self._audio_from))
                start = (picture.start_time or 0) * picture.time_base
                self._sounds = sound.packets(source, self._output, start)
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
        height, width, _ = frame.shape
        even = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
        picture = av.VideoFrame.from_ndarray(even, format="rgb24")
        if self._pixels == "yuv420p":
            picture = picture.reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU709, interpolation=_EXACT
            )
        picture.pts, picture.time_base = self._count, 1 / self._fps
        self._output.mux(self._stream.encode(picture))
        self._count += 1
        end = self._count / self._fps
        while self._sound is not None and self._sound.pts * self._sound.time_base < end:
            self._output.mux(self._sound)
            self._sound = next(self._sounds, None)

    def _start(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        height, width = shape[:2]
        stream = self._output.add_stream(self._codec, rate=self._fps, options=self._options)
        stream.width, stream.height = width + width % 2, height + height % 2
        stream.pix_fmt = self._pixels
        if self._pixels == "yuv420p":
            context = stream.codec_context
            context.colorspace = context.color_primaries = context.color_trc = _BT709
            context.color_range = _MPEG_RANGE
        self._stream, self._sound = stream, next(self._sounds, None)

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
