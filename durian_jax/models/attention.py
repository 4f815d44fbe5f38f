"""Attention: one core for self-, reference, cross- and temporal attention.

Durian's spatial attention (Eq. 6-7, 12) reads keys and values over the target's own tokens and
the tokens of every reference picture. Reference tokens are the same for all frames of a clip, so
they are never copied to the frames: the frames are folded into the query axis instead, and the
two partial attentions are merged by their log-sum-exp, which equals one softmax over all keys.

On NVIDIA GPUs cuDNN's fused kernel does the same in half precision. There the tokens are copied: in
public JAX the kernel gives away its log-sum-exp only rounded, which costs a merge about 1 %. On
TPUs long parts go through kernels (splash.py) and are merged as everywhere.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from jax.ad_checkpoint import checkpoint_name

from durian_jax.models import splash

# What a rematerialisation policy may keep by name.
ATTENTION_OUTPUT = "attention_output"

# Logits that exist at a time, 4 MiB of float32, as far as MIN_QUERIES a block allow: on a CPU they
# stay in its cache; below that many queries the products slow down.
MAX_LOGITS = 2**20
MIN_QUERIES = 128

# What jax.nn.dot_product_attention is told on a GPU; left alone it writes out all logits.
FUSED = "cudnn"


@struct.dataclass
class KeyValue:
    """Projected tokens: `key` and `value` of shape [..., T, heads, D].

    Of a padded set only the first `length`, int32 [...], count; None counts all.
    """

    key: jax.Array
    value: jax.Array
    length: jax.Array | None = None


@struct.dataclass
class PaddedTokens:
    """Context tokens [B, M, d], of which only the first `length`, int32 [B], count."""

    tokens: jax.Array
    length: jax.Array


@struct.dataclass
class References:
    """What one self-attention layer may read besides its own tokens.

    Attributes:
        tokens: KeyValue [I, B, J, heads, D]; I alternative banks (Durian Eq. 14), usually I = 1.
        mix: weight of each alternative, float32 [I, B, F] or [I, B, 1]; sums to 1 over I.
        keep: bool [B] or None; False hides every reference token from that clip.
    """

    tokens: KeyValue
    mix: jax.Array
    keep: jax.Array | None = None


def attend(query: jax.Array, tokens: KeyValue, references: References | None = None) -> jax.Array:
    """Softmax attention over `tokens`, or over `tokens` joined with reference tokens.

    The output is `sum_i mix_i softmax(Q [K; K_i]^T / sqrt(D)) [V; V_i]`, Durian Eq. 7, 12 and 14.
    Logits, softmax and the merge are float32 whatever the dtype of the operands.

    Args:
        query: [b, L, heads, D].
        tokens: KeyValue [B, T, heads, D]; b = B * F, every run of F queries shares one B.
        references: banks shared by the F frames of a clip, or None.

    Returns:
        [b, L, heads, D] in the dtype of `query`.
    """
    if _is_fusible(query, tokens, references):
        return jax.lax.platform_dependent(
            query, tokens, references, cuda=_attend_fused, default=_attend_parts
        )
    return _attend_parts(query, tokens, references)


def _is_fusible(query: jax.Array, tokens: KeyValue, references: References | None) -> bool:
    """Whether there is a GPU whose cuDNN takes it; Hopper and later take heads of up to 256.

    The keys that count must come first: padded tokens with references behind them are not taken.
    """
    if jax.default_backend() != "gpu" or query.dtype not in (jnp.bfloat16, jnp.float16):
        return False
    generation = float(jax.local_devices(backend="gpu")[0].compute_capability)
    size, own = query.shape[-1], len(tokens.key) == len(query)
    own &= tokens.length is None or references is None
    return own and size % 8 == 0 and size <= (256 if generation >= 9 else 128)


def _attend_fused(query, tokens, references):
    """`attend` by one fused kernel for each alternative: own tokens, then the bank's copies."""
    attention = functools.partial(jax.nn.dot_product_attention, implementation=FUSED)
    if references is None:
        lengths = tokens.length
        return attention(query, tokens.key, tokens.value, key_value_seq_lengths=lengths)
    sets, clips = references.mix.shape[:2]
    own, frames, output = tokens.key.shape[1], len(query) // clips, 0.0
    for i in range(sets):
        bank = jax.tree.map(lambda x, i=i: x[i], references.tokens)
        key, value = (
            jnp.concatenate([mine, jnp.repeat(shared, frames, axis=0)], axis=1)
            for mine, shared in ((tokens.key, bank.key), (tokens.value, bank.value))
        )
        lengths = None
        if bank.length is not None or references.keep is not None:
            seen = bank.key.shape[1] if bank.length is None else bank.length
            seen = seen if references.keep is None else jnp.where(references.keep, seen, 0)
            lengths = jnp.repeat(own + seen, frames).astype(jnp.int32)
        mixed = attention(query, key, value, key_value_seq_lengths=lengths)
        mixed = checkpoint_name(mixed, ATTENTION_OUTPUT)
        weight = jnp.broadcast_to(references.mix[i], (clips, frames))
        output += weight.reshape(-1, 1, 1, 1) * mixed
    return output.astype(query.dtype)


def _attend_parts(query, tokens, references):
    """`attend` part by part, block by block: on any machine, in any precision."""
    own, own_lse = _attend_part(query, tokens)
    output = own
    if references is not None:
        sets, clips = references.mix.shape[:2]
        frames = len(query) // clips
        for i in range(sets):
            bank = jax.tree.map(lambda x, i=i: x[i], references.tokens)
            part, lse = _attend_part(query, bank)
            weight = jnp.broadcast_to(references.mix[i], (clips, frames))
            if references.keep is not None:
                weight = jnp.where(references.keep[:, None], weight, 0.0)
            # exp(lse) / (exp(own_lse) + exp(lse)) is the softmax's share of the bank.
            share = weight.reshape(-1, 1, 1, 1) * jax.nn.sigmoid(lse - own_lse)
            output += share * (part - own)
    return output.astype(query.dtype)


def _attend_part(query: jax.Array, tokens: KeyValue) -> tuple[jax.Array, jax.Array]:
    """Attention over one set of keys: output and log-sum-exp [b, L, heads, 1], both float32."""
    clips, count, heads, size = tokens.key.shape
    folded = query.reshape(clips, -1, heads, size)
    # Heads before tokens: XLA's CPU dots are several times slower with heads in the middle.
    q, k, v = (x.swapaxes(1, 2) for x in (folded, tokens.key, tokens.value))
    block = _block_length(folded.shape[1], clips * heads * count)
    output, lse = _softmax_attention(q, k, v, tokens.length, block)
    return output.swapaxes(1, 2).reshape(query.shape), lse.swapaxes(1, 2).reshape(
        *query.shape[:3], 1
    )


def _block_length(queries: int, logits: int) -> int:
    """Queries of one block, each with so many logits: the largest divisor of their number."""
    longest = min(queries, max(MIN_QUERIES, MAX_LOGITS // logits))
    return next(n for n in range(longest, 0, -1) if queries % n == 0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _softmax_attention(q, k, v, length, block):
    """Softmax attention, block by block over the queries.

    The logits of a 64 x 64 picture with two references are 1.6 GB; neither direction ever holds
    more than a block of them. The backward pass computes the weights again from the log-sum-exp
    (FlashAttention, arXiv 2205.14135, algorithm 4).

    Args:
        q: [b, heads, L, D]; k, v: [b, heads, T, D].
        length: int32 [b], at least 1, the keys that count; None for all.
        block: divides L.

    Returns:
        Output [b, heads, L, D] and log-sum-exp [b, heads, L, 1], both float32. The log-sum-exp must
        stay float32: in bfloat16 the merge of two parts loses about 1 %.
    """
    blockwise = functools.partial(_blockwise_attention, block=block)
    if splash.pays(q, k):
        return jax.lax.platform_dependent(q, k, v, length, tpu=splash.attend, default=blockwise)
    return blockwise(q, k, v, length)


def _blockwise_attention(q, k, v, length, block):
    def attend_block(q):
        logits, scale = _logits(q, k, length), q.shape[-1] ** -0.5
        peak = logits.max(-1, keepdims=True)
        # Scaled here, not before: one pass less over the logits.
        weights = jnp.exp((logits - peak) * scale)
        total = weights.sum(-1, keepdims=True)
        # Normalising after the product touches L x D numbers instead of L x T.
        output = _product("bhqk,bhkd->bhqd", weights.astype(v.dtype), v)
        return output / total, jnp.log(total) + peak * scale

    if block == q.shape[2]:
        return attend_block(q)
    return jax.tree.map(_join, jax.lax.map(attend_block, _split(q, block)))


def _softmax_attention_forward(q, k, v, length, block):
    # With both kept, no rematerialisation walks through the logits a third time.
    output, lse = checkpoint_name(_softmax_attention(q, k, v, length, block), ATTENTION_OUTPUT)
    return (output, lse), (q, k, v, length, output, lse)


def _softmax_attention_backward(block, saved, cotangents):
    q, k, v, length, output, lse = saved
    d_output, d_mass = cotangents
    # The softmax's Jacobian needs the output only through this one number a query.
    shift = d_mass - (d_output * output).sum(-1, keepdims=True)
    inputs = q, k, v, length, lse, d_output, shift
    blockwise = functools.partial(_blockwise_gradients, block=block)
    if splash.pays(q, k):
        found = jax.lax.platform_dependent(*inputs, tpu=splash.gradients, default=blockwise)
    else:
        found = blockwise(*inputs)
    return *found, None


def _blockwise_gradients(q, k, v, length, lse, d_output, shift, block):
    def step(sums, now):
        q, lse, d_output, shift = now
        with jax.named_scope("recomputed"):  # so that no FLOP counter takes it for new work
            logits = _logits(q, k, length)
        weights = jnp.exp(logits * q.shape[-1] ** -0.5 - lse)
        d_output = d_output.astype(v.dtype)
        d_weights = _product("bhqd,bhkd->bhqk", d_output, v)
        d_logits = (weights * (d_weights + shift) * q.shape[-1] ** -0.5).astype(q.dtype)
        d_k = _product("bhqk,bhqd->bhkd", d_logits, q)
        d_v = _product("bhqk,bhqd->bhkd", weights.astype(v.dtype), d_output)
        d_q = _product("bhqk,bhkd->bhqd", d_logits, k).astype(q.dtype)
        return (sums[0] + d_k, sums[1] + d_v), d_q

    zeros = jnp.zeros(k.shape, jnp.float32), jnp.zeros(v.shape, jnp.float32)
    if block == q.shape[2]:
        (d_k, d_v), d_q = step(zeros, (q, lse, d_output, shift))
    else:
        blocks = tuple(_split(x, block) for x in (q, lse, d_output, shift))
        (d_k, d_v), d_q = jax.lax.scan(step, zeros, blocks)
        d_q = _join(d_q)
    return d_q, d_k.astype(k.dtype), d_v.astype(v.dtype)


_softmax_attention.defvjp(_softmax_attention_forward, _softmax_attention_backward)


def _logits(q, k, length):
    """Not yet scaled; -inf where padded."""
    logits = _product("bhqd,bhkd->bhqk", q, k)
    if length is None:
        return logits
    counts = jnp.arange(k.shape[2]) < length[:, None, None, None]
    return jnp.where(counts, logits, -jnp.inf)


def _product(form, a, b):
    return jnp.einsum(form, a, b, preferred_element_type=jnp.float32)


def _split(x, block):
    """[b, heads, L, D] -> [L / block, b, heads, block, D]."""
    x = x.reshape(*x.shape[:2], -1, block, x.shape[-1])
    return jnp.moveaxis(x, 2, 0)


def _join(x):
    """The inverse of `_split`."""
    x = jnp.moveaxis(x, 0, 2)
    return x.reshape(*x.shape[:2], -1, x.shape[-1])


def attend_frames(query: jax.Array, tokens: KeyValue) -> jax.Array:
    """Self-attention over the frames of a clip, separately at every pixel.

    Frames are contracted where they stand; moving them behind the pixels is a full transpose of
    the video for a few dozen keys.

    Args:
        query: [B, F, L, heads, D].
        tokens: KeyValue of the same shape.

    Returns:
        [B, F, L, heads, D] in the dtype of `query`.
    """
    logits = jnp.einsum("bflhd,bglhd->blhfg", query, tokens.key, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(logits * query.shape[-1] ** -0.5, axis=-1)
    return jnp.einsum("blhfg,bglhd->bflhd", weights.astype(query.dtype), tokens.value)


class Attention(nn.Module):
    """Multi-head attention with the parameters of diffusers' `Attention`.

    Attributes:
        width: channels of the query tokens and of the output.
        heads: number of heads; the head size D is width / heads.
        bias: whether to_q, to_k and to_v have biases (to_out_0 always has).
    """

    width: int
    heads: int
    bias: bool = False
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        self.to_q = nn.Dense(self.width, use_bias=self.bias, dtype=self.dtype)
        self.to_k = nn.Dense(self.width, use_bias=self.bias, dtype=self.dtype)
        self.to_v = nn.Dense(self.width, use_bias=self.bias, dtype=self.dtype)
        self.to_out = [nn.Dense(self.width, dtype=self.dtype)]

    def __call__(
        self,
        x: jax.Array,
        context: jax.Array | PaddedTokens | None = None,
        references: References | None = None,
    ) -> jax.Array:
        """Attends from tokens x [b, L, width].

        Args:
            x: query tokens; also the keys when `context` is None.
            context: [B, M, d] tokens to read instead, B dividing b.
            references: further tokens to read.
        """
        if isinstance(context, PaddedTokens):
            tokens = self.keys_values(context.tokens).replace(length=context.length)
        else:
            tokens = self.keys_values(x if context is None else context)
        return self._output(attend(self._split(self.to_q(x)), tokens, references))

    def of_one(self, context: jax.Array) -> jax.Array:
        """What any query gets from a single token each, [B, 1, d] -> [B, 1, width]."""
        return self.to_out[0](self.to_v(context))

    def over_frames(self, x: jax.Array) -> jax.Array:
        """Attends over F from tokens x [B, F, L, width]."""
        return self._output(attend_frames(self._split(self.to_q(x)), self.keys_values(x)))

    def keys_values(self, tokens: jax.Array) -> KeyValue:
        """Projects tokens [..., T, d] to keys and values [..., T, heads, D]."""
        return KeyValue(self._split(self.to_k(tokens)), self._split(self.to_v(tokens)))

    def _split(self, x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:-1], self.heads, -1)

    def _output(self, x: jax.Array) -> jax.Array:
        return self.to_out[0](x.reshape(*x.shape[:-2], self.width))
