import numpy as np
import pytest

from durian_jax.metrics.frechet import frechet_distance


def test_frechet_distance_of_gaussians_in_closed_form():
    rng = np.random.default_rng(0)
    white = np.linalg.qr(rng.normal(size=(60, 5)) - 0.0)[0]
    white -= white.mean(0)
    # Columns made orthonormal after centring: the covariance is exactly diagonal.
    white = np.linalg.qr(white)[0] * np.sqrt(59)
    first = white * [1, 2, 3, 4, 5] + 1
    second = white * [2, 2, 1, 4, 7] + [3, 1, 1, 1, 0]
    # |m1 - m2|^2 + sum (s1 - s2)^2 for commuting covariances.
    assert frechet_distance(first, second) == pytest.approx(4 + 1 + (1 + 0 + 4 + 0 + 4), rel=1e-9)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_agrees_with_the_matrix_square_root():
    linalg = pytest.importorskip("scipy.linalg")
    rng = np.random.default_rng(1)
    first = rng.normal(size=(50, 6)) @ rng.normal(size=(6, 6))
    second = rng.normal(size=(40, 6)) @ rng.normal(size=(6, 6)) + 0.5
    s1, s2 = np.cov(first.T), np.cov(second.T)
    expected = np.square(first.mean(0) - second.mean(0)).sum()
    expected += np.trace(s1 + s2 - 2 * linalg.sqrtm(s1 @ s2).real)
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_with_fewer_samples_than_features():
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=(5, 20)), rng.normal(1, 2, size=(7, 20))
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(second, first))
    assert frechet_distance(first, first + 0.5) == pytest.approx(20 * 0.25)
