import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from durian_jax.models import attention
from durian_jax.models.attention import Attention, KeyValue, References, attend, attend_frames

B, F, L, J, HEADS, D = 2, 3, 6, 10, 2, 8


def _softmax_attention(query, key, value):
    """Textbook attention in float64: query [b, L, heads, D], keys [b, T, heads, D]."""
    query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
    logits = np.einsum("bqhd,bkhd->bhqk", query, key) / np.sqrt(query.shape[-1])
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return np.einsum("bhqk,bkhd->bqhd", weights / weights.sum(-1, keepdims=True), value)


def _joined(query, own, bank):
    """Textbook attention of every frame over its own tokens joined with its clip's bank."""
    key = np.concatenate([own.key, np.repeat(bank.key, F, axis=0)], axis=1)
    value = np.concatenate([own.value, np.repeat(bank.value, F, axis=0)], axis=1)
    return _softmax_attention(query, key, value)


@pytest.fixture(scope="module")
def tokens():
    rng = np.random.default_rng(0)

    def draw(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    own = KeyValue(draw(B * F, L, HEADS, D), draw(B * F, L, HEADS, D))
    banks = KeyValue(draw(2, B, J, HEADS, D), draw(2, B, J, HEADS, D))
    return draw(B * F, L, HEADS, D), own, banks


def _bank(banks, *indices):
    return jax.tree.map(lambda x: x[np.array(indices)], banks)


def test_reference_tokens_join_one_softmax(tokens):
    query, own, banks = tokens
    out = jax.jit(attend)(query, own, References(_bank(banks, 0), jnp.ones((1, B, 1))))
    expected = _joined(query, own, KeyValue(banks.key[0], banks.value[0]))
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-6)


def test_huge_logits_overflow_neither_output_nor_gradient(tokens):
    query, own, banks = tokens
    references = References(_bank(banks, 0), jnp.ones((1, B, 1)), jnp.array([True, False]))

    def loss(query, bank):
        return attend(300 * query, own, references.replace(tokens=bank)).sum()

    value, grads = jax.jit(jax.value_and_grad(loss, (0, 1)))(query, references.tokens)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((value, grads)))


def test_alternatives_mix_outputs_per_frame(tokens):
    query, own, banks = tokens
    alpha = np.linspace(0, 1, B * F, dtype=np.float32).reshape(B, F)
    out = jax.jit(attend)(query, own, References(banks, jnp.stack([1 - alpha, alpha])))
    first, second = (_joined(query, own, KeyValue(banks.key[i], banks.value[i])) for i in (0, 1))
    weight = alpha.reshape(-1, 1, 1, 1)
    np.testing.assert_allclose(out, (1 - weight) * first + weight * second, rtol=0, atol=1e-6)


def test_keep_hides_the_references_of_one_clip_only(tokens):
    query, own, banks = tokens
    references = References(_bank(banks, 0), jnp.ones((1, B, 1)))
    plain = jax.jit(attend)(query, own)
    seen = jax.jit(attend)(query, own, references)
    out = jax.jit(attend)(query, own, references.replace(keep=jnp.array([False, True])))
    np.testing.assert_array_equal(out[:F], plain[:F])
    np.testing.assert_array_equal(out[F:], seen[F:])
    assert np.abs(plain - seen).max() > 0.1


def test_bfloat16_merge_keeps_float32_weights(tokens):
    query, own, banks = jax.tree.map(lambda x: x.astype(jnp.bfloat16), tokens)
    out = jax.jit(attend)(query, own, References(_bank(banks, 0), jnp.ones((1, B, 1))))
    assert out.dtype == jnp.bfloat16
    expected = _joined(query, own, KeyValue(banks.key[0], banks.value[0]))
    error = np.asarray(out, np.float64) - expected
    # One rounding of the weights and one of the output, 2^-9 each at most.
    assert np.sqrt((error**2).mean() / (expected**2).mean()) < 0.003


def test_merge_survives_logits_far_from_zero_in_bfloat16(tokens):
    """A common offset of the logits cancels, unless the log-sum-exp is rounded to bfloat16."""
    query, own, banks = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), tokens)
    query = query.at[..., 0].set(8)
    own, banks = (x.replace(key=x.key.at[..., 0].set(25)) for x in (own, banks))
    out = jax.jit(attend)(query, own, References(_bank(banks, 0), jnp.ones((1, B, 1))))
    expected = _joined(query, own, KeyValue(banks.key[0], banks.value[0]))
    error = np.asarray(out, np.float64) - expected
    assert np.sqrt((error**2).mean() / (expected**2).mean()) < 0.003


def test_references_are_never_copied_to_the_frames(tokens):
    query, own, banks = tokens
    references = References(_bank(banks, 0), jnp.ones((1, B, 1)))
    shapes = [
        var.aval.shape
        for eqn in jax.make_jaxpr(attend)(query, own, references).eqns
        for var in eqn.outvars
    ]
    copied = B * F * J * HEADS * D
    assert not [s for s in shapes if len(s) == 4 and D in s and np.prod(s) >= copied]


def test_cross_attention_shares_a_context_between_frames(fill):
    module = Attention(width=16, heads=HEADS)
    rng = np.random.default_rng(0)
    x, context = rng.standard_normal((B * F, L, 16)), rng.standard_normal((B, 4, 12))
    x, context = x.astype(np.float32), context.astype(np.float32)
    params = fill(jax.eval_shape(module.init, jax.random.key(0), x, context))
    apply = jax.jit(module.apply)
    out = apply(params, x, context)
    np.testing.assert_allclose(out, apply(params, x, context.repeat(F, 0)), rtol=0, atol=1e-6)


def test_frame_attention_mixes_frames_and_not_pixels(tokens):
    query, own = jax.tree.map(lambda x: x.reshape(B, F, *x.shape[1:]), tokens[:2])
    out = jax.jit(attend_frames)(query, own)
    for pixel in range(L):
        expected = _softmax_attention(
            query[:, :, pixel], own.key[:, :, pixel], own.value[:, :, pixel]
        )
        np.testing.assert_allclose(out[:, :, pixel], expected, rtol=0, atol=1e-6)


def test_blocks_of_queries_give_the_same_values_and_gradients(tokens, monkeypatch):
    query, own, banks = tokens
    references = References(_bank(banks, 0), jnp.ones((1, B, 1)))

    def loss(query, own, bank):
        output = attend(query, own, references.replace(tokens=bank))
        return (output * jnp.arange(D)).sum() + jnp.square(output).sum()

    def textbook(query, own, bank):
        joined = [
            jnp.concatenate([mine, jnp.repeat(shared[0], F, axis=0)], axis=1)
            for mine, shared in ((own.key, bank.key), (own.value, bank.value))
        ]
        logits = jnp.einsum("bqhd,bkhd->bhqk", query, joined[0]) * D**-0.5
        output = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(logits), joined[1])
        return (output * jnp.arange(D)).sum() + jnp.square(output).sum()

    inputs = (query, own, references.tokens)
    expected = jax.jit(jax.value_and_grad(textbook, (0, 1, 2)))(*inputs)
    # Whole; blocks of 3 of 6 own queries and of 9 of the 18 that a clip has for its bank; of 1.
    for limit, least, loops in ((2**20, 1, 0), (9 * B * HEADS * J, 1, 4), (1, 3, 4), (1, 1, 4)):
        monkeypatch.setattr(attention, "MAX_LOGITS", limit)
        monkeypatch.setattr(attention, "MIN_QUERIES", least)
        step = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))
        assert step.lower(*inputs).as_text().count("stablehlo.while") == loops
        found = step(*inputs)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, expected
        )


def test_padding_of_a_bank_gets_neither_weight_nor_gradient(tokens, monkeypatch):
    monkeypatch.setattr(attention, "MAX_LOGITS", 1)
    monkeypatch.setattr(attention, "MIN_QUERIES", 2)  # a few blocks
    query, own, banks = tokens
    lengths = jnp.array([[J, J - 4]])

    def loss(banks, lengths, clip):
        banks = banks.replace(length=lengths)
        out = attend(query, own, References(banks, jnp.ones((1, B, 1))))
        return (out[clip * F : (clip + 1) * F] ** 2).sum()

    bank = _bank(banks, 0)
    short = jax.tree.map(lambda x: x[:, :, : J - 4], bank)
    value, grads = jax.jit(jax.value_and_grad(loss), static_argnums=2)(bank, lengths, 1)
    expected, wanted = jax.jit(jax.value_and_grad(loss), static_argnums=2)(short, None, 1)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    for name in ("key", "value"):
        got = getattr(grads, name)
        np.testing.assert_allclose(got[:, :, : J - 4], getattr(wanted, name), atol=1e-6)
        assert not got[:, :, J - 4 :].any()


@pytest.mark.parametrize("kept, padded", [(False, False), (True, False), (False, True)])
def test_the_fused_path_is_the_same_attention(tokens, monkeypatch, kept, padded):
    monkeypatch.setattr(attention, "FUSED", "xla")  # no cuDNN here: JAX's own in its place
    query, own, banks = tokens
    alpha = jnp.linspace(0, 1, B * F).reshape(B, F)
    references = References(
        banks.replace(length=jnp.array([[J, 4], [2, J]]) if padded else None),
        jnp.stack([1 - alpha, alpha]),
        jnp.array([False, True]) if kept else None,
    )
    out = jax.jit(attention._attend_fused)(query, own, references)
    np.testing.assert_allclose(out, attend(query, own, references), rtol=0, atol=1e-6)
    some = own.replace(length=jnp.arange(1, 1 + len(query))) if padded else own
    alone = jax.jit(attention._attend_fused)(query, some, None)
    np.testing.assert_allclose(alone, attend(query, some), rtol=0, atol=1e-6)


def test_a_gpu_runs_the_fused_kernel_forward_and_backward(tokens, monkeypatch):
    """Lowered for CUDA, which needs no GPU; whether it runs there is not seen here."""
    monkeypatch.setattr(attention, "_is_fusible", lambda *_: True)
    module = "jax._src.cudnn.fused_attention_stablehlo"
    monkeypatch.setattr(f"{module}.check_cudnn_version", lambda: 91000)
    query, own, banks = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), tokens)

    def loss(query, own, bank, keep):
        references = References(bank, jnp.ones((1, B, 1)), keep)
        return attend(query, own, references).astype(jnp.float32).sum()

    traced = jax.jit(jax.grad(loss)).trace(query, own, _bank(banks, 0), jnp.array([True, False]))
    there = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert "__cudnn$fmhaSoftmax" in there and "__cudnn$fmhaSoftmaxBackward" in there
    assert "stablehlo.exponential" not in there
    assert "cudnn" not in traced.lower(lowering_platforms=("cpu",)).as_text()


@pytest.mark.slow
@pytest.mark.parametrize("gradient", [False, True])
def test_on_a_cpu_it_takes_far_less_than_plain_attention(gradient):
    """1024 queries, 3072 keys, 8 heads of 40: the least processor time of alternating rounds."""
    rng = np.random.default_rng(0)
    query, key, value, bank_key, bank_value = (
        jnp.asarray(rng.standard_normal((1, n, 8, 40)), jnp.float32)
        for n in (1024, 1024, 1024, 2048, 2048)
    )

    def ours(query, key, value, bank_key, bank_value):
        bank = KeyValue(bank_key[None], bank_value[None])
        return attend(query, KeyValue(key, value), References(bank, jnp.ones((1, 1, 1))))

    def plain(query, key, value, bank_key, bank_value):
        key, value = (jnp.concatenate(x, 1) for x in ((key, bank_key), (value, bank_value)))
        return jax.nn.dot_product_attention(query, key, value, implementation="xla")

    def prepare(function):
        if gradient:
            inner = function
            function = jax.grad(lambda *x: jnp.square(inner(*x)).sum(), (0, 1, 2, 3, 4))
        return jax.jit(function)

    functions, arrays = [prepare(ours), prepare(plain)], (query, key, value, bank_key, bank_value)
    seconds = [[], []]
    for _ in range(6):
        for function, spent in zip(functions, seconds, strict=True):
            start = time.process_time()
            jax.block_until_ready(function(*arrays))
            spent.append(time.process_time() - start)
    least, most = (min(spent) for spent in seconds)
    assert least <= 0.6 * most
