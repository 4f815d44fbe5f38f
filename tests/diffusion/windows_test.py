"""Windows over long clips, on a model that is known exactly and on one that looks at neighbours."""

import numpy as np
import pytest

from durian_jax.diffusion.windows import Chained, Circular, Overlapping, denoise_windows

CASES = [(1, 24, 4), (24, 24, 4), (25, 24, 4), (115, 24, 4), (9, 4, 0), (100, 8, 7)]


@pytest.mark.parametrize("frames,window,overlap", CASES)
def test_windows_cover_every_frame_with_weights_that_sum_to_one(frames, window, overlap):
    windows, total = Overlapping(frames, window, overlap), np.zeros(frames)
    for i in range(len(windows)):
        np.add.at(total, windows.frames(i), windows.weights[i])
    np.testing.assert_allclose(total, 1, atol=1e-6)
    assert (windows.weights > 0).all()
    shared = windows.starts[:-1] + windows.length - windows.starts[1:]
    assert (shared >= overlap).all()
    assert windows.frames(len(windows) - 1)[-1] == frames - 1


@pytest.mark.parametrize("frames,window,overlap", CASES)
def test_a_window_waits_until_all_that_reach_into_it_took_the_step_before(frames, window, overlap):
    windows, levels = Overlapping(frames, window, overlap), np.zeros(frames, int)
    order = list(windows.order(5))
    assert sorted(order) == [(step, i) for step in range(5) for i in range(len(windows))]
    for step, i in order:
        assert (levels[windows.frames(i)] == step).all()
        levels[windows.starts[i] : windows.settled(i)] = step + 1


@pytest.mark.parametrize("frames", [200, 5000])
def test_the_frames_under_way_do_not_grow_with_the_clip(frames):
    windows, under_way, low, high = Overlapping(frames, 8, 2), [], 0, 0
    for step, i in windows.order(10):
        high = max(high, windows.frames(i)[-1] + 1)
        low = windows.settled(i) if step == 9 else low
        under_way.append(high - low)
    assert max(under_way) <= 66


def _model(z, frames, step):
    """Looks along the whole window, as temporal attention does, and at the step."""
    return 0.3 * np.tanh(z - z.mean(1, keepdims=True)) + 0.1 * np.sin(z + step)


def _advance(z, clean, prediction, frames, step):
    # Of second order, so that the last prediction matters, too.
    return z - prediction + 0.1 * (prediction - clean), prediction


def _noise(frames):
    return np.stack([np.random.default_rng(f).normal(size=(2, 3, 3, 1)) for f in frames], 1).astype(
        np.float32
    )


def _whole(frames, window, overlap, steps):
    """The same on all frames at once, step by step."""
    z, clean = _noise(np.arange(frames)), 0.0
    windows = Overlapping(frames, window, overlap)
    for step in range(steps):
        blended = np.zeros_like(z)
        for i in range(len(windows)):
            at = windows.frames(i)
            weights = windows.weights[i][:, None, None, None]
            blended[:, at] += weights * _model(z[:, at], at, step)
        z, clean = _advance(z, clean, blended, None, step)
    return z


@pytest.mark.parametrize(
    "frames,window,overlap,steps", [(5, 8, 2, 3), (41, 8, 2, 5), (30, 6, 5, 4)]
)
def test_walking_in_a_band_is_walking_all_frames_step_by_step(frames, window, overlap, steps):
    windows, calls = Overlapping(frames, window, overlap), []
    parts = list(
        denoise_windows(
            windows, steps, _noise, _model, _advance, report=lambda: calls.append(len(calls))
        )
    )
    assert len(calls) == steps * len(windows) and len(parts) == len(windows)
    expected = _whole(frames, window, overlap, steps)
    np.testing.assert_allclose(np.concatenate(parts, 1), expected, atol=1e-5)


ROUND = [(8, 4, 2), (7, 4, 2), (5, 16, 4), (3, 16, 4), (16, 16, 4), (17, 16, 4), (40, 16, 0)]


@pytest.mark.parametrize("frames,window,overlap", ROUND)
def test_circular_windows_average_every_frame_at_every_step(frames, window, overlap):
    walk, firsts = Circular(frames, window, overlap), []
    for step in range(4):
        total, count = np.zeros(frames), 0
        tasks = [task for task in walk.tasks(4) if task[0] == step]
        for _, places, weights in tasks:
            assert len(set(places.tolist())) == len(places) == walk.length == min(window, frames)
            assert ((np.diff(places) - 1) % frames == 0).all()
            np.add.at(total, places, weights)
            count += 1
        np.testing.assert_allclose(total, 1, atol=1e-6)
        assert count == len(walk)
        firsts.append(tasks[0][1][0])
    assert len(set(firsts)) > 1
    if frames > window:
        assert len(walk) == -(-(frames - overlap) // (window - overlap))


def test_circular_windows_begin_where_they_are_told_and_go_on_through_the_end():
    tasks = list(Circular(7, 4, 2, lambda step: 5 - step).tasks(2))
    assert [task[1].tolist() for task in tasks] == [
        [5, 6, 0, 1], [0, 1, 2, 3], [2, 3, 4, 5],
        [4, 5, 6, 0], [6, 0, 1, 2], [1, 2, 3, 4],
    ]  # fmt: skip
    assert tasks[0][2].tolist() == [0.5, 1.0, 0.5, 0.5]


@pytest.mark.parametrize("frames", [3, 8, 11])
def test_circular_windows_take_the_whole_clip_through_each_step(frames):
    walk, steps = Circular(frames, 4, 2), 3
    parts = list(denoise_windows(walk, steps, _noise, _model, _advance))
    z, clean = _noise(np.arange(frames)), 0.0
    for step in range(steps):
        blended = np.zeros_like(z)
        for at, places, weights in walk.tasks(steps):
            if at == step:
                mine = _model(z[:, places], places, step)
                blended[:, places] += weights[:, None, None, None] * mine
        z, clean = _advance(z, clean, blended, None, step)
    np.testing.assert_allclose(np.concatenate(parts, 1), z, atol=1e-5)


@pytest.mark.parametrize("frames, window", [(1, 16), (8, 4), (11, 4), (3, 16), (16, 16), (17, 16)])
def test_chained_windows_finish_one_before_the_next(frames, window):
    walk, steps, calls = Chained(frames, window), 3, []

    def predict(z, places, step):
        assert z.shape[1] == len(places) == walk.length == min(window, frames)
        calls.append((int(places[0]), step))
        return _model(z, places, step)

    parts = list(denoise_windows(walk, steps, _noise, predict, _advance))
    assert calls == [(i * walk.length, step) for i in range(len(walk)) for step in range(steps)]
    # Each as if there were no other; what is beyond the end of the clip is left out.
    whole = []
    for i in range(len(walk)):
        alone = Chained(walk.length, window)
        shifted = i * walk.length
        noise = lambda places, shifted=shifted: _noise(places + shifted)  # noqa: E731
        whole += denoise_windows(alone, steps, noise, _model, _advance)
    expected = np.concatenate(whole, 1)[:, :frames]
    np.testing.assert_allclose(np.concatenate(parts, 1), expected, atol=1e-6)
    assert [part.shape[1] for part in parts[:-1]] == [walk.length] * (len(walk) - 1)


def test_chained_windows_hold_one_window_at_a_time():
    held, most = set(), 0

    def noise(places):
        held.update(places.tolist())
        return _noise(places)

    for part in denoise_windows(Chained(200, 8), 2, noise, _model, _advance):
        most = max(most, len(held))
        held -= set(sorted(held)[: part.shape[1]])
    assert most == 8
