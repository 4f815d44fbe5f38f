"""Runs of `durian train` in processes of their own, and what they leave behind, bit by bit."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import jax
import numpy as np
import orbax.checkpoint as ocp

from input_pipeline.dataset import records, shards

REPOSITORY = Path(__file__).parents[2]
SIZE, FRAMES = 32, 4


def write_data_set(path: Path, count: int = 12, first: int = 0) -> Path:
    """A data set of clips of coloured noise with keypoints and hair; returns its path.

    `first` is the number of the first clip; each number is another clip.
    """
    clips = map(_record, range(first, first + count))
    shards.write_dataset(path, {"train": clips}, SIZE, {"painter": 1})
    return path


def _record(index: int) -> bytes:
    rng = np.random.default_rng(index)
    coarse = rng.integers(0, 256, (FRAMES, 4, 4, 3), np.uint8)
    frames = [cv2.resize(frame, (SIZE, SIZE)) for frame in coarse]
    hair = np.zeros((SIZE, SIZE), bool)
    hair[2:14, 6:26] = True
    chunk = records.Chunk(
        frames=[records.encode_frame(frame) for frame in frames],
        fps=25.0,
        keypoints=np.float32(rng.normal(SIZE / 2, 5, (FRAMES, 478, 3))),
        found=np.ones(FRAMES, bool),
        masks={"hair": [records.encode_mask(hair)] * FRAMES},
        clip=f"clip{index}.mp4",
        identity=f"person{index}",
        start=0,
        crop=np.float32([16, 16, SIZE]),
        tools={"painter": "1"},
    )
    return records.encode(chunk, SIZE)


def command(data_set: Path, workdir: Path, *overrides: str, watch: str = "toy") -> list[str]:
    """The command line of a run; `watch` is for witness.py."""
    model = "toy" if "toy" in watch.split() else "durian"
    return [
        sys.executable, "-m", "tests.reliability.witness", watch, "train",
        "--config", f"tests/reliability/smallest.py:{model}", "--workdir", str(workdir),
        f"--config.data.path={data_set}", *(f"--config.{override}" for override in overrides),
    ]  # fmt: skip


def run(*arguments, processes: int = 1, **options) -> subprocess.CompletedProcess:
    """Runs it to its end, of whatever kind; in several processes through launch/local.sh."""
    launch = [] if processes == 1 else ["launch/local.sh", "-n", str(processes), "--"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHON": sys.executable}
    return subprocess.run(
        launch + command(*arguments, **options),
        cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Remains:
    """What a run left behind.

    step: of the checkpoint read. arrays: its arrays by path, "ema/denoiser/layers_0/bias". data:
    its progress. losses: what metrics.jsonl says of each step but times, in the order written.
    batches: hash of each batch by "PROCESS/SEED/NUMBER". contradictions: those of two hashes.
    """

    step: int
    arrays: dict[str, np.ndarray]
    data: dict
    losses: list[dict]
    batches: dict[str, str]
    contradictions: list[str]


def read(workdir: Path, step: int | None = None) -> Remains:
    """What the run in `workdir` left behind, at a step or at its last; it may be unfinished."""
    names = ("params", "ema", "opt_state")
    handlers = {name: ocp.PyTreeCheckpointHandler() for name in names}
    handlers |= {name: ocp.JsonCheckpointHandler() for name in ("data", "meta")}
    with ocp.CheckpointManager(workdir / "checkpoints", item_handlers=handlers) as manager:
        step = step or manager.latest_step()
        saved, as_numpy = manager.item_metadata(step), ocp.RestoreArgs(restore_type=np.ndarray)
        arguments = {
            name: ocp.args.PyTreeRestore(
                restore_args=jax.tree.map(lambda _: as_numpy, saved[name].tree)
            )
            for name in names
        }
        arguments["data"] = ocp.args.JsonRestore()
        found = manager.restore(step, args=ocp.args.Composite(**arguments))
    trees = jax.tree.leaves_with_path({name: found[name] for name in names})
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line) for line in lines]
    for line in losses:
        del line["step_secs"], line["data_wait"], line["tflops"]
    batches, contradictions = {}, []
    for file in sorted(workdir.glob("batches_*.txt")):
        for line in file.read_text().splitlines():
            number, digest = line.split()
            number = f"{file.stem.split('_')[1]}/{number}"
            if batches.setdefault(number, digest) != digest:
                contradictions.append(number)
    arrays = {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in trees}
    return Remains(step, arrays, found["data"], losses, batches, contradictions)


def differences(left: Remains, right: Remains) -> list[str]:
    """Where two finished runs differ; bits count, not values."""
    found = [f"batch {number} is not always the same" for number in left.contradictions]
    found += [f"batch {number} is not always the same" for number in right.contradictions]
    if left.step != right.step:
        found.append(f"step {left.step} and {right.step}")
    for name in ("arrays", "batches"):
        a, b = getattr(left, name), getattr(right, name)
        found += [f"{name}: only one has {key}" for key in sorted(a.keys() ^ b.keys())]
        bits = {key: (_bits(a[key]), _bits(b[key])) for key in sorted(a.keys() & b.keys())}
        found += [f"{name}: {key} differs" for key, (x, y) in bits.items() if x != y]
    if left.data != right.data:
        found.append(f"data: {left.data} and {right.data}")
    if len(left.losses) != len(right.losses):
        found.append(f"{len(left.losses)} and {len(right.losses)} lines of metrics")
    found += [f"metrics: {a} and {b}" for a, b in zip(left.losses, right.losses) if a != b]
    return found


def _bits(value) -> tuple:
    if isinstance(value, str):
        return (value,)
    return value.dtype.name, value.shape, value.tobytes()
