"""What is wrong is said beside the field that it is about."""

import gradio as gr
import pytest

from durian_jax.app.field import Field, blame
from input_pipeline.errors import InputError

VALUES = ("/uploads/my_face.png", "/uploads/talk.mp4", 0, "0.2", 3.0)


@pytest.fixture(scope="module")
def fields():
    names = ("portrait", "driving", "guidance", "guidance_interval", "window")
    with gr.Blocks():
        return [Field(name, gr.Textbox()) for name in names]


@pytest.mark.parametrize(
    ("error", "place"),
    [
        (InputError("is missing: give a photo", option="portrait"), 0),
        (InputError("/uploads/talk.mp4: no face found"), 1),
        (InputError("guidance -1: use 0 or more"), 2),
        (InputError("'0.2': write FROM:TO", option="guidance_interval"), 3),
        (InputError("guidance interval 1:0: use fractions"), 3),
        (InputError("windows 'x': choose overlapping"), -1),
        (InputError("0 jobs wait already"), -1),
    ],
)
def test_an_error_stands_below_the_field_that_it_names(fields, error, place):
    texts = blame(fields, VALUES, error)
    assert len(texts) == 6 and [bool(text) for text in texts].index(True) == place % 6
    assert sum(map(bool, texts)) == 1 and "role=" in texts[place]
