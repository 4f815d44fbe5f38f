"""A part of the sampler as compiled programs, one for each shape of its arguments."""

import contextlib
import os
import time
from collections.abc import Callable

import jax
import numpy as np
from tqdm import tqdm

from durian_jax.distributed import chips
from input_pipeline.errors import InputError

# (phase, done, total): what is going on now and how far it is, 0 of 0 where that is not counted.
# What it raises ends the work.
Progress = Callable[[str, int, int], None]


class Terminal:
    """Progress for whoever reads a terminal: a line for each phase, a bar for the steps.

    Decoding and writing take turns with the steps and are not shown.
    """

    def __init__(self, quiet: bool = False):
        self._quiet, self._bar = quiet, None

    def __call__(self, phase: str, done: int, total: int) -> None:
        if not total:
            if not self._quiet or phase.startswith("compiling"):
                tqdm.write(f"{phase} ...")
        elif phase == "denoising" and not self._quiet:
            if done == 0:
                self._bar = tqdm(total=total, desc=phase, unit="step")
            self._bar.update(done - self._bar.n)
            if done == total:
                self._bar.close()


class Stopwatch:
    """Seconds by phase, and who is told of it."""

    def __init__(self, quiet: bool = False, progress: Progress | None = None):
        """
        Args:
          progress: who is told; default the terminal.
          quiet: there, of nothing but compilation.
        """
        self.progress = progress or Terminal(quiet)
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def phase(self, name: str, silent: bool = False):
        if not silent:
            self.progress(name, 0, 0)
        start = time.perf_counter()
        yield
        spent = self.seconds.get(name, 0.0) + time.perf_counter() - start
        self.seconds[name] = round(spent, 2)


class Program:
    """A function of (params, ...) that is compiled, and says so, when it meets new shapes.

    Attributes:
      memory: bytes that a program may use on each device; None if unknown.
    """

    def __init__(
        self,
        name: str,
        function: Callable,
        mesh: jax.sharding.Mesh,
        place: jax.sharding.Sharding | None = None,
        remedy: str = "a device with more memory",
        windowed: bool = False,
    ):
        """
        Args:
          name: of the phase, for the user.
          place: where results shall lie; None leaves that to the compiler.
          remedy: what needs less memory, for errors.
          windowed: the second argument is a window of frames, [B, F, ...], which could be shorter.
        """
        self.name, self.memory = name, device_memory(mesh)
        self._mesh, self._remedy, self._windowed = mesh, remedy, windowed
        self._function = jax.jit(function, out_shardings=place)
        self._compiled = {}

    def __len__(self) -> int:
        return len(self._compiled)

    def clear(self) -> None:
        """Forgets what was compiled."""
        self._compiled.clear()

    def __call__(self, watch: Stopwatch, params: dict, *arguments):
        """The result, once it is there. InputError: a program does not fit into memory."""
        shapes = str(jax.tree.map(lambda x: (np.shape(x), str(x.dtype)), arguments))
        if shapes not in self._compiled:
            with watch.phase(f"compiling {self.name}"):
                self._compiled[shapes] = self._compile(params, arguments)
        with watch.phase(self.name, silent=True):
            return jax.block_until_ready(self._compiled[shapes](params, *arguments))

    def _compile(self, params: dict, arguments: tuple):
        try:
            program = self._function.lower(params, *arguments).compile()
        except jax.errors.JaxRuntimeError as error:
            # The compiler for TPUs refuses by itself what does not fit.
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            remedy = "a smaller window and overlap" if self._windowed else self._remedy
            raise InputError(
                f"{self.name} needs more memory than a device has: use {remedy}"
            ) from None
        sizes = program.memory_analysis()
        if self.memory is None or sizes is None:
            return program
        weights = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
        inputs = sum(leaf.nbytes for leaf in jax.tree.leaves(arguments)) / self._mesh.size
        live = inputs + sizes.output_size_in_bytes + sizes.temp_size_in_bytes
        if weights + live <= self.memory:
            return program
        remedy = self._remedy
        if self._windowed:
            frames = arguments[0].shape[1]
            fitting = int(frames * (self.memory - weights) / live)
            if 1 < fitting < frames:
                remedy = f"a window of about {fitting} and a smaller overlap, or {remedy}"
        needed, there = (f"{size / 2**30:.3g} GiB" for size in (weights + live, self.memory))
        raise InputError(
            f"{self.name} needs about {needed} on each device, {there} are there: use {remedy}"
        )


def device_memory(mesh: jax.sharding.Mesh) -> float | None:
    """Bytes of each device, where they are known. Devices of a CPU share its memory."""
    device = mesh.devices.flat[0]
    if device.platform == "cpu":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / mesh.size
    stats = device.memory_stats() or {}
    return stats.get("bytes_limit", chips.of_device(device).memory)
