"""The TPU's kernels, interpreted on a CPU; programs for TPUs, lowered or compiled without one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from durian_jax.distributed import sharding
from durian_jax.models import attention, splash
from durian_jax.models.attention import KeyValue, References, attend
from durian_jax.planning import hlo
from durian_jax.planning.topology import Topology
from durian_jax.training import flops

B, F, L, J, HEADS, D = 2, 2, 150, 200, 2, 8
KERNEL = "tpu_custom_call"
# The interpreter's code takes longer to optimise than to run.
run = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@pytest.fixture
def interpreted(monkeypatch):
    """Several calls of several blocks each, none of which the tokens fill."""
    blocks = {"MAX_QUERIES": 150, "FORWARD_BLOCK": 128, "BACKWARD_BLOCK": 128}
    for name, value in {"INTERPRET": True, **blocks}.items():
        monkeypatch.setattr(splash, name, value)


def _draw(*shape, dtype="float32", seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def test_own_and_padded_reference_tokens_join_as_on_any_machine(interpreted, monkeypatch):
    query, *own = _draw(3, B * F, L, HEADS, D)
    lengths = jnp.array([[J, 70]])
    mix, keep = jnp.ones((1, B, 1)), jnp.array([False, True])

    def loss(query, own, bank):
        tokens = KeyValue(*bank, lengths)
        out = attend(query, KeyValue(*own), References(tokens, mix, keep))
        return (out * jnp.arange(D)).sum() + jnp.square(out).sum()

    inputs = query, own, list(_draw(2, 1, B, J, HEADS, D, seed=1))
    expected = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))(*inputs)
    monkeypatch.setattr(splash, "MIN_TOKENS", L)
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *x, tpu, default: tpu(*x))
    found = run(jax.value_and_grad(loss, (0, 1, 2)))(*inputs)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, expected
    )


def test_bfloat16_is_rounded_a_few_times_and_never_the_scale(interpreted):
    q, d_output = _draw(2, 1, 1, L, 40, dtype="bfloat16")
    k, v = _draw(2, 1, 1, J, 40, dtype="bfloat16", seed=1)
    d_lse = _draw(1, 1, L, 1, seed=2)

    def kernels(q, k, v):
        output, lse = splash.attend(q, k, v, None)
        d_output32 = d_output.astype(jnp.float32)
        shift = d_lse - (d_output32 * output).sum(-1, keepdims=True)
        return output, lse, splash.gradients(q, k, v, None, lse, d_output32, shift)

    def exact(*inputs):
        inputs = [x.astype(jnp.float32) for x in inputs]
        whole = functools.partial(attention._softmax_attention, length=None, block=L)
        (output, lse), back = jax.vjp(lambda q, k, v: whole(q, k, v), *inputs)
        return output, lse, back((d_output.astype(jnp.float32), d_lse))

    def error(found, expected):
        found = found.astype(jnp.float32)
        return jnp.sqrt(jnp.square(found - expected).mean() / jnp.square(expected).mean())

    output, lse, grads = jax.tree.map(error, run(kernels)(q, k, v), jax.jit(exact)(q, k, v))
    assert output < 0.004 and lse < 0.0001 and max(grads) < 0.006


def _arguments(tokens, heads, size, place=None, clips=1, frames=2):
    def shape(*dimensions, dtype=jnp.bfloat16, sharding=place):
        return jax.ShapeDtypeStruct(dimensions, dtype, sharding=sharding)

    own = shape(clips * frames, tokens, heads, size)
    bank = place and NamedSharding(place.mesh, PartitionSpec(None, *place.spec))
    shared = shape(1, clips, 2 * tokens, heads, size, sharding=bank)
    mix = shape(1, clips, 1, dtype=jnp.float32, sharding=bank)
    length = shape(1, clips, dtype=jnp.int32, sharding=bank)
    return own, KeyValue(own, own), References(KeyValue(shared, shared, length), mix)


def _step(query, own, references):
    """Everything that training asks of an attention."""

    def loss(query, own, key, value):
        bank = references.tokens.replace(key=key, value=value)
        return attend(query, own, references.replace(tokens=bank)).astype(jnp.float32).sum()

    bank = references.tokens
    return jax.grad(loss, (0, 1, 2, 3))(query, own, bank.key, bank.value)


def test_a_tpu_runs_the_kernels_where_there_are_many_tokens():
    many, few = (jax.jit(_step).trace(*_arguments(n, 8, 40)) for n in (4096, 64))
    there = many.lower(lowering_platforms=("tpu",)).as_text()
    # Own tokens and references, each forward, towards queries, and towards keys and values.
    assert there.count(f"@{KERNEL}(") == 6 and "stablehlo.dot_general" not in there
    assert KERNEL not in few.lower(lowering_platforms=("tpu",)).as_text()
    assert KERNEL not in many.lower(lowering_platforms=("cpu", "cuda")).as_text()


def test_programs_for_other_machines_stay_as_they_were(monkeypatch):
    arguments = _arguments(64, 2, 8)

    def instructions():
        # Another function, or jax would remember the trace.
        text = jax.jit(lambda *x: attend(*x)).lower(*arguments).compile().as_text()
        bodies = hlo.Program(text).computations.values()
        return [[(one.opcode, one.kind) for one in body.values()] for body in bodies]

    plain = instructions()
    monkeypatch.setattr(splash, "MIN_TOKENS", 64)
    assert KERNEL in jax.jit(attend).trace(*arguments).lower(lowering_platforms=("tpu",)).as_text()
    assert instructions() == plain


def test_every_device_of_a_mesh_runs_them_on_its_clips():
    mesh = sharding.make_mesh(2, 4)
    # Three clips are one too few for four devices: left to the compiler, as without kernels.
    whole = NamedSharding(mesh, PartitionSpec())
    for place, clips, calls in ((sharding.batch_sharding(mesh), 4, 6), (whole, 3, 0)):
        traced = jax.jit(_step).trace(*_arguments(4096, 8, 40, place, clips, frames=1))
        there = traced.lower(lowering_platforms=("tpu",)).as_text()
        assert there.count(f"@{KERNEL}(") == calls


def test_the_kernels_hide_no_flops(monkeypatch):
    def count():
        # Another function, or jax would remember the trace.
        return flops.count(lambda *x: _step(*x), *_arguments(4096, 8, 40)).parts

    found = count()
    monkeypatch.setattr(splash, "MIN_TOKENS", 10**6)
    assert found == count()


def test_the_tpu_compiler_takes_the_kernels():
    """Heads of 40 channels, unpadded, on 4 devices; the logits alone would be 2 GB a device."""
    pytest.importorskip("libtpu")
    mesh = sharding.make_mesh(2, Topology.parse("v5e:2x2").devices())
    arguments = _arguments(4096, 8, 40, sharding.batch_sharding(mesh), clips=4, frames=1)
    options = {"exec_time_optimization_effort": -1.0}
    compiled = jax.jit(_step).lower(*arguments).compile(compiler_options=options)
    assert compiled.as_text().count(f'custom_call_target="{KERNEL}"') == 6
    assert compiled.memory_analysis().temp_size_in_bytes < 2**28
