"""The same run on one device and on eight, half of the state sharded: the same losses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).parents[2]


def _losses(dataset, workdir, devices, *more):
    environment = {
        **os.environ,
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run(
        [sys.executable, "-m", "durian_jax.cli", "train", "--config", "configs/tiny.py:stage1",
         "--workdir", str(workdir), f"--config.data.path={dataset}", "--config.batch_size=8",
         "--config.steps=4", "--config.log_every=1", *more],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [[json.loads(line)[name] for name in ("loss", "grad_norm")] for line in lines]


@pytest.mark.slow
def test_eight_devices_train_like_one(prepared_dataset, tmp_path):
    single = _losses(prepared_dataset, tmp_path / "one", 1)
    sharded = _losses(prepared_dataset, tmp_path / "eight", 8, "--config.mesh.fsdp=4")
    assert len(single) == 4
    np.testing.assert_allclose(sharded, single, rtol=1e-3)
