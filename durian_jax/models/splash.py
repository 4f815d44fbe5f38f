"""Softmax attention by JAX's Pallas kernels for TPU, splash attention (jax.experimental.pallas).

Logits never leave the chip's scratch memory. The forward kernel gives its log-sum-exp in float32,
so that attentions over several sets of keys can be merged. Through that the library has no
gradient, but its backward kernels take, as one number a query, what the log-sum-exp adds. They
have private names; a test holds on to them.

The compiler can not split a kernel over devices, so every device is given its part of the leading
axis. A program for several devices therefore has to say where its inputs lie.
"""

import math

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

# Queries and keys from which on the kernels are chosen, as in MaxDiffusion. At 1024 XLA keeps the
# logits of the forward pass in scratch memory by itself.
MIN_TOKENS = 4096
# Most queries of a call: in main memory a token of the kernels' operands and results has 128
# channels, in float32 that of the log-sum-exp.
MAX_QUERIES = 4096
# Most tokens that a step of a kernel holds, forward and backward: logits are the square of it.
FORWARD_BLOCK, BACKWARD_BLOCK = 1024, 512
# What blocks are multiples of: the width of a TPU's vector registers.
LANES = 128

# By JAX's interpreter of kernels, so that a CPU can run them.
INTERPRET = False


def pays(q: jax.Array, k: jax.Array) -> bool:
    """Whether a TPU shall do it: enough of q [b, heads, L, D] and k [b, heads, T, D].

    False too where the devices of a mesh can not share out the b.
    """
    return min(q.shape[2], k.shape[2]) >= MIN_TOKENS and len(q) % _devices(q) == 0


def attend(q, k, v, length):
    """Softmax attention.

    Args:
        q: [b, heads, L, D]; k, v: [b, heads, T, D].
        length: int32 [b], at least 1, the keys that count; None for all.

    Returns:
        Output [b, heads, L, D] and log-sum-exp [b, heads, L, 1], both float32; the output has
        been rounded to the dtype of q.
    """
    kernels, options = _library()

    def call(q, k, v, length):
        block_q, block_kv = _block(q, FORWARD_BLOCK), _block(k, FORWARD_BLOCK)
        kernel = kernels.SplashAttentionKernel(
            _unmasked(kernels), None, None, save_residuals=True, residual_checkpoint_name=None,
            block_sizes=kernels.BlockSizes(block_q, block_kv), **options,
        )  # fmt: skip
        segments = _segments(kernels, q, k, length, block_q, block_kv)
        output, (lse,) = kernel(
            _pad(_scaled(q), block_q), _pad(k, block_kv), _pad(v, block_kv), segments
        )
        count = q.shape[1]
        return output[:, :count], lse[:, :count, None]

    def one(q, k, v, length):
        found = jax.lax.map(lambda q: call(q, k, v, length), _split(q))
        return jax.tree.map(_join, found)

    output, lse = _one_by_one(one, q, k, v, length)
    return output.astype(jnp.float32), lse


def gradients(q, k, v, length, lse, d_output, shift):
    """Gradients towards q, k and v, in their dtypes.

    Args:
        q, k, v, length: as in `attend`.
        lse: the log-sum-exp.
        d_output: gradient towards the output, float32.
        shift: what is added to d_output V^T before the weights multiply it, float32
            [b, heads, L, 1].
    """
    kernels, options = _library()
    layout = kernels.QKVLayout.HEAD_DIM_MINOR
    options |= {"q_layout": layout, "k_layout": layout, "v_layout": layout}
    options |= {"mask_info": _unmasked(kernels)}

    def call(q, k, v, length, lse, d_output, shift):
        block_q, block_kv = _block(q, BACKWARD_BLOCK), _block(k, BACKWARD_BLOCK)
        padded = [_pad(x, block_q) for x in (_scaled(q), lse, d_output.astype(v.dtype), -shift)]
        segments = _segments(kernels, q, k, length, block_q, block_kv)
        operands = (
            padded[0], _pad(k, block_kv), _pad(v, block_kv), segments, None, padded[1][..., 0],
            padded[2], padded[3][..., 0],
        )  # fmt: skip
        blocks = {"bq": block_q, "bkv": block_kv}
        d_q = kernels._splash_attention_bwd_dq(*operands, **blocks, **options)
        _, d_k, d_v = kernels._splash_attention_bwd_dkv(
            *operands, **blocks, bkv_compute=block_kv, use_fused_bwd_kernel=False, **options
        )
        count = k.shape[1]
        return _scaled(d_q[:, : q.shape[1]]), d_k[:, :count], d_v[:, :count]

    def one(q, k, v, length, *rest):
        def step(sums, now):
            d_q, *found = call(now[0], k, v, length, *now[1:])
            return [a + b for a, b in zip(sums, found, strict=True)], d_q

        zeros = [jnp.zeros(x.shape, jnp.float32) for x in (k, v)]
        (d_k, d_v), d_q = jax.lax.scan(step, zeros, [_split(x) for x in (q, *rest)])
        return _join(d_q), d_k.astype(k.dtype), d_v.astype(v.dtype)

    return _one_by_one(one, q, k, v, length, lse, d_output, shift)


def _library():
    """The kernels and what all of them are told; imported here since it takes half a second."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel

    return splash_attention_kernel, {
        "is_mqa": False,
        "mask_value": splash_attention_kernel.DEFAULT_MASK_VALUE,
        "attn_logits_soft_cap": None,
        "mask_function": None,
        "interpret": INTERPRET,
    }


def _unmasked(kernels):
    """Every query may see every key of its segment."""
    return kernels.mask_info_lib.MaskInfo(None, None, None, None, None)


def _one_by_one(function, *arrays):
    """Maps over the leading axis, of which every device of the mesh takes its part."""

    def mapped(*arrays):
        return jax.lax.map(lambda one: function(*one), arrays)

    if _devices(arrays[0]) == 1:
        return mapped(*arrays)
    mesh = jax.typeof(arrays[0]).sharding.mesh
    split = PartitionSpec(mesh.auto_axes)
    return jax.shard_map(mapped, mesh=mesh, in_specs=split, out_specs=split, check_vma=False)(
        *arrays
    )


def _devices(x) -> int:
    """How many the compiler may spread an array over."""
    mesh = jax.typeof(x).sharding.mesh
    return math.prod(mesh.shape[axis] for axis in mesh.auto_axes)


def _split(x):
    """[heads, L, D] -> [n, heads, L / n, D], at most MAX_QUERIES each."""
    heads, count, size = x.shape
    parts = next(n for n in range(-(-count // MAX_QUERIES), count + 1) if count % n == 0)
    return x.reshape(heads, parts, -1, size).swapaxes(0, 1)


def _join(x):
    """The inverse of `_split`."""
    x = x.swapaxes(0, 1)
    return x.reshape(len(x), -1, x.shape[-1])


def _scaled(q):
    """In float32: the scale itself, rounded to bfloat16, would be another temperature."""
    return (q.astype(jnp.float32) * q.shape[-1] ** -0.5).astype(q.dtype)


def _block(x, most: int) -> int:
    """The length of blocks, at most so long, that pad the tokens of [heads, tokens, D] least."""
    count = x.shape[1]
    return -(-count // (-(-count // most) * LANES)) * LANES


def _pad(x, block: int):
    return jnp.pad(x, ((0, 0), (0, -x.shape[1] % block), (0, 0)))


def _segments(kernels, q, k, length, block_q: int, block_kv: int):
    """Segment 1 has all queries and the keys that count; None if no key is padding."""
    queries, keys = (x.shape[1] + -x.shape[1] % n for x, n in ((q, block_q), (k, block_kv)))
    if length is None and keys == k.shape[1]:
        return None
    counts = jnp.arange(keys) < (k.shape[1] if length is None else length)
    return kernels.SegmentIds(jnp.ones(queries, jnp.int32), counts.astype(jnp.int32))
