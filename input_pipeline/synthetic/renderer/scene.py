"""A person in a pose: where the head is, and the distance to each material."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from input_pipeline.synthetic.motion import Motion
from input_pipeline.synthetic.people import Person
from input_pipeline.synthetic.renderer import accessories, head
from input_pipeline.synthetic.renderer.distances import apply, common, join, rotation, when

BACKGROUND, SKIN, EYE, CLOTHES, HAIR, BEARD, GLASSES, HAT = range(8)
_PIVOT = (0.0, -0.72, -0.28)  # the head turns about the top of the neck


class Pose(NamedTuple):
    """A person in a pose: rotation [3, 3] and shift [3] of head and of neck; the lips."""

    head: jax.Array
    shift: jax.Array
    neck: jax.Array


def pose_of(motion: Motion) -> Pose:
    """head axes -> scene axes: p = head @ q + shift. The neck follows a third of the yaw."""
    yaw, pitch, roll = (jnp.radians(value) for value in (motion.yaw, motion.pitch, motion.roll))
    head = rotation(yaw, pitch, roll)
    pivot = jnp.array(_PIVOT)
    shift = jnp.stack([motion.x, motion.y, jnp.zeros_like(motion.x)]) + pivot - head @ pivot
    return Pose(head, shift, rotation(0.35 * yaw, jnp.zeros_like(yaw), 0.3 * roll))


def to_head(x, y, z, at: Pose):
    """Scene points in head axes."""
    return apply(at.head.T, x - at.shift[0], y - at.shift[1], z - at.shift[2])


def distances(x, y, z, person: Person, motion: Motion, at: Pose) -> list[jax.Array]:
    """Distances to the seven materials, SKIN ... HAT; attributes not worn cost nothing."""
    hx, hy, hz = to_head(x, y, z, at)
    nx, ny, nz = apply(at.neck.T, x, y, z)
    face = head.skin(hx, hy, hz, person.face, motion)
    hat_worn = person.hat.worn > 0.5

    def on_head():
        # A hat presses the hair flat; a headband only where it lies.
        d = accessories.hair(hx, hy, hz, person, face)
        return jnp.where(hat_worn & (person.hat.kind < 4.5), common(d, hy - 0.50, 0.06), d)

    return [
        join(face, head.neck(nx, ny, nz), 0.12),
        head.eyes(hx, hy, hz, person.face, motion),
        accessories.clothes(nx, ny, nz, person),
        when(person.hair.worn > 0.5, on_head, x),
        when(person.beard.worn > 0.5, lambda: accessories.beard(hx, hy, hz, person, face), x),
        when(person.glasses.worn > 0.5, lambda: accessories.glasses(hx, hy, hz, person), x),
        when(hat_worn, lambda: accessories.hat(hx, hy, hz, person), x),
    ]


def nearest(x, y, z, person: Person, motion: Motion, at: Pose) -> jax.Array:
    """Distance to the nearest surface of the scene."""
    return functools.reduce(jnp.minimum, distances(x, y, z, person, motion, at))
