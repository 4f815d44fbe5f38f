"""What a system is given to animate: a reader for each, by `config.system`."""

from input_pipeline.errors import InputError
from input_pipeline.inference.controlled import read_controlled
from input_pipeline.inference.inputs import Scene, read_scene


def read_attributes(portrait, attributes, *rest, references=(), **options) -> Scene:
    """`read_scene` for systems that transfer attributes. Raises InputError: there are none."""
    _refuse(references)
    if not attributes:
        raise InputError("no attribute is given: name at least one photo and what to take from it")
    return read_scene(portrait, attributes, *rest, **options)


def read_portrait(portrait, attributes, *rest, references=(), **options) -> Scene:
    """`read_scene` for systems that animate a portrait as it is. Raises InputError: attributes."""
    _refuse(references)
    if attributes:
        raise InputError("this model takes no attributes, only a portrait: leave them out")
    return read_scene(portrait, (), *rest, **options)


def _refuse(references) -> None:
    if references:
        raise InputError(f"{references[0]}: this model takes one photo of the person: leave it out")


READERS = {
    "durian": read_attributes, "animate_anyone": read_portrait, "x_portrait": read_controlled,
}  # fmt: skip
