import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from durian_jax.diffusion.flow import Flow
from durian_jax.diffusion.process import make_process
from durian_jax.diffusion.solvers import SamplerState, Sampling, Schedule, advance
from input_pipeline.errors import InputError


def _denoised(process, velocity, start, **sampling):
    """What a solver makes of `start` [B, F, ...] with a velocity field of (x, t)."""
    schedule = Schedule.build(process, Sampling(guidance=1.0, **sampling))
    at = SamplerState.start(start)
    for i in range(len(schedule)):
        now = schedule.step(i)
        at = advance(process, at, velocity(at.latents, now.times), now)
    return np.asarray(at.latents)


def test_a_velocity_splits_back_into_clean_latents_and_noise():
    process = Flow()
    x_0, noise = jax.random.normal(jax.random.key(0), (2, 4, 3, 5, 5, 2))
    times = jnp.array([0.0, 12.5, 700.0, 1000.0])
    x_t = process.add_noise(x_0, noise, times)
    np.testing.assert_array_equal(x_t[0], x_0[0])
    np.testing.assert_array_equal(x_t[3], noise[3])
    for found, wanted in zip(
        process.split(process.target(x_0, noise, times), x_t, times), (x_0, noise)
    ):
        np.testing.assert_allclose(found, wanted, atol=2e-6)
    signal, sigma = process.scales(np.float32(times))
    np.testing.assert_allclose(signal + sigma, 1)


def test_clean_latents_predicted_are_trained_by_the_error_of_their_velocity():
    process, velocity = Flow(prediction="x0"), Flow()
    x_0, noise, guess = jax.random.normal(jax.random.key(0), (3, 3, 2, 5, 5, 2))
    times = jnp.array([60.0, 700.0, 1000.0])
    x_t = process.add_noise(x_0, noise, times)
    np.testing.assert_array_equal(process.target(x_0, noise, times), x_0)
    found = process.split(x_0, x_t, times)
    np.testing.assert_allclose(found[1], noise, atol=2e-5)
    v = jnp.subtract(*process.split(guess, x_t, times)[::-1])
    wanted = jnp.square(v - velocity.target(x_0, noise, times)).mean((1, 2, 3, 4))
    errors = jnp.square(guess - x_0).mean((1, 2, 3, 4))
    np.testing.assert_allclose(process.loss_weight(times) * errors, wanted, rtol=1e-5)
    np.testing.assert_allclose(process.loss_weight(jnp.zeros(2)), 400.0, rtol=1e-6)  # finite


def test_training_draws_logit_normal_times_that_are_shifted():
    process = Flow(shift=3.0, logit_mean=0.0, logit_std=1.0)
    drawn = np.asarray(process.draw(jax.random.key(1), (20000,))) / 1000
    assert ((drawn > 0) & (drawn < 1)).all()
    back = drawn / (3 - 2 * drawn)  # the shift undone
    logits = np.log(back / (1 - back))
    assert abs(logits.mean()) < 0.03 and abs(logits.std() - 1) < 0.03
    # The median of a logit-normal is 1 / 2, shifted 3 / 4.
    np.testing.assert_allclose(process.times_at(0.5), 750, rtol=1e-6)
    assert (process.level(process.times_at(np.array([0.0, 1.0]))) < 1).all()


def test_ddim_on_a_flow_is_the_method_of_euler():
    process, x = Flow(), np.random.default_rng(0).normal(size=(1, 2, 3)).astype("f4")

    def velocity(x, t):
        return jnp.sin(x) + t / 1000

    wanted = x.astype(np.float64)
    ends = np.append(process.spaced(7).astype(np.float64), 0) / 1000
    for now, after in itertools.pairwise(ends):
        wanted = wanted + (after - now) * (np.sin(wanted) + now)
    np.testing.assert_allclose(
        _denoised(process, velocity, x, steps=7, solver="ddim"), wanted, atol=1e-5
    )


@pytest.mark.parametrize("solver, share", [("ddim", 0.52), ("dpm++", 0.26)])
def test_solvers_come_to_where_the_flow_leads_at_their_order(solver, share):
    """Normal data, whose velocity is known; twice the steps leave a half, or a quarter, of the
    error."""
    mean, spread = 0.6, 0.5
    x = np.random.default_rng(2).normal(size=(1, 1, 64)).astype("f4")

    def velocity(x, t):
        sigma = t / 1000
        variance = ((1 - sigma) * spread) ** 2 + sigma**2
        away = (x - (1 - sigma) * mean) / variance
        return (sigma - (1 - sigma) * spread**2) * away - mean

    def error(steps):
        end = _denoised(Flow(), velocity, x, steps=steps, solver=solver)
        return np.abs(end - (mean + spread * x)).max()

    coarse, fine = error(40), error(80)
    assert fine <= share * coarse and fine < 0.05


def test_lcm_draws_new_noise_between_its_steps():
    """A network that always sees the same clean clip ends there."""
    process, clean = Flow(), 0.3
    x = np.random.default_rng(3).normal(size=(1, 2, 3, 3, 1)).astype("f4")
    end = _denoised(process, lambda x, t: (x - clean) / (t / 1000), x, steps=4, solver="lcm")
    np.testing.assert_allclose(end, clean, atol=1e-5)


def test_a_config_comes_back_as_it_is():
    process = make_process({"process": "flow", "shift": 2.0})
    assert process == Flow(shift=2.0) == make_process(dataclasses.asdict(process))


@pytest.mark.parametrize(
    "values, message",
    [
        ({"process": "wave"}, "diffusion.process 'wave': choose discrete or flow"),
        ({"process": "flow", "beta_end": 0.1}, "no field 'beta_end'; it has process, prediction"),
        ({"process": "flow", "prediction": "eps"}, "diffusion.prediction 'eps': a flow has v or"),
        ({"process": "flow", "shift": 0.0}, "diffusion.shift is 0: use above 0"),
    ],
)
def test_bad_configs_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        make_process(values)


@pytest.mark.parametrize(
    "steps, spacing, message",
    [(0, "trailing", "steps is 0: use 1 to 1000"), (9, "leading", "is a flow from pure noise")],
)
def test_steps_that_it_cannot_take(steps, spacing, message):
    with pytest.raises(InputError, match=message):
        Flow().spaced(steps, spacing)
