"""The sound of a clip, on its way into another file."""

import itertools
from collections.abc import Iterator
from fractions import Fraction

import av

# Codecs that both the mp4 container and common players take; others are encoded anew to AAC.
_MP4_CODECS = frozenset({"aac", "mp3", "ac3", "eac3", "alac"})
_AAC_RATE = 48_000


def packets(
    source: av.container.InputContainer, output: av.container.OutputContainer, start: Fraction
) -> Iterator[av.Packet]:
    """Adds the first sound track of `source`, if any, to `output`, and yields its packets.

    start: of the picture in `source`, in seconds; the packets are timed from there.
    """
    if not source.streams.audio:
        return iter(())
    track = source.streams.audio[0]
    if track.codec_context.name in _MP4_CODECS:
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
