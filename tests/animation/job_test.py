"""What a job says of itself."""

import numpy as np
import pytest

from durian_jax.animation.job import Job
from input_pipeline.errors import InputError


def _job(*alpha):
    hair = ("her.jpg", "hair")
    return Job("me.png", [hair], "talk.mp4", towards=[hair], alpha=alpha)


def test_alphas_are_passed_over_time():
    np.testing.assert_allclose(_job(0, 1, 0.5).alphas(5), [0, 0.5, 1, 0.75, 0.5])
    np.testing.assert_allclose(_job(0.25).alphas(3), [0.25] * 3)


def test_a_single_picture_has_one_alpha():
    np.testing.assert_allclose(_job(0.25).alphas(1), [0.25])
    with pytest.raises(InputError, match=r"alphas 0,0\.5,1: a single picture has one: give"):
        _job(0, 0.5, 1).alphas(1)
