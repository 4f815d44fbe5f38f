"""Compiler flags per chip, each with its reason and where it comes from.

    eval "$(python -m launch.xla_flags h200)"     # exports XLA_FLAGS or LIBTPU_INIT_ARGS
    python -m launch.xla_flags                    # lists chips, flags and reasons

None has been timed on this model yet: they are what others found for the same kind of step, FSDP
with overlapped collectives. All are known to jaxlib 0.10.2 (XLA_FLAGS) or libtpu 0.0.42
(LIBTPU_INIT_ARGS); both end the process when they meet a flag that they do not know.
"""

import dataclasses
import sys

_JAX_TOOLBOX = "https://docs.nvidia.com/jax-toolbox/performance-profiling/gpu-performance"
_MAXTEXT = "https://github.com/AI-Hypercomputer/maxtext/blob/main/benchmarks/xla_flags_library.py"
_MAXDIFFUSION = "https://github.com/AI-Hypercomputer/maxdiffusion (README, Wan training on v5p)"
_HELP = "XLA_FLAGS=--help"


@dataclasses.dataclass(frozen=True)
class Flag:
    """A flag without its dashes, its value, why it is set, and who found it."""

    name: str
    value: str
    reason: str
    source: str

    def __str__(self) -> str:
        return f"--{self.name}={self.value}"


def _combine(collective: str) -> Flag:
    return Flag(
        f"xla_gpu_{collective}_combine_threshold_bytes",
        str(128 * 2**20),
        "most of our tensors are small; together they fill the links between machines",
        _JAX_TOOLBOX,
    )


_GPU = (
    Flag(
        "xla_gpu_enable_latency_hiding_scheduler",
        "true",
        "gathers the parameters of the next layers while this one computes",
        _JAX_TOOLBOX,
    ),
    _combine("all_gather"),
    _combine("reduce_scatter"),
    _combine("all_reduce"),
)

_TPU = (
    Flag(
        "xla_tpu_enable_async_collective_fusion",
        "true",
        "runs collectives beside matrix products",
        _MAXTEXT,
    ),
    Flag(
        "xla_tpu_enable_async_collective_fusion_fuse_all_gather",
        "true",
        "the same for the gathers of FSDP, most of our traffic",
        _MAXTEXT,
    ),
    Flag(
        "xla_tpu_enable_async_collective_fusion_multiple_steps",
        "true",
        "a gather may span several products: ours are short",
        _MAXTEXT,
    ),
    Flag(
        "xla_tpu_overlap_compute_collective_tc",
        "true",
        "lets the core that computes drive the transfers as well",
        _MAXTEXT,
    ),
    Flag("xla_enable_async_all_gather", "true", "needed by the four above", _MAXTEXT),
    Flag(
        "xla_tpu_enable_data_parallel_all_reduce_opt",
        "true",
        "several slices: sums gradients over the network between them during the backward pass",
        _MAXTEXT,
    ),
    Flag(
        "xla_tpu_data_parallel_opt_different_sized_ops",
        "true",
        "the same for gradients of unequal size, as ours are",
        _MAXTEXT,
    ),
)


def _vmem(kib: int, source: str) -> Flag:
    return Flag(
        "xla_tpu_scoped_vmem_limit_kib",
        str(kib),
        "larger fusions in the fast memory beside the core",
        source,
    )


_MEGACORE = Flag(
    "xla_tpu_megacore_fusion_allow_ags",
    "false",
    "v5p pairs two cores; gathers stay out of the fusions split over both, so that they overlap",
    _MAXDIFFUSION,
)
_PATIENCE = Flag(
    "xla_cpu_collective_call_terminate_timeout_seconds",
    "600",
    "devices that share few cores wait long for each other; the default ends the process (40 s)",
    _HELP,
)

CHIPS: dict[str, tuple[Flag, ...]] = {
    "v5e": _TPU,
    "v5p": (*_TPU, _MEGACORE, _vmem(65536, _MAXDIFFUSION)),
    "v6e": (*_TPU, _vmem(98304, _MAXTEXT)),
    "h100": _GPU,
    "h200": _GPU,
    "cpu": (_PATIENCE,),
}


def variable(chip: str) -> str:
    """Name of the environment variable that takes the flags of a chip."""
    return "LIBTPU_INIT_ARGS" if chip.startswith("v") else "XLA_FLAGS"


def export_line(chip: str) -> str:
    """A line of shell that adds the flags of a chip to those of the environment."""
    name = variable(chip)
    return f'export {name}="${{{name}:-}} {" ".join(map(str, CHIPS[chip]))}"'


def main(arguments: list[str]) -> int:
    """Prints the line for the chip named, or all reasons; returns the exit code."""
    if not arguments:
        for chip, flags in CHIPS.items():
            print(f"{chip} ({variable(chip)})")
            for flag in flags:
                print(f"  {flag}\n      {flag.reason}\n      {flag.source}")
        return 0
    if len(arguments) > 1 or arguments[0] not in CHIPS:
        print(f"xla_flags: {' '.join(arguments)}: choose from {', '.join(CHIPS)}", file=sys.stderr)
        return 2
    print(export_line(arguments[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
