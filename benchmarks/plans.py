"""Plans at full size for several slices, by arithmetic: `python -m benchmarks.plans`.

One clip is traced for each variant of the step. FLOPs and activations grow with the number of
clips; the layout of the state is worked out for each slice.
"""

import sys
from collections import Counter

from durian_jax.cli.config_files import load_config
from durian_jax.distributed import sharding
from durian_jax.planning import estimate
from durian_jax.planning.plan import GIB, Step
from durian_jax.planning.topology import Topology
from durian_jax.training import flops

SLICES = ("v5e:4x4", "v5e:16x16", "v5p:4x4x4", "v6e:4x4", "v6e:16x16", "h200:8")
REMATS = ("none", "attention", "full")
HEAD = (
    "| slice | fsdp | remat | clips a device | state | activations | total | limit | compute, ms | "
    "links, ms | MFU |\n|---|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|"
)


def trace(stage: str, remat: str) -> tuple[Step, float]:
    """A step of one clip on one device, and the bytes of activations it keeps."""
    overrides = ["--config.batch_size=1", f"--config.model.remat={(remat,) * 4}"]
    config = load_config(f"configs/durian.py:{stage}", overrides)
    step = Step(config, Topology.parse("h200:1"))
    return step, step.estimate().memory["activations"]


def row(step: Step, activations: float, name: str, fsdp: int, clips: int) -> str:
    """One line of the table, for so many clips a device."""
    place = Topology.parse(name)
    mesh = sharding.make_mesh(fsdp, place.count)
    layout = sharding.shard_layout(mesh, step.layout)
    state = sharding.local_bytes(layout)
    gradients = sharding.local_bytes(layout.trained)
    total = state + gradients + clips * (activations + sharding.local_bytes(step.batch))
    work = flops.Work(Counter({part: clips * n for part, n in step.work.parts.items()}))
    compute = work.padded(place.chip.width) / place.chip.peak
    received = sum(estimate.collective_traffic(layout, mesh, 1, 2).values())
    links = received / place.link(tuple(range(place.count)))
    mfu = work.model / max(compute, links) / place.chip.peak
    return (
        f"| {name} | {fsdp} | {step.config.model.remat[0]} | {clips} | {state / GIB:.2f} | "
        f"{clips * activations / GIB:.2f} | {total / GIB:.2f} | {place.chip.memory / GIB:.2f} | "
        f"{compute * 1e3:.0f} | {links * 1e3:.0f} | {mfu:.0%} |"
    )


def main() -> None:
    """Prints a table for each stage: the largest number of clips, a power of two, that fits."""
    for stage in ("stage1", "stage2"):
        variants = {remat: trace(stage, remat) for remat in REMATS}
        step = variants["none"][0]
        print(f"\n{stage}: {step.work.model / 1e12:.2f} TF a clip (model)\n\n{HEAD}")
        for name in SLICES:
            place = Topology.parse(name)
            for remat in REMATS:
                step, activations = variants[remat]
                for fsdp in dict.fromkeys((place.count, min(16, place.count))):
                    lines = [row(step, activations, name, fsdp, 2**n) for n in range(8)]
                    fitting = [line for line in lines if _fits(line)]
                    print(fitting[-1] if fitting else f"{lines[0]} does not fit", flush=True)


def _fits(line: str) -> bool:
    cells = [cell.strip() for cell in line.split("|")]
    return float(cells[7]) <= float(cells[8])


if __name__ == "__main__":
    sys.exit(main())
