import jax
import jax.numpy as jnp
import numpy as np
import pytest

from durian_jax.diffusion.process import Discrete
from input_pipeline.errors import InputError

PROCESSES = [
    Discrete(),
    Discrete(prediction="v", zero_terminal_snr=False),
    Discrete(prediction="eps", zero_terminal_snr=False),
    Discrete(prediction="x0"),
]


def test_signal_power_decreases_and_ends_at_exactly_zero():
    alphas = Discrete().alphas_cumprod
    assert (np.diff(alphas) < 0).all()
    assert alphas[-1] == 0


def test_rescaling_keeps_the_first_step():
    plain = Discrete(zero_terminal_snr=False).alphas_cumprod
    assert plain[-1] > 0
    np.testing.assert_allclose(Discrete().alphas_cumprod[0], plain[0], rtol=1e-12)


def test_schedule_is_that_of_stable_diffusion():
    # alpha_bar of the first and last step of SD 1.5: 1 - 0.00085, and 0.00466 (as in its code).
    alphas = Discrete(zero_terminal_snr=False).alphas_cumprod
    np.testing.assert_allclose(alphas[[0, -1]], [0.99915, 0.0046601], rtol=1e-4)


@pytest.mark.parametrize("process", PROCESSES)
def test_target_splits_back_into_clean_latents_and_noise(process):
    x_0, noise = jax.random.normal(jax.random.key(0), (2, 4, 3, 5, 5, 2))
    timesteps = jnp.array([0, 300, 700, 900])
    x_t = process.add_noise(x_0, noise, timesteps)
    found_x_0, found_noise = process.split(process.target(x_0, noise, timesteps), x_t, timesteps)
    np.testing.assert_allclose(found_x_0, x_0, atol=1e-4)
    np.testing.assert_allclose(found_noise, noise, atol=1e-4)


def test_last_step_is_pure_noise_and_its_target_is_minus_the_clean_latents():
    process = Discrete()
    x_0, noise = jax.random.normal(jax.random.key(0), (2, 1, 6))
    last = jnp.array([999])
    np.testing.assert_array_equal(process.add_noise(x_0, noise, last), noise)
    np.testing.assert_array_equal(process.target(x_0, noise, last), -x_0)


def test_min_snr_weight_is_one_where_noise_dominates_and_falls_where_signal_does():
    weights = Discrete().loss_weight(jnp.arange(1000))
    assert weights[-1] == 1
    assert (weights[:-1] <= weights[1:] + 1e-7).all()
    snr = Discrete().alphas_cumprod[0] / (1 - Discrete().alphas_cumprod[0])
    np.testing.assert_allclose(weights[0], 5 / (snr + 1), rtol=1e-5)
    assert (Discrete(min_snr_gamma=0).loss_weight(jnp.arange(1000)) == 1).all()


def test_x0_and_v_are_the_same_objective():
    v, x_0_process = Discrete(), Discrete(prediction="x0")
    x_0, noise, error = jax.random.normal(jax.random.key(0), (3, 4, 6))
    timesteps = jnp.array([3, 300, 700, 999])
    x_t = v.add_noise(x_0, noise, timesteps)
    found, _ = v.split(v.target(x_0, noise, timesteps) + error, x_t, timesteps)
    as_v = v.loss_weight(timesteps) * (error**2).mean(1)
    as_x_0 = x_0_process.loss_weight(timesteps) * ((found - x_0) ** 2).mean(1)
    np.testing.assert_allclose(as_v, as_x_0, rtol=1e-3)


def test_frames_may_have_timesteps_of_their_own():
    process = Discrete(prediction="x0")
    x_0, noise = jax.random.normal(jax.random.key(0), (2, 2, 3, 5, 5, 2))
    timesteps = jnp.array([[0, 300, 999], [10, 20, 30]])
    whole = process.add_noise(x_0, noise, timesteps)
    for i, frame in np.ndindex(2, 3):
        alone = process.add_noise(
            x_0[i : i + 1, frame], noise[i : i + 1, frame], timesteps[i, frame][None]
        )
        np.testing.assert_allclose(whole[i, frame], alone[0], rtol=1e-6)
    assert process.loss_weight(timesteps).shape == (2, 3)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_timesteps_are_drawn_as_the_shift_says(shift):
    process = Discrete(timestep_shift=shift)
    drawn = np.asarray(process.draw(jax.random.key(0), (20_000,)))
    assert drawn.min() >= 0 and drawn.max() <= 999
    # Of u below one half: t / T = s / (1 + s).
    assert abs((drawn < 1000 * shift / (1 + shift)).mean() - 0.5) < 0.02
    np.testing.assert_array_equal(
        process.times_at(jnp.array([0.0, 0.5, 1.0])), [0, int(1000 * shift / (1 + shift)), 999]
    )


def test_shift_out_of_range_is_refused():
    with pytest.raises(ValueError, match="timestep_shift is 0: use above 0"):
        Discrete(timestep_shift=0.0)


def test_eps_with_zero_terminal_snr_is_refused():
    with pytest.raises(ValueError, match="zero_terminal_snr=False"):
        Discrete(prediction="eps")


def test_unknown_prediction_is_refused():
    with pytest.raises(ValueError, match="choose v, eps or x0"):
        Discrete(prediction="noise")


@pytest.mark.parametrize(
    ("steps", "count", "first"), [(30, 31, 991), (25, 25, 961), (15, 16, 991), (7, 8, 995)]
)
def test_leading_timesteps_go_down_to_one_at_whole_distances(steps, count, first):
    """As LDM's code has them: c = T // steps apart, from 1."""
    times = Discrete(prediction="eps", zero_terminal_snr=False).spaced(steps, "leading")
    assert (len(times), times[0], times[-1]) == (count, first, 1)
    assert (np.diff(times) == -(1000 // steps)).all()


def test_leading_timesteps_that_would_pass_the_last_name_their_neighbours():
    process = Discrete(prediction="eps", zero_terminal_snr=False)
    refused = []
    for steps in range(1, 101):
        try:
            process.spaced(steps, "leading")
        except InputError:
            refused.append(steps)
    # Those in which the official sampler reads beyond its tables.
    assert refused == [3, 9, 27, 36, 37]
    with pytest.raises(InputError, match="at 1000, beyond 999: use 2 or 4"):
        process.spaced(3, "leading")
    with pytest.raises(InputError, match="steps is 0: use 1 to 1000"):
        process.spaced(0, "leading")
