"""GroupNorm against flax's."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from durian_jax.models.norm import GroupNorm


def _variables(channels):
    keys = jax.random.split(jax.random.key(0), 2)
    scale, bias = (1 + 0.3 * jax.random.normal(key, (channels,)) for key in keys)
    return {"params": {"scale": scale, "bias": bias}}


@pytest.mark.parametrize(
    ("shape", "axes"), [((3, 5, 7, 12), (-3, -2)), ((2, 3, 5, 7, 12), (-4, -3, -2))]
)
def test_it_equals_that_of_flax_with_its_gradients(shape, axes):
    ours = GroupNorm(4, 1e-5, axes)
    theirs = nn.GroupNorm(4, epsilon=1e-5, reduction_axes=(*axes, -1))
    keys = jax.random.split(jax.random.key(1), 2)
    x, weights = (3 + 2 * jax.random.normal(key, shape) for key in keys)

    def loss(variables, x, module):
        return (weights * module.apply(variables, x)).sum(), module.apply(variables, x)

    assert jax.tree.map(jnp.shape, ours.init(keys[0], x)) == jax.tree.map(
        jnp.shape, theirs.init(keys[0], x)
    )
    found, expected = (
        jax.grad(loss, argnums=(0, 1), has_aux=True)(_variables(shape[-1]), x, module)
        for module in (ours, theirs)
    )
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5 * np.abs(b).max())


def test_statistics_are_float32_in_half_precision():
    x = 30 + jax.random.normal(jax.random.key(0), (1, 32, 32, 8))
    half = GroupNorm(2, 1e-5, dtype=jnp.bfloat16).apply(_variables(8), x.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    exact = GroupNorm(2, 1e-5).apply(_variables(8), x.astype(jnp.bfloat16).astype(jnp.float32))
    np.testing.assert_allclose(half.astype(jnp.float32), exact, rtol=2**-8, atol=1e-6)


def test_a_nearly_constant_picture_stays_finite():
    # The variance is a difference of rounded numbers: below zero for some of these.
    x = 1000 + 1e-3 * jax.random.normal(jax.random.key(0), (32, 16, 16, 4))
    assert jnp.isfinite(GroupNorm(2, 1e-6).apply(_variables(4), x)).all()
