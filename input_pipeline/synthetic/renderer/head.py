"""The bare head as signed distances: skull, face, ears, eyes and neck, in head axes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from input_pipeline.synthetic.motion import Motion
from input_pipeline.synthetic.people import Face
from input_pipeline.synthetic.renderer.distances import (
    FAR,
    capsule,
    common,
    ellipsoid,
    join,
    length,
    sphere,
    square,
)

EYE_Y, EYE_Z, EYE_RADIUS = 0.05, 0.60, 0.175


class Mouth(NamedTuple):
    """The lips in the face's own x and y: u is 0 in the middle and 1 at the corners."""

    half_width: jax.Array
    u: jax.Array
    line: jax.Array  # height of the line between the lips
    taper: jax.Array  # 1 in the middle to 0 at the corners
    upper: jax.Array  # upper and lower outer edge
    lower: jax.Array
    gap: jax.Array  # half-height of the opening


def mouth(ax, face: Face, motion: Motion) -> Mouth:
    """The mouth at distance `ax` from the middle of the face."""
    half = 0.255 * face.mouth_width * (1 + 0.17 * motion.smile - 0.30 * motion.pucker)
    u = jnp.clip(ax / half, 0, 1.5)
    line = -0.545 + 0.075 * motion.smile * u * u - 0.014 * jnp.exp(-square(ax / 0.05))
    taper = jnp.sqrt(jnp.clip(1 - u * u, 0, 1))
    thick = face.lip * (1 + 0.35 * motion.pucker - 0.12 * jnp.clip(motion.smile, 0, 1))
    bow = 1 - 0.22 * jnp.exp(-square(ax / 0.045))
    full = taper * (0.45 + 0.55 * taper)
    return Mouth(
        half, u, line, taper,
        upper=line + (0.072 * thick * bow + 0.050 * motion.open) * full,
        lower=line - (0.082 * thick + 0.150 * motion.open) * full,
        gap=motion.open * taper,
    )  # fmt: skip


def eye_centre(face: Face):
    return 0.285 * face.eye_gap


def lids(x, y, face: Face, motion: Motion):
    """Heights of upper and lower lid at x, in eye radii over the eye's centre; x in eye radii."""
    out = (jnp.abs(x) - eye_centre(face)) / EYE_RADIUS
    arch = jnp.clip(1 - square(out / 0.95), 0, 1)
    tilt = face.eye_tilt * out
    squint = jnp.clip(motion.smile, 0, 1)
    raised = 0.385 * face.eye_height * (1 - motion.blink) - 0.20 * motion.blink
    raised = raised + 0.05 * motion.brow * (1 - motion.blink)
    lowered = -0.285 * face.eye_height * (1 - 0.25 * motion.blink) + 0.08 * squint
    upper = raised * arch * (1 + 0.12 * out) + tilt
    return upper, jnp.minimum(lowered * arch + tilt, upper)


def skin(x, y, z, face: Face, motion: Motion):
    """Head without neck: skull, jaw, chin, cheeks, brows, nose, lips, ears."""
    ax, w, opened, smile = jnp.abs(x), face.width, motion.open, motion.smile
    d = ellipsoid(x, y, z, (0, 0.24, -0.14), (0.76 * w, 0.84, 0.86))
    d = join(d, ellipsoid(x, y, z, (0, 0.40, 0.23), (0.62 * w, 0.46, 0.56)), 0.16)
    jaw = (0.60 * face.jaw * w, 0.66 + 0.05 * opened, 0.62)
    d = join(d, ellipsoid(x, y, z, (0, -0.36 - 0.10 * opened, 0.09), jaw), 0.28)
    chin = (0.03 * face.chin, -0.86 - 0.13 * opened - 0.05 * (face.chin - 1), 0.45)
    d = join(d, sphere(ax, y, z, chin, 0.17 * face.chin), 0.22)
    lift = jnp.clip(smile, 0, 1)
    cheek = (0.35 * w + 0.02 * lift, -0.20 + 0.06 * lift, 0.48 + 0.035 * lift)
    d = join(d, sphere(ax, y, z, cheek, 0.20 * face.cheek), 0.22)
    d = join(
        d, capsule(ax, y, z, (0.09, 0.25, 0.70), (0.40 * w, 0.24, 0.55), 0.08 * face.brow_ridge),
        0.14,
    )  # fmt: skip
    socket = ellipsoid(ax, y, z, (eye_centre(face), 0.05, 0.86), (0.20, 0.125, 0.16))
    d = common(d, -socket, 0.12)
    tip = (0, -0.26 - 0.05 * (face.nose_length - 1), 0.875 + 0.10 * (face.nose_length - 1))
    d = join(d, capsule(x, y, z, (0, 0.17, 0.69), tip, 0.05, 0.085 * face.nose_width), 0.10)
    wing = 0.092 * face.nose_width + 0.008 * lift
    d = join(d, sphere(ax, y, z, (wing, -0.275, 0.79), 0.062 * face.nose_width), 0.06)
    nostril = ellipsoid(ax, y, z, (0.055 * face.nose_width, -0.335, 0.84), (0.03, 0.02, 0.04))
    d = common(d, -nostril, 0.025)
    # Fold from the wing of the nose past the corner of the mouth.
    fold_x = 0.165 + 0.20 * jnp.clip((-0.30 - y) / 0.30, 0, 1) + 0.03 * lift
    along = jnp.clip((-0.28 - y) / 0.10, 0, 1) * jnp.clip((y + 0.68) / 0.12, 0, 1)
    crease = jnp.exp(-square((ax - fold_x) / 0.035)) * along * jnp.clip(z - 0.2, 0, 0.4) / 0.4
    d = d + (0.022 * lift + 0.010 * face.age) * crease
    d = join(d, _lips(ax, y, z, face, motion), 0.045)
    d = common(d, -_mouth_cavity(ax, y, z, face, motion), 0.015)
    return join(d, _ear(ax, y, z, face), 0.035)


def lip_front(ax, m: Mouth, motion: Motion):
    """Depth of the middle of the lips."""
    return 0.73 - 0.24 * square(ax / 0.5) + 0.05 * motion.pucker * m.taper


def _lips(ax, y, z, face: Face, motion: Motion):
    m = mouth(ax, face, motion)
    front = lip_front(ax, m, motion)
    past = jnp.clip(ax - m.half_width, 0, None)
    thick = face.lip * (1 + 0.25 * motion.pucker) * (0.20 + 0.80 * m.taper)
    up = length(y - m.line - (0.026 + 0.045 * motion.open) * m.taper, z - front, past)
    low = length(y - m.line + (0.034 + 0.130 * motion.open) * m.taper, z - front + 0.015, past)
    return join(up - 0.043 * thick, low - 0.052 * thick, 0.045)


def _mouth_cavity(ax, y, z, face: Face, motion: Motion):
    m = mouth(ax, face, motion)
    high = jnp.maximum(0.095 * m.gap + 0.003, 0.003)
    inside = length(
        (y - m.line + 0.042 * motion.open) / high, ax / (m.half_width * 0.9), (z - 0.8) / 0.2
    )
    return jnp.where(motion.open > 0.04, (inside - 1) * 0.055 * motion.open, FAR)


def _ear(ax, y, z, face: Face):
    s = face.ear
    lean = ax - 0.10 * (z + 0.12)  # the rim stands off the head at the back
    at = 0.775 * face.width
    d = ellipsoid(lean, y, z, (at, -0.01, -0.12), (0.065, 0.20 * s, 0.125 * s))
    d = common(
        d, -ellipsoid(lean, y, z, (at + 0.06, 0.015, -0.08), (0.05, 0.125 * s, 0.075 * s)), 0.03
    )
    return join(d, ellipsoid(lean, y, z, (at + 0.01, -0.02, -0.05), (0.035, 0.05, 0.03)), 0.03)


def neck(x, y, z):
    return capsule(x, y, z, (0, -0.62, -0.16), (0, -1.7, -0.34), 0.40, 0.46)


def eyes(x, y, z, face: Face, motion: Motion):
    """Eyeballs, thicker by a lid where one covers them."""
    ball = length(jnp.abs(x) - eye_centre(face), y - EYE_Y, z - EYE_Z)
    height = (y - EYE_Y) / EYE_RADIUS
    upper, lower = lids(x, y, face, motion)
    covered = (height > upper) | (height < lower)
    return ball - (EYE_RADIUS + 0.017 * covered)
