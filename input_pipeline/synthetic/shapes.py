"""Signed distances (negative inside, head units) of all that can be in the picture.

Written after the usual vocabulary of distance fields: ellipsoids, capsules, smooth unions
(I. Quilez, "distance functions" and "smooth minimum"). A field may underestimate; it must not
overestimate by much, or the marching steps through thin things.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from input_pipeline.synthetic.motion import Motion
from input_pipeline.synthetic.people import Face, Person

BACKGROUND, SKIN, EYE, CLOTHES, HAIR, BEARD, GLASSES, HAT = range(8)
FAR = 9.0  # distance of what is not there
EYE_Y, EYE_Z, EYE_RADIUS = 0.05, 0.60, 0.175
LENS_Z = 0.93  # plane of the glasses
_PIVOT = (0.0, -0.72, -0.28)  # the head turns about the top of the neck


class Stance(NamedTuple):
    """A person in a pose: rotation [3, 3] and shift [3] of head and of neck; the lips."""

    head: jax.Array
    shift: jax.Array
    neck: jax.Array


def stance(motion: Motion) -> Stance:
    """head axes -> scene axes: p = head @ q + shift. The neck follows a third of the yaw."""
    yaw, pitch, roll = (jnp.radians(value) for value in (motion.yaw, motion.pitch, motion.roll))
    head = rotation(yaw, pitch, roll)
    pivot = jnp.array(_PIVOT)
    shift = jnp.stack([motion.x, motion.y, jnp.zeros_like(motion.x)]) + pivot - head @ pivot
    return Stance(head, shift, rotation(0.35 * yaw, jnp.zeros_like(yaw), 0.3 * roll))


def rotation(yaw, pitch, roll) -> jax.Array:
    """[3, 3], y up and z to the camera; signs as in `faces.euler_angles`."""
    cy, sy = jnp.cos(yaw), jnp.sin(yaw)
    cp, sp = jnp.cos(pitch), jnp.sin(pitch)
    cr, sr = jnp.cos(roll), jnp.sin(roll)
    one, zero = jnp.ones_like(cy), jnp.zeros_like(cy)
    about_z = jnp.stack([cr, sr, zero, -sr, cr, zero, zero, zero, one]).reshape(3, 3)
    about_y = jnp.stack([cy, zero, sy, zero, one, zero, -sy, zero, cy]).reshape(3, 3)
    about_x = jnp.stack([one, zero, zero, zero, cp, sp, zero, -sp, cp]).reshape(3, 3)
    return about_z @ about_y @ about_x


def apply(matrix: jax.Array, x, y, z):
    """Matrix times points."""
    return tuple(row[0] * x + row[1] * y + row[2] * z for row in matrix)


def square(x):
    return x * x


def length(x, y, z):
    return jnp.sqrt(x * x + y * y + z * z + 1e-9)


def wave(x):
    """A sine to within 0.06, made of parabolas: several times cheaper."""
    t = x * (0.5 / jnp.pi)
    t = t - jnp.floor(t + 0.5)
    return 8 * t * (1 - 2 * jnp.abs(t))


def ellipsoid(x, y, z, centre, radii):
    a, b, c = ((p - m) / r for p, m, r in zip((x, y, z), centre, radii))
    norm = length(a, b, c)
    return norm * (norm - 1) / length(a / radii[0], b / radii[1], c / radii[2])


def sphere(x, y, z, centre, radius):
    return length(x - centre[0], y - centre[1], z - centre[2]) - radius


def capsule(x, y, z, start, stop, radius, end_radius=None):
    """A round cone from start to stop."""
    end_radius = radius if end_radius is None else end_radius
    ex, ey, ez = (b - a for a, b in zip(start, stop))
    px, py, pz = x - start[0], y - start[1], z - start[2]
    t = jnp.clip((px * ex + py * ey + pz * ez) / (ex * ex + ey * ey + ez * ez), 0, 1)
    return length(px - t * ex, py - t * ey, pz - t * ez) - (radius + (end_radius - radius) * t)


def join(a, b, k):
    """Smooth union, rounded over about k."""
    h = jnp.clip(0.5 + 0.5 * (b - a) / k, 0, 1)
    return b + (a - b) * h - k * h * (1 - h)


def common(a, b, k):
    """Smooth intersection."""
    return -join(-a, -b, k)


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
    d = join(d, ellipsoid(x, y, z, (0, 0.41, 0.20), (0.56 * w, 0.46, 0.57)), 0.16)
    jaw = (0.60 * face.jaw * w, 0.66 + 0.05 * opened, 0.62)
    d = join(d, ellipsoid(x, y, z, (0, -0.36 - 0.10 * opened, 0.12), jaw), 0.28)
    chin = (0.03 * face.chin, -0.86 - 0.17 * opened - 0.05 * (face.chin - 1), 0.43)
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
    return 0.755 - 0.24 * square(ax / 0.5) + 0.05 * motion.pucker * m.taper


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


def hairline(x, ax, person: Person):
    """Height of the edge of the hair over the face."""
    hair = person.hair
    edge = hair.hairline + 0.10 * wave(3 * x + 1.5708) - 0.04 * jnp.exp(-square(x / 0.08))
    edge = edge + 0.30 * hair.temples * jnp.exp(-square((ax - 0.40) / 0.17))
    across = jnp.exp(-square(square(ax / 0.62)))
    sweep = 1 + hair.sweep * jnp.clip(1.4 * x, -0.9, 0.9)
    strands = 0.40 + 0.045 * wave(9 * x + 4 * hair.part) + 0.03 * wave(23 * x)
    return edge - hair.fringe * strands * sweep * across


def hair(x, y, z, person: Person):
    """A cap over the skull, open in front, with hair hanging behind it, bun or tails."""
    h, w, ax = person.hair, person.face.width, jnp.abs(x)
    v = h.volume
    cap = ellipsoid(
        x, y, z, (0, 0.24 + 0.05 * v, -0.16), (0.775 * w + 0.24 * v, 0.862 + 0.36 * v, 0.882 + 0.24 * v)
    )  # fmt: skip
    groove = jnp.exp(-square((x - 0.42 * h.part) / 0.035)) * jnp.clip(2 * y - 1.0, 0, 1)
    cap = cap + 0.07 * jnp.clip(v, 0, 0.4) * groove
    opening = common(
        ellipsoid(x, y, z, (0, -0.20, 0.58), (0.72 * w, 0.93, 0.77)),
        y - hairline(x, ax, person), 0.06,
    )  # fmt: skip
    # Before the ear the edge runs down as a short sideburn.
    burn = h.side - 0.16 * jnp.exp(-square((z - 0.10) / 0.10))
    d = common(common(cap, -opening, 0.05), burn - y - 0.25 * jnp.clip(-z - 0.1, 0, 1), 0.08)
    d = common(d, y - h.crown + 0.25 * z, 0.06)
    d = join(d, _if(h.length > 0.01, lambda: _hanging(x, ax, y, z, person), x), 0.12)
    d = join(d, _if(h.bun > 0.05, lambda: sphere(x, y, z, (0, 1.12, -0.42), 0.32 * h.bun), x), 0.05)
    d = join(d, _if(h.tails > 0.05, lambda: _tails(ax, y, z, person), x), 0.05)
    curls = h.curl * wave(13 * x + 3 * z) * wave(12 * y + 1.3) * wave(13 * z)
    locks = 0.016 * h.wave * wave(17 * x + 5 * wave(4 * y + z)) * jnp.clip(v * 4, 0, 1)
    return d + curls + locks


def _if(condition, distance, like):
    """The distance where a scalar condition holds, else FAR at no cost."""
    return jax.lax.cond(condition, distance, lambda: jnp.full_like(like, FAR))


def _tails(ax, y, z, person: Person):
    w, size = person.face.width, person.hair.tails
    knot, end = (0.86 * w, 0.36, -0.40), (0.93, -0.98, -0.18)
    tail = capsule(ax, y, z, knot, end, 0.10 + 0.06 * size, 0.05)
    return join(tail, ellipsoid(ax, y, z, (0.99, -0.22, -0.30), (0.17 * size, 0.42, 0.18)), 0.15)


def _hanging(x, ax, y, z, person: Person):
    """Hair behind and beside the neck."""
    h, w = person.hair, person.face.width
    s, v = h.length, h.volume
    d = ellipsoid(
        x, y, z, (0, -0.25 - 0.55 * s, -0.30), ((0.84 + 0.2 * v) * w + 0.05 * s, 0.95 + 0.62 * s, 0.62 + 0.1 * v)
    )  # fmt: skip
    wisps = 0.03 * wave(19 * jnp.arctan2(x, z + 0.35)) * jnp.clip(-y - 0.2, 0, 1)
    d = d + wisps
    d = common(d, -ellipsoid(x, y, z, (0, -0.55, 0.55), (0.60 * w, 1.3, 0.72)), 0.10)
    return common(d, 0.02 - neck(x, y, z), 0.05)


def beard(x, y, z, person: Person, skin_distance):
    """A layer on the skin, within the region of moustache, chin and cheeks."""
    b, ax = person.beard, jnp.abs(x)
    jaw = person.face.jaw * person.face.width
    long = jnp.clip(b.length, 0, 1.5)
    region = ellipsoid(x, y, z, (0, -0.80, 0.46), (0.24 + 0.04 * long, 0.27 + 0.1 * long, 0.5))
    region = jnp.where(b.chin > 0.5, region, FAR)
    full = ellipsoid(x, y, z, (0, -0.74, 0.34), (0.64 * jaw, 0.40 + 0.10 * long, 0.66))
    sideburn = capsule(
        ax, y, z, (0.69 * person.face.width, 0.02, 0.06), (0.55 * jaw, -0.58, 0.20), 0.12
    )
    region = jnp.where(b.cheeks > 0.5, join(region, join(full, sideburn, 0.08), 0.05), region)
    region = common(region, -ellipsoid(x, y, z, (0, -0.545, 0.95), (0.29, 0.105, 0.4)), 0.05)
    lip = ellipsoid(ax, y, z, (0.13, -0.43, 0.84), (0.20, 0.058, 0.22))
    region = jnp.where(b.moustache > 0.5, join(region, lip, 0.04), region)
    hang = 0.16 * jnp.clip(b.length - 0.45, 0, 1) * jnp.clip((-0.70 - y) / 0.25, 0, 1)
    layer = skin_distance - 0.010 - 0.05 * long - hang
    rough = 0.011 * jnp.clip(b.length * 3, 0, 1) * wave(40 * x) * wave(34 * y) * wave(40 * z)
    return common(layer, region, 0.04) + rough


def lens(x, y, person: Person):
    """Distance from the edge of a lens in its plane, negative inside the lens."""
    g = person.glasses
    a, b = (jnp.abs(x) - 0.315) / g.width, (y - 0.03) / g.height
    b = b - 0.35 * g.cat * jnp.clip(a, 0, 1) * jnp.clip(b + 0.4, 0, 1)
    a = a * (1 + 0.18 * g.drop * jnp.clip(b + 0.2, -1, 1)) - 0.12 * g.drop * jnp.clip(-b, 0, 1)
    a, b = jnp.abs(a) + 1e-4, jnp.abs(b) + 1e-4
    norm = jnp.exp(
        jnp.log(jnp.exp(g.square * jnp.log(a)) + jnp.exp(g.square * jnp.log(b))) / g.square
    )
    return (norm - 1) * jnp.minimum(g.width, g.height)


def glasses(x, y, z, person: Person):
    g, ax, w = person.glasses, jnp.abs(x), person.face.width
    rim = jnp.where((g.lower > 0.5) | (y > 0.05), g.rim, 0.004)
    frame = length(lens(x, y, person), z - LENS_Z + 0.16 * x * x, 0.0) - rim
    bridge = capsule(ax, y, z, (0, 0.10, LENS_Z + 0.01), (0.12, 0.07, LENS_Z - 0.01), 0.9 * g.rim)
    hinge, ear = (0.53, 0.09, LENS_Z - 0.06), (0.82 * w, 0.09, -0.12)
    temple = capsule(ax, y, z, hinge, ear, jnp.maximum(0.8 * g.rim, 0.011))
    return jnp.minimum(jnp.minimum(0.8 * frame, bridge), temple)


def hat(x, y, z, person: Person):
    """Crown, and what makes the kind: cuff, brim, visor, a beret's disc, a headband."""
    h, w = person.hat, person.face.width
    tall, ax = h.height, jnp.abs(x)

    def is_kind(*kinds):
        return sum((jnp.abs(h.kind - kind) < 0.5).astype(jnp.float32) for kind in kinds) > 0.5

    def only(condition, distance):
        return jnp.where(condition, distance, FAR)

    rise = 0.60 + 0.35 * tall
    dome = ellipsoid(x, y, z, (0, 0.40, -0.15), (0.93 * w, rise, 0.98))
    # A pinched crown, flat on top, for hats with a wide brim.
    pinch = 0.10 * jnp.exp(-square(x / 0.22)) * jnp.clip(2 * (y - 0.6), 0, 1)
    felt = common(
        ellipsoid(x, y, z, (0, 0.45, -0.15), (0.93 * w, 0.95, 0.98)), y - 0.78 - 0.4 * tall, 0.12
    )
    d = jnp.where(is_kind(1), felt + pinch, dome)
    d = common(d, 0.48 - y, 0.05)
    flop = 0.30 * x * jnp.sign(person.hair.part + 0.01)
    disc = ellipsoid(
        x, y - 0.20 * x + flop * 0, z, (0.10, 0.80, -0.18), (1.10, 0.24 + 0.1 * tall, 1.08)
    )
    d = jnp.where(is_kind(3), join(common(d, y - 0.72, 0.1), disc, 0.12), d)
    band = common(
        ellipsoid(x, y, z, (0, 0.40, -0.15), (0.92 * w, 0.85, 0.97)),
        jnp.abs(y - 0.60 - 0.12 * z) - 0.10,
        0.05,
    )
    d = jnp.where(is_kind(5), band, d)
    cuff = common(
        ellipsoid(x, y, z, (0, 0.55, -0.15), (0.975 * w, 0.62, 1.035)), jnp.abs(y - 0.57) - 0.13, 0.06
    )  # fmt: skip
    wide = ellipsoid(x, y + 0.12 * x * x - 0.05, z, (0, 0.50, -0.12), (1.42, 0.05, 1.40))
    curl = 0.22 * jnp.clip(length(x, 0.0, z + 0.12) - 0.95, 0, 1)
    bowler = ellipsoid(x, y - curl, z, (0, 0.51, -0.12), (1.16, 0.05, 1.22))
    visor = common(
        ellipsoid(x, y + 0.15 * x * x + 0.06 * (z - 0.5), z, (0, 0.56, 0.62), (0.66, 0.05, 0.85)), 0.35 - z, 0.05
    )  # fmt: skip
    d = jnp.minimum(d, only(is_kind(0), cuff))
    return join(
        d, jnp.minimum(jnp.minimum(only(is_kind(1), wide), only(is_kind(4), bowler)), only(is_kind(2), visor)),
        0.05,
    )  # fmt: skip


def clothes(x, y, z, person: Person):
    c = person.clothes
    s, ax = c.shoulders, jnp.abs(x)
    d = ellipsoid(x, y, z, (0, -2.42, -0.38), (1.62 * s, 0.98, 0.72))
    roll = capsule(x, y, z, (0, -1.4, -0.33), (0, -1.9, -0.36), 0.54)
    turtleneck = common(roll, y + 1.30, 0.05)
    ring = common(
        capsule(x, y, z, (0, -1.45, -0.30), (0, -1.9, -0.33), 0.56),
        jnp.abs(y + 1.55 + 0.25 * z) - 0.06,
        0.05,
    )
    flap = capsule(ax, y, z, (0.40, -1.36, -0.10), (0.22, -1.66, 0.24), 0.10, 0.07)
    stand = common(
        capsule(x, y, z, (0, -1.3, -0.40), (0, -1.9, -0.38), 0.55), y + 1.40 - 0.3 * (0.1 - z), 0.05
    )
    hood = length(length(x / 1.15, 0.0, z + 0.42) - 0.62, (y + 1.42 + 0.35 * z) / 1.0, 0.0) - 0.15
    neckwear = jnp.where(c.kind < 0.5, turtleneck, ring)
    neckwear = jnp.where((c.kind > 1.5) & (c.kind < 2.5), jnp.minimum(flap, stand), neckwear)
    neckwear = jnp.where(c.kind > 2.5, hood, neckwear)
    return join(d, neckwear, 0.05)


def to_head(x, y, z, at: Stance):
    """Scene points in head axes."""
    return apply(at.head.T, x - at.shift[0], y - at.shift[1], z - at.shift[2])


def scene(x, y, z, person: Person, motion: Motion, at: Stance) -> list[jax.Array]:
    """Distances to the seven materials, SKIN ... HAT; attributes not worn cost nothing."""
    hx, hy, hz = to_head(x, y, z, at)
    nx, ny, nz = apply(at.neck.T, x, y, z)
    face = skin(hx, hy, hz, person.face, motion)
    hat_worn = person.hat.worn > 0.5

    def on_head():
        # A hat presses the hair flat; a headband only where it lies.
        d = hair(hx, hy, hz, person)
        return jnp.where(hat_worn & (person.hat.kind < 4.5), common(d, hy - 0.50, 0.06), d)

    return [
        join(face, neck(nx, ny, nz), 0.12),
        eyes(hx, hy, hz, person.face, motion),
        clothes(nx, ny, nz, person),
        _if(person.hair.worn > 0.5, on_head, x),
        _if(person.beard.worn > 0.5, lambda: beard(hx, hy, hz, person, face), x),
        _if(person.glasses.worn > 0.5, lambda: glasses(hx, hy, hz, person), x),
        _if(hat_worn, lambda: hat(hx, hy, hz, person), x),
    ]


def nearest(x, y, z, person: Person, motion: Motion, at: Stance) -> jax.Array:
    """Distance to the nearest surface of the scene."""
    return functools.reduce(jnp.minimum, scene(x, y, z, person, motion, at))
