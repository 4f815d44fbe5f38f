"""What a step needs, by arithmetic on its jaxpr and its layout: no compiler, no device.

Work and state are exact. Activations and collective traffic are what a good compiler would
do; the compiled program says what this one does.
"""

import jax
import numpy as np
from jax.extend import core

from durian_jax.training.flops import branches
from durian_jax.training.state import TrainState

# XLA computes these where they are used.
_FUSED = {
    "abs", "add", "and", "broadcast_in_dim", "concatenate", "convert_element_type", "copy",
    "cos", "div", "eq", "erf", "exp", "expand_dims", "ge", "gt", "integer_pow", "iota", "jit",
    "le", "log", "logistic", "lt", "max", "min", "mul", "name", "ne", "neg", "or", "pad",
    "pjit", "reshape", "rev", "rsqrt", "select_n", "sharding_constraint", "sign", "sin",
    "slice", "split", "sqrt", "square", "squeeze", "stop_gradient", "sub", "tanh", "transpose",
}  # fmt: skip


def activations(jaxpr, inputs: list[bool], parameters: frozenset = frozenset()) -> float:
    """Most bytes that live at a time of what depends on the batch, over all devices.

    Args:
      jaxpr: of the step.
      inputs: which of its arguments are the batch.
      parameters: shapes of the trained parameters, each sorted. What has one of them, perhaps
        transposed, is a gradient or what the optimizer makes of it, and does not count.
    """
    uses, last = {}, {}
    for i, equation in enumerate(jaxpr.eqns):
        for v in equation.invars:
            if isinstance(v, core.Var):
                uses[v], last[v] = uses.get(v, 0) + 1, i
    for v in jaxpr.outvars:
        if isinstance(v, core.Var):
            last[v] = len(jaxpr.eqns)
    tainted = {v for v, is_batch in zip(jaxpr.invars, inputs) if is_batch}
    sizes, ends, alive, most = {}, {}, 0.0, 0.0
    for v, end in last.items():
        ends.setdefault(end, []).append(v)
    for i, equation in enumerate(jaxpr.eqns):
        touched = [isinstance(v, core.Var) and v in tainted for v in equation.invars]
        inside = 0.0
        if any(touched):
            tainted.update(equation.outvars)
            fused = equation.primitive.name in _FUSED
            for v in equation.outvars:
                if tuple(sorted(v.aval.shape)) in parameters:
                    continue
                if v in last and not (fused and uses.get(v, 0) <= 1):
                    sizes[v] = float(np.prod(v.aval.shape) * _width(v.aval))
                    alive += sizes[v]
            cond = equation.primitive.name == "cond"
            for inner in branches(equation) if cond else core.jaxprs_in_params(equation.params):
                flags = _fit(touched, len(inner.invars))
                inside = max(inside, activations(inner, flags, parameters))
        most = max(most, alive + inside)
        for v in ends.get(i, ()):
            alive -= sizes.get(v, 0.0)
    return most


def collective_traffic(
    layout: TrainState, mesh, accumulate: int, compute_bytes: int, train: bool = True
) -> dict[str, float]:
    """Bytes that each device receives in a step, by kind of collective.

    Each parameter that is split is gathered in the compute dtype for every forward pass, a trained
    one (or one that a gradient passes through) for the backward pass too; gradients are scattered
    over "fsdp" in the compute dtype, then summed over "data". Sampling gathers every parameter
    once: what is gathered outside its loop serves all its steps.
    """
    data, fsdp = mesh.shape["data"], mesh.shape["fsdp"]
    found = {"all-gather": 0.0, "reduce-scatter": 0.0, "all-reduce": 0.0}
    for tree, trained in ((layout.frozen, False), (layout.trained, True)):
        for path, leaf in jax.tree.leaves_with_path(tree):
            split = leaf.sharding.shard_shape(leaf.shape) != leaf.shape
            size = leaf.size * compute_bytes
            if split:
                passes = 2 if train and (trained or path[0].key in _PASSED) else 1
                found["all-gather"] += accumulate * passes * size * (fsdp - 1) / fsdp
            if not train:
                continue
            if trained and split:
                found["reduce-scatter"] += accumulate * size * (fsdp - 1) / fsdp
                found["all-reduce"] += accumulate * 2 * size / fsdp * (data - 1) / data
            elif trained:
                ways = data * fsdp
                found["all-reduce"] += accumulate * 2 * size * (ways - 1) / ways
    return {kind: size for kind, size in found.items() if size}


# Networks that a gradient passes on its way to trained parameters, even where they are frozen.
_PASSED = {"denoiser"}


def _width(leaf) -> int:
    return getattr(leaf.dtype, "itemsize", 4)


def _fit(touched: list[bool], count: int) -> list[bool]:
    """Flags for the arguments of an inner jaxpr; all, where they do not match the equation's."""
    return touched if len(touched) == count else [True] * count
