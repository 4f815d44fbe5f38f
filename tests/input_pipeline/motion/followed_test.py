import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest

from durian_jax.diffusion import windows
from input_pipeline.errors import InputError
from input_pipeline.motion.followed import follow

SIZE, HELD = 64, 128


class Clip:
    """A motion whose frame f has the grey value f % 251; counts how often it is opened."""

    def __init__(self, count):
        self.path, self.count, self.opened = "clip.mp4", count, 0

    def frames(self, size):
        self.opened += 1
        for value in range(self.count):
            yield np.full((size, size, 3), value % 251, np.uint8)


def _follow(clip, count=None):
    keypoints = np.zeros((count or clip.count, 478, 2))
    keypoints[..., 0] = np.arange(len(keypoints))[:, None]

    def draw(frame, points):
        return {"whole": frame, "marked": np.full_like(frame, points[0, 0] % 251)}

    return follow(clip, keypoints, np.eye(2, 3), SIZE, draw)


def _values(pictures):
    return pictures[..., 0, 0, 0].tolist()


def test_places_are_read_as_of_an_array():
    followed = _follow(Clip(20))
    for pictures in followed.values():
        assert (len(pictures), pictures.shape, pictures.dtype) == (20, (20, SIZE, SIZE, 3), "uint8")
        assert _values(pictures[np.array([3, 4, 9, 19, 19])]) == [3, 4, 9, 19, 19]
        assert _values(pictures[np.array([[7, 2], [18, 0]])]) == [[7, 2], [18, 0]]
        assert _values(pictures[-1]) == 19 and pictures[5].shape == (SIZE, SIZE, 3)
        with pytest.raises(IndexError):
            pictures[20]


@pytest.mark.parametrize(("kind", "opened"), [("chained", 1), ("overlapping", 4), ("circular", 2)])
def test_windows_seldom_open_the_clip_anew(kind, opened):
    clip = Clip(1000)
    followed, last = _follow(clip), 999
    for _, frames, _ in windows.make(1000, kind, 24, 4).tasks(10):
        places = np.minimum(frames, last)
        assert all(_values(x[places]) == (places % 251).tolist() for x in followed.values())
    assert clip.opened <= opened


def test_a_long_clip_takes_the_memory_of_a_short_one():
    def peak(count):
        followed = _follow(SimpleNamespace(path="clip.mp4", frames=Clip(count).frames, count=count))
        tracemalloc.start()
        for start in range(0, count, 16):
            for pictures in followed.values():
                pictures[np.arange(start, start + 16)]
        try:
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    picture = SIZE * SIZE * 3
    assert peak(HELD) > HELD * picture
    assert peak(1600) < peak(HELD) + 64 * picture


def test_a_clip_that_became_shorter_is_named():
    followed = _follow(Clip(10), count=12)
    with pytest.raises(InputError, match=r"clip\.mp4: ends after 10 frames and had 12 when it was"):
        followed["whole"][np.arange(12)]
