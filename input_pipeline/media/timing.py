"""When the pictures of a clip are shown: its time stamps, and the even rate at which it is read."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np

USUAL = Fraction(25)  # frames per second where nothing tells
_HIGHEST = 1000
# Between two pictures, as a share of the median: nearer ones belong to a hidden frame of the codec.
_HIDDEN = 0.25
_LONGEST = 3600.0  # seconds between two pictures, beyond which stamps are taken for broken


@dataclass(frozen=True)
class Timing:
    """Pictures at an even rate, in time with the sound.

    Attributes:
      rate: pictures per second.
      start: of the first one on the clock of the file, seconds.
      count: how many there are; 0 if the file does not tell.
      stamped: whether pictures are placed by their stamps; else each counts once.
    """

    rate: Fraction
    start: Fraction
    count: int
    stamped: bool

    def spread(self, frames: Iterable[tuple[Fraction | None, np.ndarray]]) -> Iterator[np.ndarray]:
        """Pictures at the rate, of (seconds, picture): repeated or left out, half a step off at
        most. A picture without a stamp comes right after the last."""
        shown, last = 0, None
        for seconds, image in frames:
            place = shown
            if self.stamped and seconds is not None:
                place = round((seconds - self.start) * self.rate)
            for _ in range(shown, place):
                yield image if last is None else last
            if place >= shown:
                yield image
                shown = place + 1
            last = image
        if last is not None:
            for _ in range(shown, self.count):
                yield last


def of_stream(container: av.container.InputContainer, stream: av.VideoStream) -> Timing:
    """Of a track, by the stamps of its packets; nothing is decoded. The container is read through.

    What the header says of the rate counts as long as the stamps agree.
    """
    stamps, decoded, last = [], [], 0
    for packet in container.demux(stream):
        if packet.size and not packet.is_discard:  # an edit list hides what it discards
            stamps.append(packet.pts)
            decoded.append(packet.dts)
            last = packet.duration or 0
    stated = [rate for rate in (stream.average_rate, stream.guessed_rate) if rate]
    base = stream.time_base
    order = [dts for dts in decoded if dts is not None]
    if None in stamps or not stamps or order != sorted(order):
        rate = next((rate for rate in stated if rate <= _HIGHEST), USUAL)
        start = min((pts for pts in stamps if pts is not None), default=0) * base
        return Timing(rate, start, len(stamps), stamped=False)
    start = min(stamps) * base
    seconds = (np.sort(stamps) - min(stamps)) * float(base)
    return of_times(seconds, float(last * base), start, stated, float(base))


def of_times(
    seconds: np.ndarray,
    last: float,
    start: Fraction = Fraction(0),
    stated: list[Fraction] = (),
    tick: float = 0.001,
) -> Timing:
    """Of pictures that are shown from these times on.

    Args:
      seconds: [n] ascending, from 0. last: how long the last one is shown, 0 if unknown.
      start: of the first one on the clock of the file. stated: rates that the header names.
      tick: of the clock, seconds.
    """
    steps = np.diff(seconds)
    if len(steps):
        seconds = seconds[np.concatenate([[True], steps > _HIDDEN * np.median(steps)])]
    count = len(seconds)
    if count < 2 or np.diff(seconds).max() > _LONGEST:
        rate = next((rate for rate in stated if rate <= _HIGHEST), USUAL)
        return Timing(rate, start, count, stamped=False)
    mean = Fraction((count - 1) / seconds[-1]).limit_denominator(1001)
    for rate in (*stated, mean):
        if (np.rint(seconds * float(rate)) == np.arange(count)).all():
            return Timing(rate, start, count, stamped=True)
    rate = _finest(np.diff(seconds), tick)
    places = np.rint(seconds[-1] * float(rate)) + max(1, round(last * float(rate)))
    return Timing(rate, start, int(places), stamped=True)


def _finest(steps: np.ndarray, tick: float) -> Fraction:
    """A rate at which hardly a picture is left out: that of the short steps."""
    short = float(np.quantile(steps, 0.1))
    whole = steps.sum() / np.rint(steps / short).clip(1).sum()
    # A coarse clock rounds the steps; over the whole clip that averages out.
    step = whole if abs(whole - short) < tick else short
    return min(Fraction(1 / step).limit_denominator(1001), Fraction(_HIGHEST))
