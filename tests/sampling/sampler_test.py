import jax
import jax.numpy as jnp
import numpy as np
import pytest

from durian_jax.diffusion import solvers
from durian_jax.diffusion.process import Discrete
from durian_jax.diffusion.solvers import Sampling, Schedule
from durian_jax.sampling import sampler
from input_pipeline.errors import InputError

PROCESS = Discrete()
SEEDS = jnp.arange(2, dtype=jnp.uint32)


def _schedule(steps, solver="ddim", guidance=1.0, process=PROCESS, **more):
    return Schedule.build(process, Sampling(steps, solver, guidance, **more))


class Oracle:
    """Stands in for the model: knows the clean latents (its "keypoints") and predicts exactly.

    The unconditional branch predicts 0, so guidance shows.
    """

    latent_shape, parts, frame_inputs = (3, 3, 2), ("references",), ("keypoints",)
    timed = False
    history = 0

    def __init__(self, process=PROCESS):
        self.process = process

    def apply(self, variables, *args, method):
        return getattr(self, method)(*args)

    def encode_clip(self, batch):
        return ()

    def encode_frames(self, batch):
        return batch["keypoints"]

    def decode_video(self, latents):
        return latents

    def predict(self, z, t, clip, clean, parts):
        if not parts:
            return jnp.zeros_like(z)
        alphas = jnp.asarray(self.process.alphas_cumprod, jnp.float32)[t[0]]
        noise = (z - jnp.sqrt(alphas) * clean) / jnp.sqrt(1 - alphas)
        return self.process.target(clean, noise, t)


class Nested(Oracle):
    """Three nested conditions; a branch predicts the number of those it is told."""

    parts = ("source", "driving", "history")

    def predict(self, z, t, clip, clean, parts):
        return jnp.full_like(z, len(parts) ** 2)


def _sample(steps, frames=5, process=PROCESS, seeds=SEEDS, **sampling):
    clean = jax.random.normal(jax.random.key(1), (len(seeds), frames, 3, 3, 2))
    video = sampler.sample(
        Oracle(process), {}, {"keypoints": clean}, seeds,
        _schedule(steps, process=process, **sampling), process=process,
    )  # fmt: skip
    return np.asarray(video), np.asarray(clean)


@pytest.mark.parametrize("steps", [1, 4, 25])
def test_ddim_recovers_the_clean_latents_of_an_exact_model(steps):
    video, clean = _sample(steps)
    np.testing.assert_allclose(video, clean, atol=2e-4)


def test_eps_prediction_is_sampled_as_well():
    process = Discrete(prediction="eps", zero_terminal_snr=False)
    video, clean = _sample(10, process=process)
    np.testing.assert_allclose(video, clean, atol=1e-3)


def test_guidance_one_is_the_conditional_prediction_and_others_are_not():
    video, clean = _sample(3)
    np.testing.assert_allclose(video, clean, atol=2e-4)
    # One step from pure noise: x_0 = -v, and v is scaled by the guidance as uncond predicts 0.
    video, clean = _sample(1, guidance=3.0)
    np.testing.assert_allclose(video, 3 * clean, atol=1e-3)


def test_guidance_acts_inside_its_interval_only():
    whole, clean = _sample(4, guidance=3.0)
    early, _ = _sample(4, guidance=3.0, guidance_interval=(0.0, 0.5))
    late, _ = _sample(4, guidance=3.0, guidance_interval=(0.75, 1.0))
    never, _ = _sample(4, guidance=3.0, guidance_interval=(0.5, 0.5))
    np.testing.assert_allclose(never, clean, atol=2e-4)
    assert np.abs(early - whole).max() > 0.1 and np.abs(late - whole).max() > 0.1
    # The oracle finds the way back once it is left alone, and only then.
    np.testing.assert_allclose(early, clean, atol=2e-4)
    assert np.abs(late - clean).max() > 0.1
    values = _schedule(4, guidance=3.0, guidance_interval=(0.25, 0.75)).guidance
    assert values.tolist() == [[1], [3], [3], [1]]


def test_rescaled_guidance_has_the_spread_of_the_conditional_prediction_in_every_frame():
    def predict(rescale):
        clean = jnp.arange(1.0, 4.0)[None, :, None, None, None] * jax.random.normal(
            jax.random.key(1), (1, 3, 3, 3, 2)
        )
        z = jax.random.normal(jax.random.key(2), clean.shape)
        now = _schedule(5, guidance=4.0, guidance_rescale=rescale).step(2)
        wanted = Oracle().predict(z, jnp.full(1, now.times), (), clean, Oracle.parts)
        return sampler.predict(Oracle(), {}, z, (), clean, now), wanted

    def spread(x):
        return np.std(x, (0, 2, 3, 4))

    (plain, wanted), (half, _), (full, _) = (predict(rescale) for rescale in (0.0, 0.5, 1.0))
    np.testing.assert_allclose(plain, 4 * wanted, rtol=1e-5)
    np.testing.assert_allclose(full, wanted, rtol=1e-4)
    np.testing.assert_allclose(spread(half), (spread(plain) + spread(full)) / 2, rtol=1e-5)


def test_noise_belongs_to_seed_and_place_in_the_clip():
    model = Oracle()
    both = sampler.initial_noise(model, PROCESS, jnp.array([7, 8], jnp.uint32), jnp.arange(5))
    one = sampler.initial_noise(model, PROCESS, jnp.array([8], jnp.uint32), jnp.array([3, 1]))
    np.testing.assert_array_equal(one[0], both[1, np.array([3, 1])])
    assert np.abs(both[0] - both[1]).min((1, 2, 3)).max() > 0
    flat = np.asarray(both).reshape(10, -1)
    assert np.abs(np.corrcoef(flat) - np.eye(10)).max() < 0.99
    many = sampler.initial_noise(model, PROCESS, jnp.arange(50, dtype=jnp.uint32), jnp.arange(40))
    assert abs(many.mean()) < 0.02 and abs(many.std() - 1) < 0.02


@pytest.mark.parametrize("solver", solvers.SOLVERS)
def test_a_clip_does_not_depend_on_what_is_sampled_beside_it(solver):
    # A guided walk does not end at the clean latents, so it depends on the noise.
    both, _ = _sample(4, seeds=jnp.array([3, 9], jnp.uint32), guidance=1.5, solver=solver)
    swapped, _ = _sample(4, seeds=jnp.array([3, 5], jnp.uint32), guidance=1.5, solver=solver)
    np.testing.assert_allclose(both[0], swapped[0], atol=1e-6)
    assert np.abs(both[1] - swapped[1]).max() > 1e-2


def test_lcm_recovers_the_clean_latents_and_adds_new_noise_at_every_step():
    video, clean = _sample(4, solver="lcm")
    np.testing.assert_allclose(video, clean, atol=2e-4)
    at = solvers.SamplerState.start(jnp.zeros((2, 4, 3, 3, 2)), SEEDS, jnp.arange(4))
    noises = []
    for now in map(_schedule(3, solver="lcm").step, (0, 1)):
        at = solvers.advance(PROCESS, at, jnp.zeros_like(at.latents), now)
        expected = now.signal_next * at.clean
        noises.append((at.latents - expected) / now.sigma_next)
    assert all(abs(np.std(noise) - 1) < 0.15 for noise in noises)
    assert abs(np.corrcoef(*(np.ravel(noise) for noise in noises))[0, 1]) < 0.25


@pytest.mark.parametrize("solver", solvers.SOLVERS)
def test_steps_one_by_one_are_the_whole_schedule(solver):
    clean = jax.random.normal(jax.random.key(1), (1, 2, 3, 3, 2))
    noise = jax.random.normal(jax.random.key(2), clean.shape)
    schedule = _schedule(6, solver, guidance=1.7)
    start = at = solvers.SamplerState.start(noise)
    for i in range(6):
        now = schedule.step(i)
        at = solvers.advance(
            PROCESS, at, sampler.predict(Oracle(), {}, at.latents, (), clean, now), now
        )
    # Guided, it does not end at `clean`, so equality says something about the steps.
    end = sampler.denoise(Oracle(), {}, start, (), clean, schedule, process=PROCESS)
    np.testing.assert_allclose(at.latents, end.latents, atol=1e-6)


def test_nested_guidance_adds_each_condition_with_its_own_scale():
    """v = u + l_s (s - u) + l_d (d - s) + l_h (h - d)."""
    z = jnp.zeros((1, 2, 3, 3, 2))
    scales = (2.0, 2.5, 0.5)
    now = _schedule(3, guidance=scales).step(1)
    found = sampler.predict(Nested(), {}, z, (), z, now)
    wanted = sum(scale * (k**2 - (k - 1) ** 2) for k, scale in enumerate(scales, 1))
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    np.testing.assert_allclose(solvers.branch_weights(jnp.array(scales)), [-1, -0.5, 2, 0.5])


def test_as_many_scales_as_conditions():
    sampling = Sampling(3, guidance=2.0)
    with pytest.raises(
        InputError, match=r"1 scales, the model 3 conditions: .* source, driving, h"
    ):
        sampler.make_schedule(Nested(), PROCESS, sampling)


def test_trailing_timesteps_start_at_the_last_and_match_the_published_spacing():
    # Lin et al. 2305.08891, table 2: trailing, T = 1000, 10 steps.
    expected = [999, 899, 799, 699, 599, 499, 399, 299, 199, 99]
    assert _schedule(10).times.tolist() == expected
    assert len(_schedule(30)) == 30
    assert _schedule(1000).times.tolist() == list(range(999, -1, -1))


def test_pictures_are_clipped_and_rounded_to_uint8():
    pictures = sampler.to_uint8(jnp.array([-2.0, -1.0, 0.0, 1.0, 2.0]))
    assert pictures.dtype == np.uint8
    assert pictures.tolist() == [0, 0, 128, 255, 255]


@pytest.mark.parametrize(
    "values,message",
    [
        ({"solver": "euler"}, r"solver 'euler': choose ddim, dpm\+\+, lcm"),
        ({"guidance": -1.0}, "guidance -1: use 0 or more"),
        ({"guidance": float("nan")}, "guidance nan"),
        ({"guidance_interval": (0.5, 0.2)}, "guidance interval 0.5:0.2: use fractions"),
        ({"guidance_interval": (0.0, 1.5)}, "guidance interval 0:1.5"),
        ({"window": 0}, "window 0: use 1 frame or more"),
        ({"window": 4, "overlap": 4}, "overlap 4: use 0 to 3 for windows of 4"),
        ({"guidance_rescale": 1.5}, r"guidance rescale 1.5: use 0 \(off\) to 1"),
    ],
)
def test_impossible_settings_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        Sampling(**values)


@pytest.mark.parametrize("steps", [0, 1001])
def test_impossible_step_counts_are_refused(steps):
    with pytest.raises(InputError, match="1 to 1000"):
        _schedule(steps)


def test_settings_of_a_config_and_changes_to_them():
    settings = {"steps": 12, "solver": "dpm++", "guidance": 2.0, "window": 8, "every": 100}
    sampling = Sampling.from_settings(settings)
    assert sampling == Sampling(12, "dpm++", 2.0, window=8)
    changed = sampling.changed(steps=4, guidance=None)
    assert changed == Sampling(4, "dpm++", 2.0, window=8)


def test_leading_steps_end_at_the_noise_of_time_zero():
    process = Discrete(prediction="eps", zero_terminal_snr=False)
    schedule = _schedule(30, process=process, spacing="leading")
    signal, sigma = process.scales(np.array(0))
    assert len(schedule) == 31 and schedule.guidance.shape == (31, 1)
    np.testing.assert_allclose([schedule.signal_next[-1], schedule.sigma_next[-1]], [signal, sigma])
    video, clean = _sample(10, process=process, spacing="leading")
    # What noise is left is that of time 0: its deviation is 0.029.
    assert 0.01 < np.abs(video - signal * clean).std() < 0.04


class Still(Oracle):
    """Predicts no noise at all, so that what it starts from is what comes out, scaled."""

    def predict(self, z, t, clip, clean, parts):
        return jnp.zeros_like(z)

    def encode_video(self, video):
        return video


def test_a_clip_may_start_from_its_portrait_under_the_noise_of_the_last_step():
    process = Discrete(prediction="eps", zero_terminal_snr=False)
    clean = jnp.zeros((2, 5, 3, 3, 2))
    portrait = jax.random.normal(jax.random.key(1), (2, 3, 3, 2))
    schedule = _schedule(2, process=process)

    def run(start):
        return sampler.sample(
            Still(process), {}, {"keypoints": clean, "portrait": portrait}, SEEDS, schedule,
            process=process, start=start,
        )  # fmt: skip

    noise, source = run("noise"), run("source")
    signal, sigma = process.scales(np.array(999))
    wanted = noise * sigma + portrait[:, None]
    np.testing.assert_allclose(source, wanted, atol=1e-4 * np.abs(wanted).max())
    assert signal < 0.07


@pytest.mark.parametrize("name", ["solver", "windows", "spacing", "start"])
def test_unknown_names_are_refused_with_those_there_are(name):
    with pytest.raises(InputError, match=f"{name} 'nothing': choose "):
        Sampling(**{name: "nothing"})
