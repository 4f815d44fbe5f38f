"""What a step will need of each device: memory, collective traffic, time; nothing is run.

Arithmetic first (`Step.estimate`), then the real compiler (`Step.compile`), for this machine or
for a TPU slice that is not available. The model of time is a roofline: products padded to the width
of the matrix unit at peak, memory traffic at peak, collective traffic at the rate of the links; the
longest of the three is the predicted time (all overlap), their sum the time if none does.
"""

import dataclasses
import functools
import math
import re
from collections import defaultdict

import jax
import jax.numpy as jnp

from durian_jax.distributed import sharding
from durian_jax.planning import estimate, hlo
from durian_jax.planning.topology import Topology
from durian_jax.sampling import sampler
from durian_jax.training import flops
from durian_jax.training.train_step import Training
from durian_jax.weights.trees import merge
from input_pipeline.errors import InputError

GIB = 2**30
# The TPU compiler spends most of its time on speed that a plan does not measure. Without that a
# compile is several times shorter, and its memory a little larger.
TPU_OPTIONS = {"exec_time_optimization_effort": -1.0}


@dataclasses.dataclass(frozen=True)
class Plan:
    """The needs of a step. Bytes are per device, FLOPs of all devices together.

    Attributes:
      step: "train" or "sample".
      source: "arithmetic"; "compiled", and what the compiled text does not tell.
      topology, devices, mesh, clips, frames: what for.
      memory: bytes by use; "total" is the peak.
      limit: bytes that a program may use; None if unknown.
      model_flops, executed_flops: without and with recomputation.
      network_flops: the first, by network of the system, most first; "" is what is in none.
      padding_efficiency: share of peak that the shapes allow.
      received: bytes that arrive, by kind of collective.
      seconds: "compute", "memory", "communication"; those that are known.
      suggestions: what to turn if it does not fit, best first.
    """

    step: str
    source: str
    topology: str
    devices: int
    mesh: dict
    clips: int
    frames: int
    memory: dict
    limit: float | None
    peak: float | None
    model_flops: float
    executed_flops: float
    network_flops: dict
    padding_efficiency: float
    received: dict
    seconds: dict
    suggestions: list

    @property
    def fits(self) -> bool | None:
        """Whether the peak keeps to the limit; None where the limit is unknown."""
        return None if self.limit is None else self.memory["total"] <= self.limit

    @property
    def time(self) -> float | None:
        """Predicted seconds a step, all overlapping."""
        return max(self.seconds.values()) if "compute" in self.seconds else None

    @property
    def slowest_time(self) -> float | None:
        """Seconds a step if nothing overlaps."""
        return sum(self.seconds.values()) if "compute" in self.seconds else None

    @property
    def mfu(self) -> float | None:
        """Model FLOPs utilisation at the predicted time."""
        if self.time is None:
            return None
        return self.model_flops / self.time / (self.peak * self.devices)

    def to_json(self) -> dict:
        """All fields and what follows from them."""
        derived = {"fits": self.fits, "time": self.time, "mfu": self.mfu}
        return {**dataclasses.asdict(self), **derived, "slowest_time": self.slowest_time}

    @classmethod
    def from_json(cls, values: dict) -> "Plan":
        """The inverse of `to_json`."""
        return cls(**{field.name: values[field.name] for field in dataclasses.fields(cls)})

    def table(self) -> str:
        """Everything, as text."""
        mesh = " x ".join(f"{name} {size}" for name, size in self.mesh.items())
        lines = [
            f"{self.step} step on {self.devices} {self.topology} ({mesh}), {self.clips} clips of "
            f"{self.frames} frames: {self.source}",
            "memory per device",
        ]
        lines += [f"  {name:<24}{_gib(size)}" for name, size in self.memory.items()]
        lines += [f"  {'limit':<24}{_gib(self.limit)}", f"  {self._verdict()}"]
        lines += [f"  suggestion: {suggestion}" for suggestion in self.suggestions]
        lines += [
            "work of all devices",
            f"  {'model FLOPs':<24}{self.model_flops / 1e12:12.4g} TF",
            *(
                f"    {name or 'other':<22}{count / 1e12:12.4g} TF"
                for name, count in self.network_flops.items()
            ),
            f"  {'with recomputation':<24}{self.executed_flops / 1e12:12.4g} TF",
            f"  {'padding efficiency':<24}{self.padding_efficiency:12.0%} of peak",
            "bytes received per device",
        ]
        lines += [f"  {kind:<24}{_gib(size)}" for kind, size in self.received.items()]
        if not self.received:
            lines.append("  none")
        lines.append("time per step")
        for name, seconds in self.seconds.items():
            lines.append(f"  {name:<24}{seconds * 1e3:12.4g} ms")
        if self.time is None:
            lines.append("  unknown: no peak is stated for this device")
        else:
            lines.append(f"  {'predicted':<24}{self.time * 1e3:12.4g} ms, MFU {self.mfu:.0%}")
            lines.append(f"  {'if nothing overlaps':<24}{self.slowest_time * 1e3:12.4g} ms")
        return "\n".join(lines)

    def _verdict(self) -> str:
        if self.fits is None:
            return "memory of this device unknown"
        return "fits" if self.fits else "does not fit"


class Step:
    """A step of a config for a topology: traced when first asked for anything, not yet compiled.

    Attributes:
      config, topology, mesh: what for.
      layout: of the state, shapes and shardings.
      batch: of the inputs, likewise.
    """

    def __init__(self, config, topology: Topology, *, sample: bool = False, devices=None):
        """`devices` are as of `Topology.devices`, None for arithmetic alone.

        Raises:
          InputError: values of the config out of range.
        """
        self.config, self.topology, self.sample, self.devices = config, topology, sample, devices
        training = Training.build(config, topology.count if devices is None else devices)
        if not sample:
            training.check_batch_size()
        self.mesh, self.layout = training.mesh, training.layout
        self._networks = training.system.networks
        self.clips, self.frames = config.batch_size, config.data.frames
        if sample:
            self.clips = -(-config.sample.clips // self.mesh.size) * self.mesh.size
        self.batch = training.batch_layout(self.clips)
        if sample:
            split = sharding.batch_sharding(self.mesh)
            seeds = jax.ShapeDtypeStruct((self.clips,), jnp.uint32, sharding=split)
            arguments = (merge(self.layout.frozen, self.layout.ema), self.batch, seeds)
            function = sampler.from_config(training.system, training.process, config.sample)
            step = jax.jit(function, out_shardings=split)
        else:
            arguments = (self.layout, self.batch)
            # A run takes it as two programs, see `TrainStep`; the first has the peak of both.
            function = training.step_function()
            step = jax.jit(
                function,
                out_shardings=(training.placement, sharding.replicated(self.mesh)),
                donate_argnums=0,
            )
        self.arguments, self._function, self._step = arguments, function, step

    @functools.cached_property
    def _traced(self):
        return None if self.devices is None else self._step.trace(*self.arguments)

    @functools.cached_property
    def jaxpr(self):
        """The traced step."""
        if self._traced is None:
            return jax.make_jaxpr(self._function)(*self.arguments).jaxpr
        return self._traced.jaxpr.jaxpr

    @functools.cached_property
    def work(self) -> flops.Work:
        """What it computes, all devices together."""
        return flops.count_jaxpr(self.jaxpr, self._networks)

    def estimate(self) -> Plan:
        """The plan by arithmetic."""
        memory = self._state()
        inputs = [given is self.batch for given in self.arguments for _ in jax.tree.leaves(given)]
        shapes = frozenset(
            tuple(sorted(leaf.shape)) for leaf in jax.tree.leaves(self.layout.trained)
        )
        live = estimate.activations(self.jaxpr, inputs, shapes) / self.mesh.size
        if not self.sample:
            memory["gradients"] = sharding.local_bytes(self.layout.trained)
        memory["activations"] = max(live - memory["batch"], 0.0)
        memory["total"] = sum(memory.values())
        received = estimate.collective_traffic(
            self.layout,
            self.mesh,
            self.config.accumulate,
            jnp.dtype(self.config.model.get("dtype", "float32")).itemsize,
            train=not self.sample,
        )
        link = self.topology.link(tuple(range(self.mesh.size)))
        seconds = self._seconds()
        if link:
            seconds["communication"] = sum(received.values()) / link
        return self._plan("arithmetic", memory, received, seconds)

    def lower(self):
        """The step, ready to be compiled by hand."""
        return self._traced.lower()

    def compile(self) -> Plan:
        """The plan by the compiler; of a program that overflows only its total is known.

        Raises:
          InputError: there is no compiler for the topology here.
        """
        if self._traced is None:
            raise InputError(
                f"topology {self.topology.name} has no compiler here: stop at the arithmetic (fast)"
            )
        options = None if self.topology.here else TPU_OPTIONS
        try:
            compiled = self.lower().compile(compiler_options=options)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            return self._overflow(str(error))
        return self.of(compiled)

    def of(self, compiled) -> Plan:
        """The plan of the step's compiled program, as `jax.jit(...).lower(...).compile()` gives."""
        stats = compiled.memory_analysis()
        memory = self._state()
        # Donated inputs are outputs, too; the rest is what the program itself allocates.
        memory["results"] = stats.output_size_in_bytes - stats.alias_size_in_bytes
        memory["temporaries"] = stats.temp_size_in_bytes
        memory["total"] = (
            stats.argument_size_in_bytes + memory["results"] + stats.temp_size_in_bytes
        )
        received, waiting, flat = defaultdict(float), 0.0, list(self.mesh.devices.flat)
        seconds = self._seconds()
        program = hlo.Program(compiled.as_text())
        for one in program.collectives(self.mesh.size):
            received[one.kind] += one.received
            link = self.topology.link(one.group, flat)
            waiting += one.received / link if link else 0.0
        if seconds:
            seconds["memory"] = program.traffic() / self.topology.chip.bandwidth
            seconds["communication"] = waiting
        source = "compiled"
        if program.unknown_loops:
            source += f", {program.unknown_loops} loops of unknown length counted as one turn each"
        return self._plan(source, memory, dict(received), seconds)

    def _state(self) -> dict:
        """Bytes per device of what goes in."""
        size = sharding.local_bytes
        if self.sample:
            return {"parameters": size(self.arguments[0]), "batch": size(self.batch)}
        layout = self.layout
        return {
            "parameters": size((layout.trained, layout.frozen)),
            "optimizer": size((layout.opt_state, layout.step, layout.skipped)),
            "average": size(layout.ema),
            "batch": size(self.batch),
        }

    def _seconds(self) -> dict:
        chip = self.topology.chip
        if chip.peak is None:
            return {}
        return {"compute": self.work.padded(chip.width) / (chip.peak * self.mesh.size)}

    def _overflow(self, message: str) -> Plan:
        sizes = [float(n) * 2 ** (10 * "KMGT".index(u) + 10) for n, u in _SIZE.findall(message)]
        memory = self._state() | {"total": max(sizes, default=math.inf)}
        return self._plan("compiled", memory, {}, self._seconds())

    def _plan(self, source: str, memory: dict, received: dict, seconds: dict) -> Plan:
        chip = self.topology.chip
        limit = chip.memory
        fits = limit is None or memory["total"] <= limit
        return Plan(
            step="sample" if self.sample else "train", source=source,
            topology=self.topology.name, devices=self.mesh.size, mesh=dict(self.mesh.shape),
            clips=self.clips, frames=self.frames, memory=memory, limit=limit, peak=chip.peak,
            model_flops=float(self.work.model), executed_flops=float(self.work.executed),
            network_flops=self.work.of_networks(),
            padding_efficiency=self.work.padding_efficiency(chip.width),
            received=received, seconds=seconds,
            suggestions=[] if fits else self._suggestions(memory, limit),
        )  # fmt: skip

    def _suggestions(self, memory: dict, limit: float) -> list[str]:
        config, suggestions = self.config, []
        state = sum(memory.get(n, 0.0) for n in ("parameters", "optimizer", "average", "gradients"))
        count, size = self.mesh.size, sharding.local_bytes

        def saved(fsdp: int) -> float:
            mesh = sharding.make_mesh(fsdp, count)
            return size(self.layout) - size(sharding.shard_layout(mesh, self.layout))

        # More ways are not always better: a dimension that they do not divide stays whole.
        fsdp = max((ways for ways in range(1, count + 1) if count % ways == 0), key=saved)
        if saved(fsdp) > 0:
            suggestions.append(
                f"mesh.fsdp={fsdp} splits the state: {saved(fsdp) / GIB:.3g} GiB less"
            )
        if not self.sample and "remat" in config.model:
            levels = len(config.model.get("channels", (0,)))
            policies = set(config.model.remat or ("none",))
            if "none" in policies:
                suggestions.append(
                    f"model.remat={('attention',) * levels} keeps little inside blocks"
                )
            elif policies != {"full"}:
                suggestions.append(f"model.remat={('full',) * levels} keeps nothing inside blocks")
        own = self.clips // count
        if not self.sample and own > config.accumulate:
            suggestions.append(f"accumulate={own}: one clip of each device at a time")
        elif own > 1:
            name = "sample.clips" if self.sample else "batch_size"
            suggestions.append(f"{name}={count}: one clip per device")
        if state > limit:
            suggestions.append(
                f"the state alone, {state / GIB:.3g} GiB, overflows: use more devices"
            )
        elif not suggestions and self.frames > 1:
            suggestions.append(f"data.frames={self.frames // 2}: shorter clips")
        return suggestions or ["use more devices, or a smaller model"]


_SIZE = re.compile(r"\(?(\d+(?:\.\d+)?)([KMGT])\b")


def _gib(size: float | None) -> str:
    return f"{'unknown':>12}" if size is None else f"{size / GIB:12.4g} GiB"
