"""Initial weights drawn without compiling what draws them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from durian_jax.training import drawing
from durian_jax.training.train_step import Training
from tests import smallest


def test_a_state_is_what_the_compiled_program_makes():
    config = smallest.get_config("stage2")
    config.model.remat = ("full",)
    initial, key = Training.build(config).initial, jax.random.key(3)
    kernel = {"denoiser": {"conv_out": {"kernel": np.full((3, 3, 32, 192), 0.5, np.float32)}}}
    options = {"xla_backend_optimization_level": 0}
    wanted = jax.jit(initial, compiler_options=options)(key, kernel)
    found = drawing.run(initial, key, kernel)
    assert (found.frozen["denoiser"]["conv_out"]["kernel"] == 0.5).all()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-7), found, wanted)
    equal = jax.tree.leaves(jax.tree.map(np.array_equal, found, wanted))
    assert np.mean(equal) > 0.99  # XLA rounds a kernel otherwise that it concatenates


def test_only_what_is_returned_is_computed():
    def function(key, scale):
        unused = jax.pure_callback(lambda: 1 / 0, jax.ShapeDtypeStruct((), jnp.float32))
        drawn = jax.random.normal(key, (3, 5)) * scale
        return {"drawn": drawn, "sum": drawn.sum(), "zeros": jnp.zeros((2, 2))}, unused * 0

    key = jax.random.key(0)
    found = drawing.run(lambda *given: function(*given)[0], key, np.float32(2))
    np.testing.assert_array_equal(found["drawn"], jax.random.normal(key, (3, 5)) * 2)
    np.testing.assert_allclose(found["sum"], found["drawn"].sum(), rtol=1e-6)
    assert found["zeros"].shape == (2, 2)
    with pytest.raises(Exception, match="division by zero"):
        drawing.run(function, key, np.float32(2))
