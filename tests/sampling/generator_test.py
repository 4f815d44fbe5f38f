import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).parents[2]

CODE = """
import json
import jax, numpy as np
from durian_jax.diffusion.process import Discrete
from durian_jax.sampling.generator import Generator
from durian_jax.sampling.program import Stopwatch
from durian_jax.sampling.sampler import sample, to_uint8
from durian_jax.diffusion.solvers import Sampling, Schedule
from input_pipeline.errors import InputError
from tests import smallest

config = smallest.get_config("stage2").to_dict()
model = smallest.build_model(config)
rng = np.random.default_rng(0)

def job(frames=3):
    blank = jax.tree.map(np.asarray, model.blank_batch(1, frames))
    def fill(leaf):
        if leaf.dtype == np.float32:
            return rng.uniform(0, 32, leaf.shape[1:]).astype(np.float32)
        return rng.integers(0, 2 if leaf.dtype == bool else 256, leaf.shape[1:]).astype(leaf.dtype)
    return {name: fill(leaf) for name, leaf in blank.items() if name != "video"}

params = smallest.draw_params(model, 0.15)
PROGRAMS = ("encode_clip", "encode_frames", "noise", "predict", "advance", "decode")
def count_programs(generate):
    return sum(len(getattr(generate, name)) for name in PROGRAMS)
def runner(params, count, **windows):
    generate = Generator(params, config, jax.local_devices()[:count])
    sampling = Sampling(2, "dpm++", 2.0, **windows)
    def run(some, seeds):
        return np.concatenate(list(generate(some, seeds, sampling, Stopwatch(quiet=True))), axis=1)
    return generate, run

jobs, seeds, found = [job() for _ in range(3)], [5, 6, 7], {}
for count in (1, 4):
    generate, run = runner(params, count)
    if count == 1:
        found[1] = np.concatenate([run([job], [seed]) for job, seed in zip(jobs, seeds)])
    else:
        found[4] = run(jobs, seeds)
        found["programs"] = count_programs(generate)
        run(jobs[:2], seeds[:2])
        found["then"] = count_programs(generate)

# Motion modules that add nothing: what is left does not see the window it is in.
still = jax.tree_util.tree_map_with_path(
    lambda path, x: 0 * x if "motion" in str(path) and "proj_out" in str(path) else x, params)
long = [job(14), job(14)]
found["whole"] = runner(still, 1, window=14)[1](long[:1], [9])
windowing, run = runner(still, 4, window=6, overlap=2)
found["windowed"] = run(long, [9, 4])
windowing.params = generate.params
found["moving"] = run(long, [9, 4])
compiled = count_programs(windowing)
found["shorter"] = run([long[0] | {"keypoints": long[0]["keypoints"][:9]}], [9])
found["more"] = count_programs(windowing) - compiled

# Memory is foretold, not run into.
def refusal(memory):
    for name in PROGRAMS:
        getattr(windowing, name).memory = memory
    try:
        run(long, [9, 4])
    except InputError as error:
        return str(error)
weights = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
windowing.predict.clear()
lacking = refusal(weights + 2e3)
needed = 2**30 * float(lacking.split()[3])
tight = refusal(weights + 0.6 * (needed - weights))
windowing.encode_clip.clear()
references = refusal(weights + 2e3)
def overflow(_):
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of memory on HBM")
working, jax.stages.Lowered.compile = jax.stages.Lowered.compile, overflow
found["refusals"] = [references, lacking, tight, refusal(None)]
jax.stages.Lowered.compile = working

# Interpolation between the attributes of two jobs, alpha by the frame; weights large enough for the
# attributes to matter.
generate, run = runner(jax.tree.map(lambda x: 3 * x, params), 1)
towards = {name: jobs[1][name] for name in
           ("portrait", "portrait_mask", "portrait_keypoints",
            "attribute", "attribute_mask", "attribute_keypoints")}
for alpha in (0.0, 0.5, 1.0):
    alphas = np.full(3, alpha, np.float32)
    found[f"alpha {alpha}"] = run([jobs[0] | {"towards": towards, "alpha": alphas}], [5])
found["one"], found["other"] = run(jobs[:1], [5]), run([jobs[0] | towards], [5])
# The whole sampler, one pure function, under jax.pmap.
schedule = Schedule.build(generate.process, Sampling(2, "dpm++", 2.0))
pmapped = jax.pmap(lambda params, batch, seeds: to_uint8(sample(
    model, params, batch, seeds, schedule, process=generate.process)), in_axes=(None, 0, 0))
batch = {name: np.stack([job[name] for job in jobs])[:, None] for name in jobs[0]}
found["pmap"] = pmapped(params, batch, np.uint32(seeds)[:, None])[:, 0]
print(json.dumps({str(k): np.asarray(v).tolist() for k, v in found.items()}))
"""


@pytest.fixture(scope="module")
def found():
    environment = {
        **os.environ,
        "XLA_FLAGS": os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=4",
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


def _error(found, one, other):
    return np.abs(np.int32(found[one]) - np.int32(found[other]))


def test_windows_change_nothing_where_frames_do_not_see_each_other(found):
    assert np.shape(found["whole"]) == (1, 14, 32, 32, 3)
    first = np.int32(found["windowed"])[:1]
    assert np.abs(first - np.int32(found["whole"])).max() <= 1


def test_windows_let_motion_modules_see_their_neighbours(found):
    assert _error(found, "moving", "windowed").mean() > 1


def test_another_length_in_windows_needs_no_program_of_its_own(found):
    assert np.shape(found["shorter"]) == (1, 9, 32, 32, 3)
    assert found["more"] == 0


def test_interpolation_ends_at_the_single_attributes(found):
    assert _error(found, "alpha 0.0", "one").max() <= 1
    assert _error(found, "alpha 1.0", "other").max() <= 1
    assert _error(found, "alpha 0.5", "alpha 0.0").mean() > 1
    assert _error(found, "alpha 0.5", "alpha 1.0").mean() > 1


def test_pmap_gives_what_the_mesh_gives(found):
    assert _error(found, "pmap", "4").max() <= 1


def test_too_little_memory_is_refused_with_what_fits(found):
    references, nothing, window, overflow = found["refusals"]
    assert re.search(r"^references needs about .* GiB on each device, .*: use fewer a", references)
    assert re.search(r"^denoiser needs about .*: use a device with more memory$", nothing)
    assert re.search(r"^denoiser needs about .*: use a window of about 3 and a smaller", window)
    assert overflow.startswith("references needs more memory than a device has: use fewer attrib")


def test_fewer_clips_than_devices_need_no_program_of_their_own(found):
    assert found["programs"] == found["then"]
