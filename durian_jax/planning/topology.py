"""The machine that a plan is for: this one, a TPU slice that is not here, or chips by number."""

import dataclasses
import math
import os
import re

import jax

from durian_jax.distributed import chips
from durian_jax.distributed.chips import Chip
from input_pipeline.errors import InputError

# There is no TPU to ask for its kind and its hosts, and none to hold against other processes. The
# kind does not matter, the topology says it; without one libtpu warns.
_NO_TPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
# Rings close, and carry twice as much, where a slice spans a whole pod or whole cubes.
_WHOLE = {2: 16, 3: 4}


@dataclasses.dataclass(frozen=True)
class Topology:
    """Accelerators and how they are wired.

    Attributes:
      name: as given, such as "v5e:4x4"; that of the chip for this machine.
      chip: what each of them is.
      count: how many.
      shape: of the torus; () where there is none.
      here: whether they are the devices of this process.
    """

    name: str
    chip: Chip
    count: int
    shape: tuple[int, ...] = ()
    here: bool = False

    @classmethod
    def parse(cls, text: str | None) -> "Topology":
        """From "v5e:4x4", "h200:8", or None for this machine.

        Raises:
          InputError: another form, an unknown chip, or a shape that its links do not form.
        """
        if text is None:
            devices = jax.devices()
            chip = chips.of_device(devices[0])
            return cls(chip.name, chip, len(devices), here=True)
        found = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", text)
        if not found:
            raise InputError(
                f"topology {text!r}: write CHIP:SHAPE, such as v5e:4x4, v5p:4x4x4 or h200:8; "
                f"chips are {', '.join(chips.CHIPS)}"
            )
        chip = chips.named(found[1])
        shape = tuple(int(n) for n in found[2].split("x"))
        if len(shape) != max(chip.axes, 1) or min(shape) < 1:
            like = "x".join(["4"] * chip.axes) or "8"
            raise InputError(
                f"topology {text!r}: {chip.name} takes {max(chip.axes, 1)} numbers above 0, "
                f"such as {chip.name}:{like}"
            )
        return cls(text, chip, math.prod(shape), shape if chip.axes else ())

    def devices(self):
        """Devices to compile for; None where there is no compiler for the chip here.

        Raises:
          InputError: libtpu is missing, or knows no such slice.
        """
        if self.here:
            return jax.devices()
        if not self.chip.axes:
            return None
        try:
            import libtpu  # noqa: F401
        except ImportError as error:
            raise InputError(
                f"topology {self.name} needs the TPU compiler: pip install 'durian_jax[tpu]', "
                "or stop at the arithmetic (fast)"
            ) from error
        from jax.experimental import topologies

        for name, value in _NO_TPU.items():
            os.environ.setdefault(name, value)
        try:
            found = topologies.get_topology_desc(platform="tpu", topology_name=self.name)
        except jax.errors.JaxRuntimeError as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"topology {self.name}: the TPU compiler refuses it ({reason}): try v5e:4x4, "
                "v5e:16x16, v5p:4x4x4 or v6e:16x16"
            ) from error
        return found.devices

    def link(self, group: tuple[int, ...], devices=None) -> float | None:
        """Bytes/s that arrive at each chip of a group in which all send to all.

        A group gets the links of the torus axes along which it lies, and half of those whose ring
        is not closed.

        Args:
          group: places in `devices`.
          devices: in the order of the mesh; with None the group is taken to lie along all axes.
        """
        if self.chip.link is None or not self.shape:
            return self.chip.link
        axes = range(len(self.shape))
        if devices is not None:
            coords = [devices[i].coords for i in group]
            axes = [axis for axis in axes if len({c[axis] for c in coords}) > 1]
        whole = _WHOLE[len(self.shape)]
        rings = sum(1.0 if self.shape[axis] % whole == 0 else 0.5 for axis in axes)
        return self.chip.link * max(rings, 0.5) / len(self.shape)
