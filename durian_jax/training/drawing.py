"""Initial weights on the host: what a traced function returns, without compiling it.

XLA takes a hundred times as long to compile a program that draws hundreds of tensors as to run it.
So the traced operations are run one by one, as far as the results need them.
"""

from collections.abc import Callable

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxpr_as_fun

_SMALLEST = 4096
_SIMPLE = {"mul": np.multiply, "div": np.divide, "sqrt": np.sqrt}


def run(function: Callable, *arguments):
    """`function(*arguments)` as arrays of the host, up to the last bit as compiled for the CPU.

    Args:
      function: of trees of arrays; draws tensors, and is otherwise cheap. What it computes but does
        not return is not computed, such as what a model's `init` does with its blank batch.
    """
    try:
        host = jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # the user's JAX_PLATFORMS leaves the CPU out
        return jax.jit(function)(*arguments)
    traced = jax.jit(function).trace(*arguments)
    jaxpr = traced.jaxpr.jaxpr
    made = {result: step for step in jaxpr.eqns for result in step.outvars}
    known = dict(zip(jaxpr.constvars, traced.jaxpr.consts, strict=True))
    known |= zip(jaxpr.invars, jax.tree.leaves(arguments), strict=True)

    def value(variable):
        if isinstance(variable, Literal):
            return variable.val
        if variable not in known:
            step = made[variable]
            operands = [value(operand) for operand in step.invars]
            results = _results(step, operands, jaxpr.debug_info)
            known.update(zip(step.outvars, results, strict=True))
        return known[variable]

    with jax.default_device(host):
        leaves = [np.asarray(value(result)) for result in jaxpr.outvars]
    return jax.tree.unflatten(jax.tree.structure(traced.out_info), leaves)


def _results(step, operands: list, origin) -> list:
    """What one operation of a trace makes of its operands."""
    name, shape = step.primitive.name, step.outvars[0].aval.shape
    if name == "copy":
        return operands
    if name == "broadcast_in_dim" and np.ndim(operands[0]) == 0:
        return [np.broadcast_to(np.asarray(operands[0]), shape)]  # takes no memory
    if name in _SIMPLE:
        return [_SIMPLE[name](*map(np.asarray, operands))]
    if step.params.get("name") == "_truncated_normal" and jax.config.jax_threefry_partitionable:
        # What a key gives does not depend on how much is drawn: few lengths, few programs.
        size, length = int(np.prod(shape)), _SMALLEST
        while length < size:
            length *= 4
        return [np.asarray(_truncated_normal(*operands, length))[:size].reshape(shape)]
    pairs = zip(step.invars, operands, strict=True)
    free = {variable: x for variable, x in pairs if not isinstance(variable, Literal)}
    alone = Jaxpr((), list(free), step.outvars, [step], debug_info=origin)
    return jaxpr_as_fun(ClosedJaxpr(alone, ()))(*free.values())


_truncated_normal = jax.jit(
    jax.random.truncated_normal,
    static_argnums=3,
    compiler_options={"xla_backend_optimization_level": 0},
)
