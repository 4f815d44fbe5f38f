"""What of Animate Anyone trains; its numbers are compared in tests/parity."""

import re

import jax
import jax.numpy as jnp
import numpy as np

from durian_jax.systems.system import build, init_params
from tests.systems.durian.model_test import TINY


def test_gradients_reach_all_but_the_dead_parameters(fill):
    model = build({"system": "animate_anyone", "model": TINY | {"arcface": None, "temporal": True}})
    params = fill(jax.eval_shape(lambda: init_params(model, jax.random.key(0))))
    rng = np.random.default_rng(0)

    def draw(leaf):
        drawn = rng.integers(0, 16, leaf.shape)
        return drawn.astype(leaf.dtype)

    batch = jax.tree.map(draw, jax.eval_shape(lambda: model.blank_batch(2, 2)))
    z = rng.standard_normal((2, 2, *model.latent_shape)).astype(np.float32)

    @jax.jit
    def gradients(params):
        def loss(params):
            return jnp.square(model.apply({"params": params}, batch, z, np.array([20, 700]))).sum()

        return jax.tree.map(lambda x: jnp.abs(x).max(), jax.grad(loss)(params))

    leaves = jax.tree_util.tree_leaves_with_path(gradients(params))
    largest = {"/".join(key.key for key in path): value for path, value in leaves}
    largest = {name: x for name, x in largest.items() if not name.startswith(("clip/", "auto"))}
    silent = {name for name, value in largest.items() if value == 0}
    dead = {n for n in largest if any(re.match(p, n) for p in model.dead_parameters())}
    assert silent == dead and any("motion_modules" in name for name in largest)
