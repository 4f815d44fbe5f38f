"""Fields of the page for what dataclasses take, and the same as a line for the command line."""

import dataclasses
import shlex
from pathlib import Path

import gradio as gr

from durian_jax import parameters
from durian_jax.animation.job import Job
from durian_jax.app.field import Field
from durian_jax.app.words import without_folders
from input_pipeline.errors import InputError
from input_pipeline.motion.driver import MotionOptions

_JOB = ("seed", "grow_mask", "paste_back")


class Options:
    """The options of a job and of sampling, as fields where it is made.

    Attributes:
      fields: whose values handlers give to the methods.
    """

    def __init__(self, sampling, motion: tuple[str, ...] = ()):
        """
        Args:
          sampling: a dataclass with the values that are used where nothing else is asked for.
          motion: the options of motion that there are; none means all.
        """
        own = dataclasses.asdict(sampling).items()
        own = {name: tuple(x) if isinstance(x, list) else x for name, x in own}
        # Several scales are one for each condition: fields have no words for them.
        single = [name for name, x in own.items() if name != "guidance" or not _is_pair(x)]
        self._sampling, self._motion, job = (
            parameters.of(type(sampling), *single),
            parameters.of(MotionOptions, *motion),
            parameters.of(Job, *_JOB),
        )
        self._all = [
            (one, own.get(one.name, one.default)) for one in (*self._sampling, *self._motion, *job)
        ]
        self.fields = []
        for one, default in self._all:
            with gr.Column(min_width=260):
                self.fields.append(Field(one.name, _component(one, default)))

    def _said(self, values) -> dict:
        return {one.name: _value(one, x, own) for (one, own), x in zip(self._all, values)}

    def read(self, values) -> tuple[dict, dict]:
        """(fields of `Job`, fields of sampling) of what the fields hold.

        Raises InputError for a text that is no pair of numbers, and what the dataclasses raise.
        """
        job = self._said(values)
        sampling, motion = (
            {one.name: job.pop(one.name) for one in some} for some in (self._sampling, self._motion)
        )
        return job | {"motion_options": MotionOptions(**motion)}, sampling

    def words(self, values) -> list[str]:
        """What differs from the defaults, as arguments of the command line."""
        words = []
        for (one, own), value in zip(self._all, self._said(values).values()):
            if value == own:
                continue
            words.append(f"--{one.name.replace('_', '-')}")
            if value is not True:
                words.append(":".join(map("{:g}".format, value)) if _is_pair(value) else str(value))
        return words


def command(verb: str, job: Job, words: list[str], given: dict[str, str]) -> str:
    """The line that makes the same video, with the files by their names alone.

    given: the model, its masks and so on, as the page was given them: values by option.
    """

    def worn(attribute: tuple) -> str:
        photo, kind, *mask = attribute
        return ":".join([Path(photo).name, kind, *(Path(one).name for one in mask)])

    line = ["durian", verb, "--portrait", Path(job.portrait).name]
    if job.portrait_mask:
        line += ["--portrait-mask", Path(job.portrait_mask).name]
    flags = ("--from", "--to") if job.towards else ("--attribute",)
    for flag, attributes in zip(flags, (job.attributes, job.towards)):
        for attribute in attributes:
            line += [flag, worn(attribute)]
    line += ["--driving", Path(job.driving).name, *words]
    for name, value in given.items():
        line += [f"--{name}", without_folders(value)]
    return shlex.join([*line, "--out", f"out{job.motion_options.suffix(job.driving)}"])


def _is_pair(value) -> bool:
    return isinstance(value, tuple)


def _component(one: parameters.Parameter, default):
    """The component of a parameter; None is an empty field."""
    shown = {"label": one.name.replace("_", " "), "info": one.doc}
    if bool in one.kinds:
        return gr.Checkbox(bool(default), **shown)
    if one.choices:
        empty = [("default", "")] if default is None else []
        return gr.Dropdown([*empty, *one.choices], value=default or "", **shown)
    if default is None:  # an empty field of numbers turns into 0 in the browser
        return gr.Textbox("", placeholder="default", **shown)
    if _is_pair(default):
        return gr.Textbox(":".join(map("{:g}".format, default)), **shown)
    return gr.Number(default, precision=0 if int in one.kinds else None, **shown)


def _value(one: parameters.Parameter, value, default):
    if value in (None, ""):
        return default
    if not isinstance(value, str) or one.choices:
        return value
    try:
        if not _is_pair(default):
            return one.kinds[0](value)
        low, high = map(float, value.split(":"))
    except ValueError:
        form = "FROM:TO, such as 0.2:0.8" if _is_pair(default) else "a number"
        raise InputError(f"{value!r}: write {form}", option=one.name) from None
    return low, high
