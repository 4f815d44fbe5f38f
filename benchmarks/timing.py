"""Cases timed in turns in one process, so that what disturbs one of them disturbs all.

Never an absolute time alone: what is reported are ratios of medians, with the quartiles of the
ratios of single rounds, and shares of a matrix product that takes its turn like the others.
"""

import datetime
import importlib.metadata
import os
import platform
import threading
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

# Side of the matrix product that stands for the peak, by platform.
PEAK_SIDE = {"cpu": 2048, "gpu": 8192}
# Between two calls: threads of the one library that still spin would slow the other.
REST = 0.05


def header(title: str, command: str, packages: tuple[str, ...] = ()) -> str:
    """The first lines of a page of results: machine, load and versions."""
    versions = [
        f"{n} {importlib.metadata.version(n)}" for n in ("jax", "jaxlib", "flax", *packages)
    ]
    return (
        f"# {title}, {datetime.date.today()}\n\n{_processor()}, {os.cpu_count()} cores, "
        f"{jax.devices()[0].device_kind}; load average at the start {os.getloadavg()[0]:.1f}. "
        f"Python {platform.python_version()}, {', '.join(versions)}.\n\n    {command}\n"
    )


def _processor() -> str:
    with open("/proc/cpuinfo") as file:
        names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
    return names[0] if names else platform.machine()


def peak_product(dtype: str) -> tuple[Callable[[], object], int]:
    """A large matrix product, ready to call, and its FLOPs."""
    side = PEAK_SIDE.get(jax.default_backend(), 4096)
    key = jax.random.key(0)
    a = jax.random.normal(key, (side, side), jnp.dtype(dtype))
    product = jax.jit(jnp.matmul)
    return lambda: product(a, a).block_until_ready(), 2 * side**3


CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


def interleave(
    cases: dict[str, Callable[[], object]], rounds: int, clock: str = "wall"
) -> dict[str, np.ndarray]:
    """Seconds of every call, [rounds] for each case; the order rotates from round to round.

    Each case waits for its own result, and has run once before. Of CLOCKS "processor" is for a busy
    machine and one core (`taskset -c 0`): two threads that wait for each other would spin.
    """
    now = CLOCKS[clock]
    names, times = list(cases), {name: [] for name in cases}
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            time.sleep(REST)
            start = now()
            cases[name]()
            times[name].append(now() - start)
    return {name: np.array(seconds) for name, seconds in times.items()}


def ratio(seconds: np.ndarray, against: np.ndarray) -> str:
    """Ratio of medians, quartiles of the rounds' ratios in brackets, ratio of minima."""
    low, high = np.percentile(seconds / against, (25, 75))
    medians = np.median(seconds) / np.median(against)
    return f"**{medians:.2f}** [{low:.2f}, {high:.2f}], {seconds.min() / against.min():.2f}"


def table(times: dict[str, np.ndarray], against: str, flops: dict[str, int], memory: dict) -> str:
    """A row a case: milliseconds, ratio to the case `against`, FLOPs, share of the product's rate.

    Args:
      times: of `interleave`, with the case "matmul".
      flops: of a call of each case, "matmul" included.
      memory: bytes of each case, as far as known.
    """
    rate = flops["matmul"] / np.median(times["matmul"])
    lines = [
        f"| | ms, median (min) | against {against}: medians [quartiles], minima | GFLOP | share of "
        "the matmul's rate | memory, MiB |",
        "|---|---:|---|---:|---:|---:|",
    ]
    for name, seconds in times.items():
        middle = np.median(seconds)
        cells = [
            name, f"{middle * 1e3:.1f} ({seconds.min() * 1e3:.1f})",
            "" if name in ("matmul", against) else ratio(seconds, times[against]),
            f"{flops[name] / 1e9:.1f}" if name in flops else "",
            f"{flops[name] / middle / rate:.0%}" if name in flops else "",
            f"{memory[name] / 2**20:.0f}" if name in memory else "",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    lines.append(f"\nmatmul: {rate / 1e12:.3f} TFLOP/s; {len(seconds)} rounds.")
    return "\n".join(lines)


def resident_growth(call: Callable[[], object]) -> int:
    """Bytes by which the process grew at most while `call` ran: its first run, on a CPU."""
    before, most, done = _resident(), [0], threading.Event()

    def watch():
        while not done.wait(0.002):
            most[0] = max(most[0], _resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        call()
    finally:
        done.set()
        watcher.join()
    return max(0, most[0] - before)


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def check_equal(name: str, ours, theirs, limit: float) -> str:
    """A line with the relative difference. Exits if it is above the limit: nothing is timed."""
    ours, theirs = (np.asarray(x, np.float64) for x in (ours, theirs))
    gap = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
    if not gap <= limit:
        raise SystemExit(f"{name}: outputs differ by {gap:.1e}, allowed are {limit:.0e}")
    return f"{name}: outputs differ by {gap:.1e} (relative norm)."
