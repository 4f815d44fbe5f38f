"""Masks that are painted in the editor belong to the photo that it showed."""

from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest

from durian_jax.app.animate import Animate
from durian_jax.app.line import Line
from durian_jax.app.visits import Visits
from durian_jax.diffusion.solvers import Sampling
from input_pipeline.media.pictures import read_picture, write_picture

SIDE = 512
HAIR = np.zeros((32, 32), bool)
HAIR[4:12, 8:24] = True


def _subject(name):
    return SimpleNamespace(
        path=Path(name),
        photo=lambda: np.zeros((SIDE, SIDE, 3), np.uint8),
        crop=SimpleNamespace(apply=lambda image, size: image),
        write_mask=lambda path, mask: write_picture(path, np.uint8(255 * mask)),
    )


@pytest.fixture
def studio(tmp_path):
    """A tab in which two photos were looked at, and the request of its browser."""
    animator = SimpleNamespace(size=32, sampling=Sampling(), takes_attributes=True)
    with gr.Blocks():
        studio = Animate(animator, Visits(tmp_path), Line(), None)
    visit = studio._visits.of(request := SimpleNamespace(session_hash="me"))
    visit.seen = {name: (_subject(f"{name}.png"), HAIR) for name in ("portrait", "photo 1")}
    return studio, visit, request


def test_what_is_not_painted_on_is_not_a_mask_of_the_users(studio):
    studio, visit, request = studio
    shown = studio._paint("portrait", None, request)
    assert shown["background"].shape == (SIDE, SIDE, 3)
    studio._paint("photo 1", shown, request)
    assert visit.masks == {}


def test_a_stroke_goes_to_the_photo_that_was_shown_even_if_a_choice_is_told_twice(studio):
    studio, visit, request = studio
    shown = studio._paint("portrait", None, request)
    shown["layers"][0][300:320, 100:400] = 255
    for _ in range(2):
        other = studio._paint("photo 1", shown, request)
    assert list(visit.masks) == [("portrait", "portrait.png")]
    mask = read_picture(visit.masks["portrait", "portrait.png"])[..., 0] > 127
    assert mask[300:320, 100:400].all() and not mask[330:].any() and mask[100, 200]
    again = studio._paint("portrait", None, request)
    assert (again["layers"][0][310, 200:300, 3] > 0).all()
    assert other == gr.skip()
