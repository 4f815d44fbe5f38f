"""What accelerators can do, by their makers' data sheets (dense rates, decimal units).

TPU: cloud.google.com/tpu/docs/v5e, v5p and v6e, except `memory`, which is what their compiler lets
a program use (libtpu 0.0.42). Their link rates count all links of a chip. GPU: NVIDIA's data
sheets of A100, H100 and H200 SXM, and NVLink in one direction.
"""

import dataclasses

from input_pipeline.errors import InputError


@dataclasses.dataclass(frozen=True)
class Chip:
    """One accelerator; None stands for a number that is not known.

    Attributes:
      name: as it stands before the colon of a topology.
      kind: what its `device_kind` in JAX begins with.
      peak: bfloat16 FLOP/s of the matrix units.
      memory: bytes a program may use.
      bandwidth: of that memory, bytes/s.
      link: bytes/s that arrive over all links together.
      axes: dimensions of the torus of links; 0 is a switch.
      width: channels to which the matrix unit pads what it multiplies.
    """

    name: str
    kind: str
    peak: float | None = None
    memory: float | None = None
    bandwidth: float | None = None
    link: float | None = None
    axes: int = 0
    width: int = 1


GIB, TERA, GIGA = 2.0**30, 1e12, 1e9

CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v5e", "TPU v5 lite", 197 * TERA, 15.75 * GIB, 819 * GIGA, 200 * GIGA, 2, 128),
        Chip("v6e", "TPU v6 lite", 918 * TERA, 31.25 * GIB, 1640 * GIGA, 400 * GIGA, 2, 256),
        Chip("v5p", "TPU v5", 459 * TERA, 95.74 * GIB, 2765 * GIGA, 600 * GIGA, 3, 128),
        Chip("a100", "NVIDIA A100-SXM4-80GB", 312 * TERA, 80 * GIB, 2039 * GIGA, 300 * GIGA, 0, 16),
        Chip("h100", "NVIDIA H100", 989 * TERA, 80 * GIB, 3350 * GIGA, 450 * GIGA, 0, 16),
        Chip("h200", "NVIDIA H200", 989 * TERA, 139 * GIB, 4800 * GIGA, 450 * GIGA, 0, 16),
        # Nobody states what a CPU can do; its plans give bytes and FLOPs, no times.
        Chip("cpu", "cpu"),
    )
}


def named(name: str) -> Chip:
    """The chip of that name.

    Raises:
      InputError: an unknown name.
    """
    if name not in CHIPS:
        raise InputError(f"chip {name!r} is unknown: choose from {', '.join(CHIPS)}")
    return CHIPS[name]


def of_device(device) -> Chip:
    """The chip of a JAX device; one without known numbers if it is not in the table."""
    for chip in CHIPS.values():
        # v5e and v6e come before v5p, whose kind is the beginning of theirs.
        if device.device_kind.startswith(chip.kind):
            return chip
    return Chip(device.device_kind, device.device_kind)
