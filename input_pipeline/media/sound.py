"""The sound of a clip, on its way into another file."""

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from input_pipeline.media.container import open_media

# Codecs that both the container and common players take; others are encoded anew.
_TAKEN = {
    ".mp4": frozenset({"aac", "mp3", "ac3", "eac3", "alac"}),
    ".mov": frozenset({"aac", "mp3", "ac3", "alac"}),
    ".webm": frozenset({"opus", "vorbis"}),
}
_ENCODERS = {".mp4": "aac", ".mov": "aac", ".webm": "libopus"}
_RATE = 48_000
_GAP = 0.01  # seconds; stamps are coarser than samples
_HEARD = 10 ** (-60 / 20)  # of full scale; a track that stays below is silent


@dataclass(frozen=True)
class Choice:
    """A track: its place among those of sound, None if none can be heard; and what to say of it."""

    track: int | None
    note: str | None = None


def choose(path: Path) -> Choice:
    """The track that players would take, but for silent ones and those that nothing decodes."""
    with open_media(path) as container:
        tracks = container.streams.audio
        usual = av.stream.Disposition.default
        order = sorted(range(len(tracks)), key=lambda i: not tracks[i].disposition & usual)
    if not order:
        return Choice(None)
    loudness = {}
    for track in order:
        loudness[track] = _loudness(path, track, patient=len(order) > 1)
        if loudness[track] is not None and loudness[track] > _HEARD:
            break
    chosen = max(loudness, key=lambda track: -1 if loudness[track] is None else loudness[track])
    if loudness[chosen] is None:
        what = "its sound" if len(order) == 1 else f"none of its {len(order)} sound tracks"
        can = "cannot" if len(order) == 1 else "can"
        return Choice(None, f"{what} {can} be decoded, the result is silent")
    if len(order) == 1:
        return Choice(chosen)
    passed = [_passed_over(track, loudness[track]) for track in loudness if track != chosen]
    why = f" ({', '.join(passed)})" if passed else ""
    return Choice(chosen, f"{len(order)} sound tracks, number {chosen + 1} is kept{why}")


def packets(
    source: av.container.InputContainer,
    track: int,
    output: av.container.OutputContainer,
    start: Fraction,
    suffix: str,
) -> Iterator[av.Packet]:
    """Adds a sound track of `source` to `output`, and yields its packets.

    start: of the picture in `source`, in seconds; the packets are timed from there. suffix: of the
    output, which says what it takes.
    """
    stream = source.streams.audio[track]
    if stream.codec_context.name in _TAKEN[suffix]:
        return _copied(source, stream, output.add_stream_from_template(stream), start)
    encoder = output.add_stream(_ENCODERS[suffix], rate=_RATE)
    encoder.layout = "mono" if stream.codec_context.channels == 1 else "stereo"
    return _encoded(source, stream, encoder, start)


def _passed_over(track: int, loudness: float | None) -> str:
    return f"number {track + 1} {'cannot be decoded' if loudness is None else 'is silent'}"


def _loudness(path: Path, track: int, patient: bool) -> float | None:
    """The highest level, 0 .. 1, up to where something is heard; None if nothing is decoded.

    patient: listen to all of it, if need be; else whatever is decoded will do.
    """
    loudest = None
    with open_media(path) as source:
        stream = source.streams.audio[track]
        if stream.codec_context is None:
            return None
        for frame in _decoded(source, stream):
            samples = frame.to_ndarray()
            full = np.iinfo(samples.dtype).max if samples.dtype.kind in "iu" else 1.0
            middle = 128 if samples.dtype == np.uint8 else 0
            level = np.abs(samples.astype(np.float64) - middle).max(initial=0) / full
            loudest = max(loudest or 0.0, float(level))
            if not patient or loudest > _HEARD:
                return max(loudest, 2 * _HEARD) if not patient else loudest
    return loudest


def _decoded(source, stream) -> Iterator[av.AudioFrame]:
    """All that can be decoded; damaged packets are silent."""
    for packet in source.demux(stream):
        frames = []
        with contextlib.suppress(av.FFmpegError):
            frames = packet.decode()
        yield from frames


def _copied(source, stream, copy, start: Fraction) -> Iterator[av.Packet]:
    shift, last = round(start / stream.time_base), None
    for packet in source.demux(stream):
        if packet.dts is None:  # the empty packet at the end
            continue
        if last is not None and packet.dts <= last:  # a second time, where recordings were joined
            continue
        last = packet.dts
        packet.pts -= shift
        packet.dts -= shift
        packet.stream = copy
        yield packet


def _encoded(source, stream, encoder, start: Fraction) -> Iterator[av.Packet]:
    pieces = av.AudioResampler(encoder.format, encoder.layout, _RATE, encoder.frame_size)
    frames = _of_one_kind(_seamless(_decoded(source, stream), start), encoder)
    for frame in itertools.chain(frames, [None]):
        for sound in pieces.resample(frame):
            yield from encoder.encode(sound)
    yield from encoder.encode()


def _of_one_kind(frames: Iterator[av.AudioFrame], encoder) -> Iterator[av.AudioFrame]:
    """What the encoder takes; a recording may go from stereo to mono, a resampler may not."""

    def kind(frame: av.AudioFrame) -> tuple:
        return frame.format.name, frame.layout.name, frame.sample_rate

    for _, alike in itertools.groupby(frames, kind):
        resampler = av.AudioResampler(encoder.format, encoder.layout, _RATE)
        for frame in itertools.chain(alike, [None]):
            yield from resampler.resample(frame)


def _seamless(frames: Iterator[av.AudioFrame], start: Fraction) -> Iterator[av.AudioFrame]:
    """The sound from `start` on, one frame right after the other: gaps are filled with silence."""
    done = last = 0
    for frame in frames:
        samples, rate = frame.to_ndarray(), frame.sample_rate
        if last not in (0, rate):
            done = done * rate // last
        last = rate
        step = 1 if frame.format.is_planar else frame.layout.nb_channels
        place = done
        if frame.pts is not None:
            place = round((frame.pts * frame.time_base - start) * rate)
        silent = 128 if samples.dtype == np.uint8 else 0
        while place - done > _GAP * rate:
            length = min(rate, place - done)
            yield _frame(np.full((len(samples), length * step), silent, samples.dtype), frame, done)
            done += length
        samples = samples[:, step * max(0, -place) :]  # what is before the start
        if samples.size:
            yield _frame(samples, frame, done)
            done += samples.shape[1] // step


def _frame(samples: np.ndarray, like: av.AudioFrame, place: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(samples), like.format.name, like.layout.name
    )
    frame.sample_rate, frame.pts, frame.time_base = (
        like.sample_rate,
        place,
        1 / Fraction(like.sample_rate),
    )
    return frame
