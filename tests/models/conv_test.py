import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from durian_jax.models.conv import Conv


@pytest.mark.parametrize("size", [(8, 12), (104, 100)], ids=["by XLA", "by products"])
@pytest.mark.parametrize(
    "options",
    [
        dict(kernel_size=(3, 3), padding=1),
        dict(kernel_size=(1, 1)),
        dict(kernel_size=(3, 3), padding=1, strides=2),
        dict(kernel_size=(3, 3), padding=[(0, 1)] * 2, strides=2),
        dict(kernel_size=(4, 4), padding="VALID", strides=(4, 4)),
    ],
)
def test_values_and_gradients_are_those_of_flax(options, size):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, *size, 5)).astype(np.float32)
    params = jax.jit(nn.Conv(6, **options).init)(jax.random.key(0), x)
    params["params"]["bias"] = jnp.arange(6.0)

    def run(kind):
        def loss(params, x):
            out = kind(6, **options).apply(params, x)
            # Neither symmetric nor constant, so that a swapped or flipped axis shows.
            return jnp.square(out * (1 + jnp.arange(out.size).reshape(out.shape) % 7)).mean()

        return jax.jit(jax.value_and_grad(loss, (0, 1)))(params, x)

    assert jax.tree.structure(run(Conv)) == jax.tree.structure(run(nn.Conv))
    for one, other in zip(jax.tree.leaves(run(Conv)), jax.tree.leaves(run(nn.Conv))):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-5)


def test_computes_in_its_dtype_and_keeps_parameters_in_float32():
    x = np.ones((1, 4, 4, 3), np.float32)
    out, params = jax.jit(Conv(2, (3, 3), padding=1, dtype=jnp.bfloat16).init_with_output)(
        jax.random.key(0), x
    )
    assert out.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype("float32")}
