"""Spatial and temporal attention alone, against PyTorch's fused kernel and jax.nn's plain one.

    python -m benchmarks.attention --device cpu --size reduced
    python -m benchmarks.attention --device gpu --size full --frames 24 --rounds 50

Needs the [torch] extra. Self-attention of every frame over its own tokens and two references: ours
merges two parts, the others get one set of keys, copied to every frame before the clock starts.
Forward, and forward with the gradients of all inputs. Outputs are compared first. Prints a report
in Markdown for benchmarks/results.
"""

import argparse
import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.nn import functional

from benchmarks import scene, timing
from durian_jax.models.attention import KeyValue, References, attend, attend_frames

REFERENCES = 2
# Tokens, heads, head size of each level, coarsest last.
LEVELS = {
    "reduced": ((1024, 2, 32), (256, 2, 64), (64, 2, 128)),
    "full": ((4096, 8, 40), (1024, 8, 80), (256, 8, 160)),
}
LIMITS = {"float32": 1e-5, "bfloat16": 2e-2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--size", choices=scene.SIZES, default="reduced")
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--clock", choices=tuple(timing.CLOCKS), default="wall")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    gpu = options.device == "gpu"
    jax.config.update("jax_platforms", "cuda" if gpu else "cpu")
    dtype = "bfloat16" if gpu else "float32"
    command = f"python -m benchmarks.attention {' '.join(sys.argv[1:])}"
    title = f"Attention, {options.size} size, {options.frames} frames, {dtype}"
    print(timing.header(title, command, ("torch",)), flush=True)
    for tokens, heads, size in LEVELS[options.size]:
        shape = options.frames, tokens, heads, size
        for gradient in (False, True):
            cases, flops = _spatial(shape, dtype, gpu, gradient)
            _report(f"{shape}, {REFERENCES} references", cases, flops, gradient, options, dtype)
        cases, flops = _temporal(shape, dtype, gpu)
        _report(f"{shape}, over frames", cases, flops, False, options, dtype)


def _report(title, cases, flops, gradient, options, dtype) -> None:
    """Compares, times and prints the cases; each returns arrays, the first of them the output."""
    direction = "forward and backward" if gradient else "forward"
    print(f"\n## {title}, {direction}\n")
    expected = cases["PyTorch"]()
    for name in [name for name in cases if name != "PyTorch"]:
        for ours, theirs in zip(cases[name](), expected, strict=True):
            print(timing.check_equal(name, _array(ours), _array(theirs), LIMITS[dtype]))
    cases["matmul"], product = timing.peak_product(dtype)
    cases["matmul"]()
    times = timing.interleave(cases, options.rounds, options.clock)
    work = {name: flops for name in cases} | {"matmul": product}
    print(f"\n{timing.table(times, 'PyTorch', work, {})}", flush=True)


def _array(x) -> np.ndarray:
    return x.detach().float().cpu().numpy() if isinstance(x, torch.Tensor) else np.asarray(x, "f4")


def _spatial(shape, dtype, gpu, gradient):
    """Cases, and the FLOPs that the mathematics asks for."""
    frames, tokens, heads, size = shape
    rng = np.random.default_rng(0)
    query, key, value = (rng.standard_normal(shape, np.float32) for _ in range(3))
    bank = rng.standard_normal((2, 1, REFERENCES * tokens, heads, size), np.float32)
    joined = [
        np.concatenate([own, np.repeat(shared, frames, axis=0)], axis=1)
        for own, shared in zip((key, value), bank, strict=True)
    ]
    ours = [jnp.asarray(x, dtype) for x in (query, key, value, *bank)]
    plain = [jnp.asarray(x, dtype) for x in (query, *joined)]
    theirs = _tensors((query, *joined), dtype, gpu, gradient)

    def merged(query, key, value, bank_key, bank_value):
        tokens = KeyValue(bank_key[None], bank_value[None])
        references = References(tokens, jnp.ones((1, 1, 1)))
        return attend(query, KeyValue(key, value), references)

    whole = functools.partial(jax.nn.dot_product_attention, implementation="xla")
    cases = {
        "ours": _jax_case(merged, ours, gradient),
        "PyTorch": functools.partial(_sdpa, *theirs, gradient, gpu),
        "jax.nn, xla": _jax_case(whole, plain, gradient),
    }
    if gpu:
        fused = functools.partial(jax.nn.dot_product_attention, implementation="cudnn")
        cases["jax.nn, cudnn"] = _jax_case(fused, plain, gradient)
    products = 6 if gradient else 2
    return cases, 2 * products * frames * tokens * tokens * (1 + REFERENCES) * heads * size


def _temporal(shape, dtype, gpu):
    frames, tokens, heads, size = shape
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((1, *shape), np.float32) for _ in range(3)]
    # PyTorch gets [L, F, heads, D] views, as motion modules hand them over.
    theirs = _tensors([x[0].swapaxes(0, 1) for x in arrays], dtype, gpu, False)

    def ours(query, key, value):
        return attend_frames(query, KeyValue(key, value))[0].swapaxes(0, 1)

    cases = {
        "ours": _jax_case(ours, [jnp.asarray(x, dtype) for x in arrays], False),
        "PyTorch": functools.partial(_sdpa, *theirs, False, gpu),
    }
    return cases, 4 * frames * frames * tokens * heads * size


def _jax_case(function, arrays, gradient):
    """A call that returns (output,), or (output, gradient towards the query)."""

    def both(*arrays):
        if not gradient:
            return (function(*arrays),)
        output, back = jax.vjp(function, *arrays)
        gradients = back(jnp.ones_like(output))
        # All of them are computed; the first can be compared whatever was copied.
        return output, *jax.lax.optimization_barrier(gradients)[:1]

    compiled = jax.jit(both).lower(*arrays).compile()
    return lambda: jax.block_until_ready(compiled(*arrays))


def _tensors(arrays, dtype, gpu, gradient):
    place = {"dtype": getattr(torch, dtype), "device": "cuda" if gpu else "cpu"}
    return [
        torch.from_numpy(np.ascontiguousarray(x)).to(**place).requires_grad_(gradient)
        for x in arrays
    ]


def _sdpa(query, key, value, gradient, gpu):
    transposed = (x.transpose(1, 2) for x in (query, key, value))
    output = functional.scaled_dot_product_attention(*transposed).transpose(1, 2)
    results = (output,)
    if gradient:
        gradients = torch.autograd.grad(output, (query, key, value), torch.ones_like(output))
        results += gradients[:1]
    if gpu:
        torch.cuda.synchronize()
    return results


if __name__ == "__main__":
    main()
