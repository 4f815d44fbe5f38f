"""FLOPs of a function, counted in its jaxpr: exact, at once, and without running or compiling it.

XLA's own count takes the body of a loop once and, after compilation, misses what became a custom
kernel. Here the bodies of scans are multiplied by their lengths. Only matrix products and
convolutions count, one multiply-add as two (as in torch.utils.flop_counter); everything
else together is below 1 % of these networks.
"""

import math
import re
from collections import Counter
from collections.abc import Callable

import jax
from jax.extend import core

# Name scope of work that the backward pass does a second time; `Work.model` leaves it out.
RECOMPUTED = "recomputed"
# What jax.checkpoint calls the same.
_SCOPES = (RECOMPUTED, "rematted_computation")

KINDS = ("linear", "attention", "convolution")


class Work:
    """Counted FLOPs of a program.

    Attributes:
      parts: FLOPs by (kind, contracted length K, output channels N, whether it is recomputation,
        network). "attention" are the products with a batch axis, "linear" those without. K of a
        convolution is its input channels, the window being walked; of the gradient towards its
        kernel, which is a convolution whose window is the picture, all pixels of all pictures. The
        network is one of those that were asked for, or "".
    """

    def __init__(self, parts: Counter | None = None):
        self.parts = Counter(parts)

    def __add__(self, other: "Work") -> "Work":
        return Work(self.parts + other.parts)

    @property
    def executed(self) -> int:
        """All FLOPs, recomputation included."""
        return sum(self.parts.values())

    @property
    def model(self) -> int:
        """FLOPs that the mathematics asks for; what model FLOPs utilisation is a share of."""
        return sum(flops for part, flops in self.parts.items() if not part[3])

    def of_networks(self) -> dict[str, int]:
        """Model FLOPs of each network that was asked for and does something, most first."""
        found = Counter()
        for (*_, recomputed, network), flops in self.parts.items():
            found[network] += flops * (not recomputed)
        return dict(found.most_common())

    def of(self, kind: str) -> int:
        """Executed FLOPs of one of KINDS."""
        return sum(flops for part, flops in self.parts.items() if part[0] == kind)

    def padded(self, width: int) -> float:
        """Executed FLOPs of a matrix unit that pads K and N to multiples of its width."""
        return sum(
            flops * (_up(depth, width) / depth) * (_up(channels, width) / channels)
            for (_, depth, channels, *_), flops in self.parts.items()
        )

    def padding_efficiency(self, width: int, kind: str | None = None) -> float:
        """Largest share of peak that the shapes allow, in (0, 1]: executed over padded FLOPs."""
        parts = {p: n for p, n in self.parts.items() if kind in (None, p[0])}
        work = Work(parts)
        return work.executed / work.padded(width) if parts else 1.0


def count(function: Callable, *arguments, networks: tuple[str, ...] = ()) -> Work:
    """Counts what a call of the function computes.

    Args:
      function: anything that jax can trace; its gradient counts the backward pass, and only
        towards what is differentiated.
      *arguments: arrays or jax.ShapeDtypeStructs. Global shapes give global FLOPs.
      networks: names of modules to tell apart; of one inside another the outer counts.

    Raises:
      ValueError: a loop whose length is not known while tracing.
    """
    return count_jaxpr(jax.make_jaxpr(function)(*arguments).jaxpr, networks)


def count_jaxpr(jaxpr, networks: tuple[str, ...] = ()) -> Work:
    """Counts what a traced function computes; see `count`."""
    # As flax names them: a module, or a method of it.
    named = re.compile(rf"(?:^|[/(])({'|'.join(map(re.escape, networks))})(?=[./)]|$)")
    work = Counter()
    for (*part, scope), flops in _count(jaxpr, [True] * len(jaxpr.outvars)).items():
        found = named.search(scope) if networks else None
        recomputed = any(name in scope for name in _SCOPES)
        work[*part, recomputed, found[1] if found else ""] += flops
    return Work(work)


def branches(equation) -> list:
    """The jaxprs of a `cond`; of a choice by platform only that for any platform.

    The others do the same work, by kernels of which the jaxpr shows one block.
    """
    params = equation.params
    platforms = params.get("branches_platforms") or (None,) * len(params["branches"])
    return [b.jaxpr for b, only in zip(params["branches"], platforms, strict=True) if only is None]


def _count(jaxpr, wanted: list[bool], scope: str = "") -> Counter:
    """FLOPs of the equations that the wanted outputs depend on, by (kind, K, N, scope)."""
    live = {v for v, want in zip(jaxpr.outvars, wanted) if want and isinstance(v, core.Var)}
    total = Counter()
    for equation in reversed(jaxpr.eqns):
        if not equation.effects and not any(v in live for v in equation.outvars):
            continue
        live.update(v for v in equation.invars if isinstance(v, core.Var))
        total.update(_count_equation(equation, [v in live for v in equation.outvars], scope))
    return total


def _count_equation(equation, wanted: list[bool], scope: str) -> Counter:
    scope = f"{scope}/{equation.source_info.name_stack}"
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        return _product(equation, scope)
    if name == "conv_general_dilated":
        return _convolution(equation, scope)
    if name == "while":
        body = _count(params["body_jaxpr"].jaxpr, [True] * len(equation.outvars), scope)
        if body:
            raise ValueError("a while loop of unknown length computes products: use lax.scan")
        return Counter()
    if name == "cond":
        counts = [_count(branch, wanted, scope) for branch in branches(equation)]
        return max(counts, key=lambda parts: sum(parts.values()))
    total = Counter()
    for inner in _jaxprs(params):
        same = name != "scan" and len(inner.outvars) == len(wanted)
        outputs = wanted if same else [True] * len(inner.outvars)
        total.update(_count(inner, outputs, scope))
    times = params["length"] if name == "scan" else 1
    return Counter({part: times * flops for part, flops in total.items()})


def _jaxprs(params: dict):
    """The jaxprs among the parameters of an equation: of jit, checkpoint, custom_vjp, scan."""
    for value in params.values():
        if isinstance(value, core.ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, core.Jaxpr):
            yield value


def _product(equation, scope: str) -> Counter:
    (contract, _), (batch, _) = equation.params["dimension_numbers"]
    left, output = (v.aval.shape for v in (equation.invars[0], equation.outvars[0]))
    depth = math.prod(left[d] for d in contract)
    channels = math.prod(output) // (math.prod(left) // depth)
    part = "attention" if batch else "linear", depth, channels, scope
    return Counter({part: 2 * depth * math.prod(output)})


def _convolution(equation, scope: str) -> Counter:
    params = equation.params
    numbers = params["dimension_numbers"]
    kernel, output = equation.invars[1].aval.shape, equation.outvars[0].aval.shape
    channels, depth, *space = (kernel[d] for d in numbers.rhs_spec)
    window, places = math.prod(space), math.prod(output[d] for d in numbers.out_spec[2:])
    # Of a dilated input (the gradient of a strided convolution) all but the first are zeros.
    flops = 2 * depth * window * math.prod(output) // math.prod(params["lhs_dilation"])
    if window > places:
        depth *= window
    part = "convolution", depth, channels // params["feature_group_count"], scope
    return Counter({part: flops})


def _up(n: int, width: int) -> int:
    return -(-n // width) * width
