"""The fields of the page and the options of the command line say the same."""

import shlex

import gradio as gr
import pytest

from durian_jax.animation.job import Job
from durian_jax.app.options import Options, command
from durian_jax.cli import arguments, fields
from durian_jax.diffusion.solvers import Sampling
from input_pipeline.errors import InputError
from input_pipeline.motion.driver import MotionOptions


@pytest.fixture(scope="module")
def options():
    with gr.Blocks():
        return Options(Sampling(steps=12, guidance=2.0))


def _values(options, **changes):
    """What the fields hold, some of them changed, by their labels."""
    shown = [field.component for field in options.fields]
    return [changes.pop(one.label.replace(" ", "_"), one.value) for one in shown]


def test_fields_have_names_meanings_and_the_defaults_of_the_model(options):
    shown = {one.label: one for one in (field.component for field in options.fields)}
    assert shown["steps"].value == 12 and shown["guidance"].value == 2.0
    assert "denoising steps" in shown["steps"].info
    assert [choice for choice, _ in shown["solver"].choices] == ["ddim", "dpm++", "lcm"]
    assert {"seed", "smooth", "grow mask", "paste back", "window"} <= shown.keys()


def test_untouched_fields_change_nothing_and_add_no_words(options):
    job, sampling = options.read(_values(options))
    assert Sampling(**sampling) == Sampling(steps=12, guidance=2.0)
    assert job == {
        "seed": 0, "grow_mask": None, "paste_back": False, "motion_options": MotionOptions()
    }  # fmt: skip
    assert options.words(_values(options)) == []


@pytest.mark.parametrize("towards", [[], [("/tmp/x/his.png", "hair")]])
def test_the_line_to_copy_makes_the_same_job(options, towards):
    values = _values(
        options, steps=7, solver="dpm++", guidance_interval="0.2:0.8", seed=5, motion="absolute",
        smooth=0.5, paste_back=True, grow_mask="0.1",
    )  # fmt: skip
    fixed, sampling = options.read(values)
    job = Job(
        "/tmp/x/my photo.png", [("/tmp/x/her.png", "hair", "/tmp/y/her_mask.png")], "/tmp/x/t.mp4",
        portrait_mask="/tmp/y/m.png", towards=towards, alpha=(0.0, 1.0) if towards else (), **fixed,
    )  # fmt: skip
    verb, more = ("interpolate", ["--alphas", "0,1"]) if towards else ("animate", [])
    given = {"checkpoint": "runs/2", "masks": "parser:/tmp/net.onnx,hair=17", "aligner": "self"}
    line = command(verb, job, more + options.words(values), given)
    assert "/tmp" not in line
    argv = shlex.split(line)[1:]
    parsed = arguments.parser(argv).parse_args(argv)
    motion = MotionOptions(**fields.given(MotionOptions, parsed))
    again = Job(**fields.given(Job, parsed), motion_options=motion)
    assert again.to_json() == {
        **job.to_json(), "portrait": "my photo.png", "portrait_mask": "m.png",
        "attributes": ["her.png:hair:her_mask.png"], "driving": "t.mp4",
        "towards": ["his.png:hair"] if towards else [],
    }  # fmt: skip
    default = Sampling(steps=12, guidance=2.0)
    assert default.changed(**fields.given(Sampling, parsed)) == Sampling(**sampling)
    assert (parsed.checkpoint, parsed.aligner) == ("runs/2", "self")
    assert parsed.masks == "parser:net.onnx,hair=17"


@pytest.mark.parametrize(("name", "text"), [("frames", "many"), ("best_frame", "1.5")])
def test_what_is_no_number_is_said(options, name, text):
    with pytest.raises(InputError, match=f"{name} '{text}': write a number"):
        options.read(_values(options, **{name: text}))


def test_what_is_no_pair_is_said(options):
    with pytest.raises(InputError, match=r"guidance_interval .* write FROM:TO"):
        options.read(_values(options, guidance_interval="0.2"))
