import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).parents[1]

CODE = """
import json
import jax, numpy as np
from configs import tiny
from durian_jax.diffusion import Diffusion
from durian_jax.generator import Generator, Stopwatch
from durian_jax.models.config import DurianConfig, blank_batch
from durian_jax.models.durian import Durian
from durian_jax.sampler import Schedule

config = tiny.get_config("stage2").to_dict()
config["model"].update(resolution=32, patch=8, channels=(32,), attention_levels=(0,), heads=2,
                       norm_groups=4, keypoint_channels=(4, 4, 4, 4))
model = Durian(DurianConfig.from_dict(config["model"]))
blank = jax.tree.map(np.asarray, blank_batch(model.config, 1, 3))
rng = np.random.default_rng(0)

def job():
    def fill(leaf):
        if leaf.dtype == np.float32:
            return rng.uniform(0, 32, leaf.shape[1:]).astype(np.float32)
        return rng.integers(0, 2 if leaf.dtype == bool else 256, leaf.shape[1:]).astype(leaf.dtype)
    return {name: fill(leaf) for name, leaf in blank.items() if name != "video"}

latents = np.zeros((1, 3, *model.config.latent_shape), np.float32)
shapes = jax.eval_shape(model.init, jax.random.key(0), blank, latents, np.zeros(1, np.int32))
params = jax.tree.map(
    lambda leaf: np.random.default_rng(leaf.size).normal(0, 0.15, leaf.shape).astype(np.float32),
    shapes["params"])
jobs, seeds, found = [job() for _ in range(3)], [5, 6, 7], {}
for count in (1, 4):
    generate = Generator(params, config, jax.local_devices()[:count])
    schedule = Schedule.trailing(generate.diffusion, 2)
    run = lambda some, seeds: generate(some, seeds, schedule, 2.0, Stopwatch(quiet=True))
    if count == 1:
        found[1] = np.concatenate([run([job], [seed]) for job, seed in zip(jobs, seeds)])
    else:
        found[4] = run(jobs, seeds)
        found["programs"] = len(generate._programs)
        run(jobs[:2], seeds[:2])
        found["then"] = len(generate._programs)
print(json.dumps({str(k): np.asarray(v).tolist() for k, v in found.items()}))
"""


@pytest.fixture(scope="module")
def found():
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(REPOSITORY),
    }
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=1200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_clips_that_share_four_devices_are_those_made_one_by_one(found):
    alone, together = np.int32(found["1"]), np.int32(found["4"])
    assert alone.shape == together.shape == (3, 3, 32, 32, 3)
    assert np.abs(alone - together).max() <= 1
    # Another person and another seed make another clip.
    assert np.abs(alone[0] - alone[1]).mean() > 2


def test_fewer_clips_than_devices_need_no_program_of_their_own(found):
    assert found["programs"] == found["then"]
