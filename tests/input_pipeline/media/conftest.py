"""Clips as other programs write them, small and made on the spot."""

from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from skimage.data import astronaut

RATE = 48_000


@pytest.fixture(scope="session")
def photo():
    return cv2.resize(astronaut(), (128, 96), interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="session")
def grey_steps():
    """Function of a count: frames that darken, so that each can be known by its brightness."""

    def frames(count):
        return [np.full((64, 64, 3), 240 - 6 * i, np.uint8) for i in range(count)]

    return frames


@pytest.fixture(scope="session")
def beep():
    """Function of a time in seconds: 2 s of silence with a beep of 20 ms there, float [samples]."""

    def sound(at):
        time = np.arange(2 * RATE) / RATE
        return 0.8 * np.sin(2 * np.pi * 1000 * time) * ((time >= at) & (time < at + 0.02))

    return sound


@pytest.fixture(scope="session")
def film():
    """Writes a clip: frames, when each is shown (ms), sound tracks, codecs, container."""

    def write(
        path, frames, rate=25, times=None, sounds=(), codec="libx264", pixels="yuv420p",
        sound_codec="aac", options=None, codec_options=None, adjust=None, start=0, layout="mono",
        tags=(),
    ):  # fmt: skip
        with av.open(str(path), "w", options=options or {}) as output:
            output.metadata.update(tags)
            video = output.add_stream(codec, rate=rate, options=codec_options or {})
            video.height, video.width = frames[0].shape[:2]
            video.pix_fmt = pixels
            if times is not None:
                video.codec_context.time_base = video.time_base = Fraction(1, 1000)
            if adjust:
                adjust(video.codec_context)
            tracks = [output.add_stream(sound_codec, rate=RATE, layout=layout) for _ in sounds]
            for i, image in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = i, Fraction(1, rate)
                if times is not None:
                    frame.pts, frame.time_base = int(times[i]) + start, Fraction(1, 1000)
                output.mux(video.encode(frame))
            output.mux(video.encode(None))
            for track, sound in zip(tracks, sounds):
                whole = av.AudioFrame.from_ndarray(
                    (sound * 32000).astype(np.int16)[None], "s16", "mono"
                )
                whole.sample_rate, whole.pts = RATE, start * RATE // 1000
                kind, size = track.format.name, track.codec_context.frame_size or 1024
                sampler = av.AudioResampler(kind, layout, RATE, size)
                for part in [*sampler.resample(whole), *sampler.resample(None)]:
                    output.mux(track.encode(part))
                output.mux(track.encode(None))

    return write


@pytest.fixture(scope="session")
def heard():
    """Function of a clip: when its sound begins to be loud, in seconds."""

    def first(path):
        with av.open(str(path)) as container:
            for frame in container.decode(audio=0):
                loud = np.abs(frame.to_ndarray().astype(float)).reshape(-1) > 0.2
                if loud.any():
                    return float(frame.pts * frame.time_base) + loud.argmax() / frame.sample_rate
        return None

    return first
