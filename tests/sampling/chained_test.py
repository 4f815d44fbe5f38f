"""Chained windows of a system with a history, against the same done by hand."""

import jax
import numpy as np
import pytest

from durian_jax.diffusion import solvers
from durian_jax.diffusion.flow import Flow
from durian_jax.sampling import sampler
from durian_jax.sampling.generator import Generator
from durian_jax.sampling.program import Stopwatch
from input_pipeline.errors import InputError
from tests.parity import drawn
from tests.systems.svp.model_test import MODEL, params, system

FRAMES, WINDOW, HISTORY, STEPS, SEED = 7, 3, 2, 2, 5
CONFIG = {"system": "svp", "model": MODEL, "diffusion": {"process": "flow", "shift": 3.0}}


@pytest.fixture(scope="module")
def model():
    return system()


@pytest.fixture(scope="module")
def weights(model):
    return params(model)


@pytest.fixture(scope="module")
def generate(weights):
    """A function of guidance and windows to the frames of one clip."""
    generator = Generator(weights, CONFIG)
    inputs = {
        "portrait": drawn.picture("portrait", (16, 16, 3)),
        "driving": drawn.picture("driving", (FRAMES, 16, 16, 3)),
    }

    def run(guidance=(2.0, 2.5, 1.0), frames=FRAMES, **windows):
        settings = {"window": WINDOW, "overlap": 0, "windows": "chained"} | windows
        sampling = solvers.Sampling(STEPS, guidance=guidance, **settings)
        some = inputs | {"driving": inputs["driving"][:frames]}
        parts = generator([some], [SEED], sampling, Stopwatch(quiet=True))
        return np.concatenate(list(parts), axis=1)

    run.inputs = inputs
    return run


def test_each_window_is_told_the_last_frames_of_the_one_before(generate, model, weights):
    guidance = (2.0, 2.5, 1.0)
    schedule = sampler.make_schedule(model, Flow(), solvers.Sampling(STEPS, guidance=guidance))
    batch = {name: x[None] for name, x in generate.inputs.items()}
    clip = sampler.encode_clip(model, weights, {"portrait": batch["portrait"]})
    frames = sampler.encode_frames(model, weights, {"driving": batch["driving"]})

    @jax.jit
    def step(z, places, frames, now, before):
        history = None if before is None else sampler.encode_history(model, weights, before)
        parts, scales = (model.parts, guidance) if history else (model.parts[:-1], guidance[:-1])
        told = clip if history is None else clip | {"history": history}
        t = np.float32(1)[None] * now.times

        def branch(count):
            return model.apply(
                {"params": weights}, z, t, told, frames, parts[:count], method="predict"
            )

        # v = u + ls (s - u) + ld (d - s) + lp (p - d)
        v = branch(0)
        for count, scale in enumerate(scales):
            v += scale * (branch(count + 1) - branch(count))
        at = solvers.SamplerState.start(z, np.uint32([SEED]), places)
        return solvers.advance(Flow(), at, v, now).latents

    done = np.zeros((1, 0, *model.latent_shape), np.float32)
    for start in range(0, FRAMES, WINDOW):
        places = np.arange(start, start + WINDOW, dtype=np.int32)
        z = sampler.initial_noise(model, Flow(), np.uint32([SEED]), places)
        mine = frames[:, np.minimum(places, FRAMES - 1)]
        before = done[:, -HISTORY:] if start else None
        for i in range(STEPS):
            z = step(z, places, mine, schedule.step(i), before)
        done = np.concatenate([done, z], axis=1)
    wanted = sampler.to_uint8(sampler.decode(model, weights, done[:, :FRAMES]))
    found = generate(guidance).astype(int)
    assert found.shape == (1, FRAMES, 16, 16, 3)
    assert np.abs(found - np.asarray(wanted)).max() <= 1
    assert np.abs(found - generate(guidance=(2.0, 2.5, 0.0))).max() > 1


def test_the_first_window_does_not_depend_on_what_follows(generate):
    np.testing.assert_array_equal(generate(frames=5)[:, :WINDOW], generate()[:, :WINDOW])


def test_windows_shorter_than_the_history_are_refused(generate):
    with pytest.raises(InputError, match="1: the model looks 2 frames back: use at least as many"):
        generate(window=1)


def test_other_windows_go_without_history(generate):
    assert generate(windows="overlapping", overlap=1).shape == (1, FRAMES, 16, 16, 3)
