"""A run that is killed and started again ends where an unbroken run ends, bit for bit."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

REPOSITORY = Path(__file__).parents[2]


def _command(dataset, workdir, *more):
    return [
        sys.executable, "-m", "durian_jax.cli", "train", "--config", "configs/tiny.py:stage1",
        "--workdir", str(workdir), f"--config.data.path={dataset}", "--config.batch_size=4",
        "--config.steps=40", "--config.save.every=15", "--config.sample.every=0",
        "--config.log_every=1", *more,
    ]  # fmt: skip


def _run(*arguments):
    done = subprocess.run(
        _command(*arguments), cwd=REPOSITORY, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _final_arrays(workdir):
    handlers = {name: ocp.PyTreeCheckpointHandler() for name in ("params", "ema", "opt_state")}
    handlers |= {name: ocp.JsonCheckpointHandler() for name in ("data", "meta")}
    with ocp.CheckpointManager(workdir / "checkpoints", item_handlers=handlers) as manager:
        assert manager.latest_step() == 40
        found = manager.restore(40)
    return {name: found[name] for name in ("params", "ema", "opt_state", "data")}


def _losses(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"], line["grad_norm"]) for line in lines]


def _steps_done(workdir):
    metrics = workdir / "metrics.jsonl"
    return len(metrics.read_text().splitlines()) if metrics.exists() else 0


@pytest.fixture(scope="module")
def unbroken(prepared_dataset, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("unbroken")
    _run(prepared_dataset, workdir)
    return workdir


def test_killed_run_continues_bit_for_bit(prepared_dataset, unbroken, tmp_path):
    process = subprocess.Popen(
        _command(prepared_dataset, tmp_path), cwd=REPOSITORY, stdout=subprocess.DEVNULL
    )
    # The first checkpoint that is complete on disk; later steps are lost and taken again.
    deadline = time.time() + 300
    while not (tmp_path / "checkpoints" / "15").exists() and time.time() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 15 <= _steps_done(tmp_path) < 40

    told = _run(prepared_dataset, tmp_path)
    assert "resumed at step" in told
    assert _losses(tmp_path) == _losses(unbroken)
    assert len(set(_losses(unbroken))) == 40
    ours, theirs = _final_arrays(tmp_path), _final_arrays(unbroken)
    assert ours["data"] == theirs["data"]
    flat, structure = jax.tree.flatten(ours)
    other, other_structure = jax.tree.flatten(theirs)
    assert structure == other_structure and len(flat) > 1000
    for a, b in zip(flat, other):
        np.testing.assert_array_equal(a, b)
