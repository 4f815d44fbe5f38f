"""Windows over long clips, on a model that is known exactly and on one that looks at neighbours."""

import numpy as np
import pytest

from durian_jax.diffusion.windows import Overlapping, denoise_windows

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
