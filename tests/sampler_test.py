import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from durian_jax import sampler
from durian_jax.diffusion import Diffusion
from durian_jax.sampler import SamplerOptions, Schedule, windows

PROCESS = Diffusion()
UNGUIDED = SamplerOptions(guided=False)


class Oracle:
    """Stands in for the model: knows the clean latents (its "keypoints") and predicts exactly.

    The unconditional branch predicts 0, so guidance shows.
    """

    config = types.SimpleNamespace(latent_shape=(3, 3, 2))

    def __init__(self, diffusion=PROCESS):
        self.diffusion = diffusion

    def apply(self, variables, *args, method):
        return getattr(self, method)(*args)

    def encode_conditions(self, batch):
        return "conditions"

    def encode_keypoints(self, keypoints):
        return keypoints

    def decode_video(self, latents):
        return latents

    def denoise(self, z, timesteps, clean, conditions):
        if conditions is None:
            return jnp.zeros_like(z)
        alphas = jnp.asarray(self.diffusion.alphas_cumprod, jnp.float32)[timesteps[0]]
        noise = (z - jnp.sqrt(alphas) * clean) / jnp.sqrt(1 - alphas)
        return self.diffusion.target(clean, noise, timesteps)


def _sample(steps, options=UNGUIDED, frames=5, guidance=1.0, process=PROCESS):
    clean = jax.random.normal(jax.random.key(1), (2, frames, 3, 3, 2))
    video = sampler.sample(
        Oracle(process), {}, {"keypoints": clean}, jax.random.key(0), jnp.float32(guidance),
        Schedule.trailing(process, steps), diffusion=process, options=options,
    )  # fmt: skip
    return np.asarray(video), np.asarray(clean)


@pytest.mark.parametrize("steps", [1, 4, 25])
def test_ddim_recovers_the_clean_latents_of_an_exact_model(steps):
    video, clean = _sample(steps)
    np.testing.assert_allclose(video, clean, atol=2e-4)


def test_eps_prediction_is_sampled_as_well():
    process = Diffusion(prediction="eps", zero_terminal_snr=False)
    video, clean = _sample(10, process=process)
    np.testing.assert_allclose(video, clean, atol=1e-3)


def test_windows_of_an_exact_model_join_without_a_seam():
    options = SamplerOptions(window=4, overlap=2, guided=False)
    video, clean = _sample(4, options, frames=11)
    np.testing.assert_allclose(video, clean, atol=2e-4)


def test_guidance_one_is_the_conditional_prediction_and_others_are_not():
    video, clean = _sample(3, SamplerOptions(), guidance=1.0)
    np.testing.assert_allclose(video, clean, atol=2e-4)
    # One step from pure noise: x_0 = -v, and v is scaled by the guidance as uncond predicts 0.
    video, clean = _sample(1, SamplerOptions(), guidance=3.0)
    np.testing.assert_allclose(video, 3 * clean, atol=1e-3)


@pytest.mark.parametrize("solver", sampler.SOLVERS)
def test_slices_of_the_schedule_walk_the_same_way_as_the_whole(solver):
    clean = jax.random.normal(jax.random.key(1), (1, 2, 3, 3, 2))
    noise = jax.random.normal(jax.random.key(2), clean.shape)
    schedule = Schedule.trailing(PROCESS, 12, solver)
    slices = schedule.slices(5)
    assert [len(part.timesteps) for part in slices] == [2] * 6
    assert len(Schedule.trailing(PROCESS, 31).slices(10)) == 31
    assert len(Schedule.trailing(PROCESS, 3).slices(10)) == 3

    def walk(at, schedule):
        # A guided walk does not end at `clean`, so equality says something about the way.
        return sampler.denoise(
            Oracle(), {}, at, "conditions", clean, jnp.float32(1.7), schedule,
            diffusion=PROCESS, options=SamplerOptions(),
        )  # fmt: skip

    start = sampler.Trajectory.start(noise)
    at = functools.reduce(walk, slices, start)
    np.testing.assert_allclose(at.latents, walk(start, schedule).latents, atol=1e-6)


def test_trailing_timesteps_start_at_the_last_and_match_the_published_spacing():
    # Lin et al. 2305.08891, table 2: trailing, T = 1000, 10 steps.
    expected = [999, 899, 799, 699, 599, 499, 399, 299, 199, 99]
    assert Schedule.trailing(PROCESS, 10).timesteps.tolist() == expected
    assert len(Schedule.trailing(PROCESS, 30).timesteps) == 30
    assert Schedule.trailing(PROCESS, 1000).timesteps.tolist() == list(range(999, -1, -1))


@pytest.mark.parametrize(
    "frames,window,overlap",
    [(1, 24, 4), (24, 24, 4), (25, 24, 4), (115, 24, 4), (9, 4, 0), (100, 8, 7)],
)
def test_windows_cover_every_frame_with_weights_that_sum_to_one(frames, window, overlap):
    indices, weights = windows(frames, window, overlap)
    total = np.zeros(frames)
    np.add.at(total, indices, weights)
    np.testing.assert_allclose(total, 1, atol=1e-6)
    assert (weights > 0).all()
    assert (np.diff(indices, axis=1) == 1).all()
    shared = indices[:-1, -1] - indices[1:, 0] + 1
    assert (shared >= overlap).all()


def test_pictures_are_clipped_and_rounded_to_uint8():
    pictures = sampler.to_uint8(jnp.array([-2.0, -1.0, 0.0, 1.0, 2.0]))
    assert pictures.dtype == np.uint8
    assert pictures.tolist() == [0, 0, 128, 255, 255]


def test_an_overlap_as_long_as_the_window_is_refused():
    with pytest.raises(ValueError, match="use 0 to 3"):
        SamplerOptions(window=4, overlap=4)


def test_unknown_solvers_are_refused():
    with pytest.raises(ValueError, match=r"solver 'euler': choose ddim or dpm\+\+"):
        Schedule.trailing(PROCESS, 10, "euler")


@pytest.mark.parametrize("steps", [0, 1001])
def test_impossible_step_counts_are_refused(steps):
    with pytest.raises(ValueError, match="1 to 1000"):
        Schedule.trailing(PROCESS, steps)
