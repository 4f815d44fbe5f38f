"""What a system is given to animate: a reader for each, by `config.system`."""

import dataclasses

import numpy as np

from input_pipeline.errors import InputError
from input_pipeline.inference.controlled import read_controlled, regions
from input_pipeline.inference.inputs import Scene, read_scene


def read_attributes(portrait, attributes, *rest, references=(), **options) -> Scene:
    """`read_scene` for systems that transfer attributes.

    Without any they get what training gives them of a clip that shows none: one picture, all of it
    hidden, and the portrait whole.
    """
    _refuse(references)
    _refuse_mask(attributes, options)
    scene = read_scene(portrait, attributes, *rest, **options)
    if attributes:
        return scene
    nothing = {
        "attribute": np.zeros((1, *scene.portrait.image.shape), np.uint8),
        "attribute_mask": np.zeros((1, *scene.own.shape), bool),
        "attribute_keypoints": scene.batch["portrait_keypoints"][None],
    }
    note = "no attribute is given: the portrait is animated as it is"
    return dataclasses.replace(scene, batch=scene.batch | nothing, notes=[*scene.notes, note])


def read_portrait(portrait, attributes, *rest, references=(), **options) -> Scene:
    """`read_scene` for systems that animate a portrait as it is. Raises InputError: attributes."""
    _refuse(references)
    if attributes:
        raise InputError("this model takes no attributes, only a portrait: leave them out")
    _refuse_mask(attributes, options)
    return read_scene(portrait, (), *rest, **options)


def read_regions(*given, references=(), **options) -> Scene:
    """`read_controlled` for systems that see eyes, nose and mouth of the driver."""
    _refuse(references)
    return read_controlled(*given, draw=regions, **options)


def _refuse_mask(attributes, options: dict) -> None:
    mask = options.get("portrait_mask")
    if mask is not None and not attributes:
        raise InputError(
            f"{mask}: hides what an attribute replaces, and none is given: give one, or no mask",
            option="portrait_mask",
        )


def _refuse(references) -> None:
    if references:
        raise InputError(f"{references[0]}: this model takes one photo of the person: leave it out")


READERS = {
    "durian": read_attributes, "animate_anyone": read_portrait, "x_portrait": read_controlled,
    "svp": read_regions,
}  # fmt: skip
