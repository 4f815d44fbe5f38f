from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from durian_jax.distributed import sharding
from durian_jax.planning import estimate


def shape(*dimensions):
    return jax.ShapeDtypeStruct(dimensions, jnp.float32)


def state(fsdp: int, devices: int = 8):
    """One trained and two frozen parameters of 64 KiB, and a trained one too small to split."""
    mesh = sharding.make_mesh(fsdp, devices)

    def place(*dimensions, axes=("fsdp",)):
        spread = NamedSharding(mesh, P(*axes))
        return jax.ShapeDtypeStruct(dimensions, jnp.float32, sharding=spread)

    trained = {"denoiser": {"w": place(128, 128), "b": place(32, axes=())}}
    frozen = {"denoiser": {"f": place(128, 128)}, "clip": {"f": place(128, 128)}}
    return SimpleNamespace(trained=trained, frozen=frozen), mesh


def test_bytes_are_those_of_one_device():
    layout, _ = state(fsdp=4)
    assert sharding.local_bytes(layout.frozen) == 2 * 128 * 128 * 4 / 4
    assert sharding.local_bytes(layout.trained) == 128 * 128 * 4 / 4 + 32 * 4


def test_parameters_are_gathered_for_each_pass_and_gradients_scattered():
    found = estimate.collective_traffic(*state(fsdp=4), accumulate=1, compute_bytes=2)
    size, small = 128 * 128 * 2, 32 * 2
    # Trained: twice. Frozen: twice where a gradient passes, once elsewhere.
    assert found["all-gather"] == (2 + 2 + 1) * size * 3 / 4
    assert found["reduce-scatter"] == size * 3 / 4
    # What is scattered over 4 is summed over 2; what is not split, over 8.
    assert found["all-reduce"] == 2 * size / 4 * 1 / 2 + 2 * small * 7 / 8


def test_copies_only_sum_their_gradients():
    layout, mesh = state(fsdp=1)
    assert set(estimate.collective_traffic(layout, mesh, 1, 2)) == {"all-reduce"}
    alone = estimate.collective_traffic(*state(fsdp=1, devices=1), accumulate=1, compute_bytes=2)
    assert alone == {}


def test_sampling_sums_no_gradients():
    found = estimate.collective_traffic(*state(fsdp=4), accumulate=1, compute_bytes=2, train=False)
    assert found == {"all-gather": 3 * 128 * 128 * 2 * 3 / 4}


def live(function, *arguments, inputs):
    return estimate.activations(jax.make_jaxpr(function)(*arguments).jaxpr, inputs)


def test_activations_that_the_backward_pass_needs_live_together():
    def loss(w, x):
        for _ in range(10):
            x = jnp.tanh(x @ w)
        return x.sum()

    arguments, size = (shape(16, 16), shape(1000, 16)), 1000 * 16 * 4
    forward = live(loss, *arguments, inputs=[False, True])
    backward = live(jax.grad(loss), *arguments, inputs=[False, True])
    assert forward <= 2 * size
    assert 10 * size <= backward <= 23 * size


def test_rematerialisation_keeps_less():
    def loss(w, x, wrap):
        layer = wrap(lambda w, x: jnp.tanh(jnp.tanh(jnp.tanh(x @ w) @ w) @ w))
        for _ in range(10):
            x = layer(w, x)
        return x.sum()

    arguments = shape(16, 16), shape(1000, 16)
    whole, lean = (
        live(jax.grad(lambda w, x, f=f: loss(w, x, f)), *arguments, inputs=[False, True])
        for f in (lambda f: f, jax.checkpoint)
    )
    assert lean < 0.6 * whole


def test_what_does_not_depend_on_the_batch_does_not_count():
    def function(w, x):
        return x @ (w @ w)

    assert live(function, shape(500, 500), shape(2, 500), inputs=[False, True]) == 2 * 500 * 4


def test_gradients_do_not_count():
    def step(w, x):
        return w - jax.grad(lambda w: jnp.tanh(x @ w).sum())(w)

    jaxpr = jax.make_jaxpr(step)(shape(500, 400), shape(2, 500)).jaxpr
    found = estimate.activations(jaxpr, [False, True], frozenset([(400, 500)]))
    assert 2 * 500 * 4 <= found < 500 * 400 * 4


@pytest.mark.parametrize("length", [1, 9])
def test_the_body_of_a_loop_lives_once(length):
    def function(w, x):
        def body(x, _):
            return jnp.tanh((x @ w) @ w), None

        return jax.lax.scan(body, x, None, length=length)[0]

    sizes = live(function, shape(16, 16), shape(1000, 16), inputs=[False, True])
    assert sizes <= 3 * 1000 * 16 * 4


def test_of_a_choice_by_platform_the_branch_for_any_lives():
    def function(x):
        wide = lambda x: (x @ x.T) @ x  # noqa: E731
        return jax.lax.platform_dependent(x, tpu=wide, default=lambda x: x @ (x.T @ x))

    assert live(function, shape(1000, 16), inputs=[True]) < 1000 * 1000 * 4
