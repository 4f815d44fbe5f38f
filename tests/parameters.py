"""Parameters without any special value."""

import jax
import numpy as np


def fill(abstract, seed=0):
    """A parameter tree of random values: nothing is zero, one, or equal to its neighbour.

    Freshly initialised zeros and ones would let a swapped scale and bias, or a branch that is
    never added, go unseen. Drawing in numpy also saves compiling one random kernel per leaf.
    """
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        noise = rng.standard_normal(leaf.shape).astype(np.float32)
        name = path[-1].key
        if name in ("scale", "var"):
            return 1 + 0.2 * np.abs(noise)
        if leaf.ndim < 2:
            return 0.2 * noise
        return noise / np.sqrt(np.prod(leaf.shape[:-1]))

    return jax.tree_util.tree_map_with_path(draw, abstract)
