"""What a compiled program moves, read from its HLO text: between devices, and through memory.

XLA's own cost analysis takes the body of a loop once and knows no collectives; here every
instruction counts as often as the loops around it run.
"""

import dataclasses
import math
import re
from collections import defaultdict
from functools import cached_property

import numpy as np

COLLECTIVES = (
    "all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute",
)  # fmt: skip
# They only name or wrap what other instructions write.
_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "call",
    "conditional", "after-all", "partition-id", "replica-id", "optimization-barrier", "async-start",
    "async-update", "async-done", "iota", "domain",
}  # fmt: skip
_SLICES = {"dynamic-slice", "slice", "gather"}
_BITS = {"pred": 8, "s4": 4, "u4": 4, "bf16": 16, "c64": 64, "c128": 128, "token": 0}
_ARRAY = re.compile(r"\b(pred|token|bf16|[suf]\d+\w*|c64|c128)\[([\d,]*)\](\{[^}]*\})?")
_CALLS = re.compile(
    r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)"
    r"|branch_computations=\{([^}]*)\}"
)
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One kind of exchange inside groups of devices, summed over a program.

    Attributes:
      kind: one of COLLECTIVES.
      group: partition numbers of one of the groups.
      received: bytes that arrive at each device, with the algorithm that needs least.
      count: how often it runs.
    """

    kind: str
    group: tuple[int, ...]
    received: float
    count: int


@dataclasses.dataclass
class _Instruction:
    name: str
    opcode: str
    kind: str
    operands: list[str]
    attributes: str
    root: bool

    @cached_property
    def size(self) -> float:
        """Bytes of the result."""
        return _bytes(self.kind)

    @cached_property
    def stored(self) -> float:
        """Those of them that lie in main memory, not in a TPU's scratch memory."""
        return _bytes(self.kind, everywhere=False)


class Program:
    """A compiled program.

    Attributes:
      computations: their instructions by name, in text order.
      runs: how often each computation runs, those inside fusions not included.
      unknown_loops: loops whose length is not in the text; their bodies count once.
    """

    def __init__(self, text: str):
        self.computations: dict[str, dict[str, _Instruction]] = {}
        entry = current = None
        for line in text.splitlines():
            if header := _HEADER.match(line):
                current = self.computations.setdefault(header[2], {})
                entry = header[2] if header[1] else entry
            elif (found := _INSTRUCTION.match(line)) and current is not None:
                instruction = _parse(*found.groups())
                current[instruction.name] = instruction
        if entry is None:
            raise ValueError("no entry computation: not the text of an HLO module")
        self.runs, self.unknown_loops = defaultdict(int), 0
        self._visit(entry, 1)

    def _visit(self, name: str, times: int) -> None:
        self.runs[name] += times
        for instruction in self.computations[name].values():
            called = _called(instruction)
            if instruction.opcode == "while":
                trips = self._trips(instruction)
                self.unknown_loops += trips is None
                inner = times * (1 if trips is None else trips)
            else:
                inner = times
            for other in called:
                if other in self.computations:
                    self._visit(other, inner)

    def _trips(self, loop: _Instruction) -> int | None:
        """How often a loop runs, counting from 0 as those of lax.scan do; None if not in the text.

        The TPU compiler states only the condition, `i < n`.
        """
        if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes):
            return int(known[1])
        name = re.search(r"condition=%?([\w.\-]+)", loop.attributes)
        condition = self.computations.get(name[1], {}) if name else {}
        for one in condition.values():
            if one.root and one.opcode == "compare" and "direction=LT" in one.attributes:
                bound = condition.get(one.operands[-1])
                if bound is not None and bound.opcode == "constant":
                    return int(bound.attributes)
        return None

    def collectives(self, devices: int) -> list[Collective]:
        """The collective traffic of the program, by kind and group, largest first."""
        times = defaultdict(int)
        sizes = {}
        for name, runs in self.runs.items():
            body = self.computations[name]
            for instruction in body.values():
                kind = instruction.opcode.removesuffix("-start")
                if kind not in COLLECTIVES:
                    continue
                group = _group(instruction.attributes, devices)
                size = sum(body[o].size for o in instruction.operands)
                # The TPU compiler spreads one exchange over the fusions that it runs beside: a
                # chain of instructions with one channel.
                channel = re.search(r"channel_id=(\d+)", instruction.attributes)
                chained = channel and "chain_id=" in instruction.attributes
                key = (kind, channel[1] if chained else (name, instruction.name))
                times[key] = max(times[key], runs)
                sizes[key] = (kind, group, size)
        received, counts = defaultdict(float), defaultdict(int)
        for key, (kind, group, size) in sizes.items():
            n = len(group)
            share = {
                "all-gather": n - 1,
                "all-reduce": 2 * (n - 1) / n,
                "collective-permute": 1,
            }.get(kind, (n - 1) / n)
            received[kind, group] += times[key] * size * share
            counts[kind, group] += times[key]
        found = [Collective(*key, n, counts[key]) for key, n in received.items() if n]
        return sorted(found, key=lambda c: -c.received)

    def traffic(self) -> float:
        """Bytes read from and written to main memory, if every instruction goes there and back.

        Operands that are only sliced count as their slices, updates in place as what they write,
        buffers that the TPU compiler keeps in its scratch memory, S(1), as nothing.
        """
        fused = {
            other
            for body in self.computations.values()
            for instruction in body.values()
            if instruction.opcode not in ("while", "call", "conditional", "async-start")
            for other in _called(instruction)
        }
        total = 0.0
        for name, times in self.runs.items():
            if name in fused:
                continue
            body = self.computations[name]
            for instruction in body.values():
                if instruction.opcode not in _FREE and not instruction.opcode.endswith("-done"):
                    total += times * self._moved(instruction, body)
        return total

    def _moved(self, instruction: _Instruction, body: dict) -> float:
        reads = [body[o].stored for o in instruction.operands if o in body]
        if instruction.opcode in _SLICES:
            return 2 * instruction.stored
        if instruction.opcode == "dynamic-update-slice":
            return 2 * reads[1]
        if instruction.opcode != "fusion":
            return sum(reads) + instruction.stored
        inner = self.computations.get((_called(instruction) or [""])[0], {})
        users = defaultdict(list)
        for one in inner.values():
            for operand in one.operands:
                users[operand].append(one)
        written = instruction.stored
        parameters = [one for one in inner.values() if one.opcode == "parameter"]
        for parameter in parameters:
            position = int(parameter.attributes)
            seen = users[parameter.name]
            if seen and all(one.opcode in _SLICES for one in seen):
                reads[position] = min(reads[position], sum(one.stored for one in seen))
            elif [one.opcode for one in seen] == ["dynamic-update-slice"] and (
                seen[0].operands[0] == parameter.name
            ):
                written += inner[seen[0].operands[1]].stored - reads[position]
                reads[position] = 0
        return sum(reads) + max(written, 0)


def _parse(root: str | None, name: str, rest: str) -> _Instruction:
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    kind, rest = rest[:end], rest[end:].lstrip()
    start = rest.index("(")
    close = _closing(rest, start)
    opcode, inside, attributes = rest[:start], rest[start + 1 : close], rest[close + 1 :]
    operands = re.findall(r"%([\w.\-]+)", inside)
    if opcode in ("parameter", "constant"):
        attributes = inside
    return _Instruction(name, opcode, kind, operands, attributes, bool(root))


def _closing(text: str, start: int) -> int:
    depth = 0
    for i in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[i], 0)
        if depth == 0:
            return i
    raise ValueError(f"no closing parenthesis in {text[:80]!r}")


def _called(instruction: _Instruction) -> list[str]:
    names = []
    for one, many in _CALLS.findall(instruction.attributes):
        names += [one] if one else [n.strip().lstrip("%") for n in many.split(",")]
    return names


def _bytes(kind: str, everywhere: bool = True) -> float:
    """Size of an array or tuple."""
    total = 0.0
    for name, shape, layout in _ARRAY.findall(kind):
        bits = _BITS.get(name) or int(re.match(r"[a-z](\d+)", name)[1] if name != "token" else 0)
        if everywhere or "S(1)" not in layout:
            total += bits / 8 * math.prod(int(n) for n in shape.split(",") if n)
    return total


def _group(attributes: str, devices: int) -> tuple[int, ...]:
    """One group of devices that an instruction joins."""
    if pair := re.search(r"source_target_pairs=\{\{(\d+),(\d+)\}", attributes):
        return int(pair[1]), int(pair[2])
    if named := re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", attributes):
        axes = {n.strip("'"): int(size) for n, size in (a.split("=") for a in named[1].split(","))}
        numbers = np.arange(math.prod(axes.values())).reshape(list(axes.values()))
        joined = {n.strip(" '") for n in named[2].split(",")}
        numbers = numbers[tuple(slice(None) if axis in joined else 0 for axis in axes)]
        return tuple(numbers.ravel().tolist())
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", attributes):
        return tuple(int(n) for n in listed[1].split(","))
    pattern = r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?"
    if grid := re.search(pattern, attributes):
        shape, source, order = ([int(n) for n in (g or "").split(",") if n] for g in grid.groups())
        numbers = np.arange(math.prod(source)).reshape(source)
        return tuple(numbers.transpose(order or None).reshape(shape)[0].tolist())
    return tuple(range(devices))
