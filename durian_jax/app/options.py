"""Fields of the page for what dataclasses take, and the same as a line for the command line."""

import dataclasses
import shlex
from pathlib import Path

import gradio as gr

from durian_jax import parameters
from durian_jax.animation.job import Job
from input_pipeline.errors import InputError
from input_pipeline.motion.driver import MotionOptions

_JOB = ("seed", "grow_mask", "paste_back")


class Options:
    """The options of a job and of sampling, as fields where it is made.

    Attributes:
      components: the fields, to be given to a handler, which gives their values to the methods.
    """

    def __init__(self, sampling, motion: tuple[str, ...] = ()):
        """
        Args:
          sampling: a dataclass with the values that are used where nothing else is asked for.
          motion: the options of motion that there are; default all.
        """
        defaults = dataclasses.asdict(sampling)
        # Several scales are one for each condition: the command line has no words for them either.
        single = [name for name, x in defaults.items() if name != "guidance" or not _is_pair(x)]
        self._groups = {
            type(sampling): parameters.of(type(sampling), *single),
            MotionOptions: parameters.of(MotionOptions, *motion),
            Job: parameters.of(Job, *_JOB),
        }
        self._defaults = {one.name: defaults.get(one.name, one.default) for one in self._all()}
        self.components = [_field(one, self._defaults[one.name]) for one in self._all()]

    def _all(self) -> list[parameters.Parameter]:
        return [one for group in self._groups.values() for one in group]

    def read(self, values) -> tuple[dict, dict]:
        """(fields of `Job`, fields of sampling) of what the components hold.

        Raises InputError for a text that is no pair of numbers, and what the dataclasses raise.
        """
        said = {
            one.name: _value(one, value, self._defaults[one.name])
            for one, value in zip(self._all(), values)
        }
        sampling, motion, job = (
            {one.name: said[one.name] for one in group} for group in self._groups.values()
        )
        return job | {"motion_options": MotionOptions(**motion)}, sampling

    def words(self, values) -> list[str]:
        """What differs from the defaults, as arguments of the command line."""
        words = []
        for one, value in zip(self._all(), values):
            value, own = _value(one, value, self._defaults[one.name]), self._defaults[one.name]
            if value in (own, tuple(own) if _is_pair(own) else own):
                continue
            words.append(f"--{one.name.replace('_', '-')}")
            if value is not True:
                words.append(":".join(map("{:g}".format, value)) if _is_pair(value) else str(value))
        return words


def command(verb: str, job: Job, words: list[str], checkpoint: str | None) -> str:
    """The line that makes the same video, with the files by their names alone."""

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
    line += ["--checkpoint", checkpoint] if checkpoint else []
    return shlex.join([*line, "--out", f"out{job.motion_options.suffix(job.driving)}"])


def _is_pair(value) -> bool:
    return isinstance(value, tuple | list)


def _field(one: parameters.Parameter, default):
    """The component of a parameter; None is an empty field."""
    shown = {"label": one.name.replace("_", " "), "info": one.doc}
    if bool in one.kinds:
        return gr.Checkbox(bool(default), **shown)
    if one.choices:
        empty = [("as is usual", "")] if default is None else []
        return gr.Dropdown([*empty, *one.choices], value=default or "", **shown)
    if default is None:  # an empty field of numbers turns into 0 in the browser
        return gr.Textbox("", placeholder="as is usual", **shown)
    if _is_pair(default):
        return gr.Textbox(":".join(map("{:g}".format, default)), **shown)
    return gr.Number(default, precision=0 if int in one.kinds else None, **shown)


def _value(one: parameters.Parameter, value, default):
    if value is None or value == "":
        return None if default is None or bool in one.kinds else default
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
