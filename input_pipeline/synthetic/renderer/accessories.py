"""What a head wears as signed distances: hair, beard, glasses, hats; and clothes."""

import jax.numpy as jnp

from input_pipeline.synthetic.people import Person
from input_pipeline.synthetic.renderer.distances import (
    FAR,
    capsule,
    common,
    ellipsoid,
    join,
    length,
    sphere,
    square,
    wave,
    when,
)
from input_pipeline.synthetic.renderer.head import neck

LENS_Z = 0.93  # plane of the glasses
BEANIE, WIDE_BRIM, CAP, BERET, BOWLER, HEADBAND = range(6)


def hairline(x, ax, person: Person):
    """Height of the edge of the hair over the face."""
    hair = person.hair
    edge = hair.hairline + 0.10 * wave(3 * x + 1.5708) - 0.04 * jnp.exp(-square(x / 0.08))
    edge = edge + 0.30 * hair.temples * jnp.exp(-square((ax - 0.40) / 0.17))
    across = jnp.exp(-square(square(ax / 0.62)))
    sweep = 1 + hair.sweep * jnp.clip(1.4 * x, -0.9, 0.9)
    strands = 0.40 + 0.045 * wave(9 * x + 4 * hair.part) + 0.03 * wave(23 * x)
    return edge - hair.fringe * strands * sweep * across


def hair(x, y, z, person: Person, skin_distance):
    """A cap over the skull, open in front, with hair hanging behind it, bun or tails."""
    h, w, ax = person.hair, person.face.width, jnp.abs(x)
    v = h.volume
    radii = (0.775 * w + 0.24 * v, 0.862 + 0.36 * v, 0.882 + 0.24 * v)
    cap = ellipsoid(x, y, z, (0, 0.24 + 0.05 * v, -0.16), radii)
    # Where the forehead stands out, a layer on the skin.
    layer = common(skin_distance - 0.015 - 0.12 * jnp.clip(v, 0, 0.6), 0.30 - y, 0.10)
    cap = join(cap, layer, 0.06)
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
    d = join(d, when(h.length > 0.01, lambda: _hanging(x, y, z, person), x), 0.12)
    d = join(
        d, when(h.bun > 0.05, lambda: sphere(x, y, z, (0, 1.12, -0.42), 0.32 * h.bun), x), 0.05
    )
    d = join(d, when(h.tails > 0.05, lambda: _tails(ax, y, z, person), x), 0.05)
    curls = h.curl * wave(13 * x + 3 * z) * wave(12 * y + 1.3) * wave(13 * z)
    locks = 0.016 * h.wave * wave(17 * x + 5 * wave(4 * y + z)) * jnp.clip(v * 4, 0, 1)
    return d + curls + locks


def _tails(ax, y, z, person: Person):
    w, size = person.face.width, person.hair.tails
    knot, end = (0.86 * w, 0.36, -0.40), (0.93, -0.98, -0.18)
    tail = capsule(ax, y, z, knot, end, 0.10 + 0.06 * size, 0.05)
    return join(tail, ellipsoid(ax, y, z, (0.99, -0.22, -0.30), (0.17 * size, 0.42, 0.18)), 0.15)


def _hanging(x, y, z, person: Person):
    """Hair behind and beside the neck."""
    h, w = person.hair, person.face.width
    s, v = h.length, h.volume
    radii = ((0.84 + 0.2 * v) * w + 0.05 * s, 0.95 + 0.62 * s, 0.62 + 0.1 * v)
    wisps = 0.03 * wave(19 * jnp.arctan2(x, z + 0.35)) * jnp.clip(-y - 0.2, 0, 1)
    d = ellipsoid(x, y, z, (0, -0.25 - 0.55 * s, -0.30), radii) + wisps
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
    power = jnp.exp(g.square * jnp.log(a)) + jnp.exp(g.square * jnp.log(b))
    norm = jnp.exp(jnp.log(power) / g.square)
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
    """A crown, and what makes the kind: cuff, brim, visor, a beret's disc; or a headband."""
    h, w = person.hat, person.face.width
    tall = h.height

    def kind(number):
        return jnp.abs(h.kind - number) < 0.5

    crown = ellipsoid(x, y, z, (0, 0.40, -0.15), (0.93 * w, 0.60 + 0.35 * tall, 0.98))
    # Hats with a wide brim are flat on top, and pinched.
    felt = ellipsoid(x, y, z, (0, 0.45, -0.15), (0.93 * w, 0.95, 0.98))
    felt = common(felt, y - 0.78 - 0.4 * tall, 0.12)
    felt = felt + 0.10 * jnp.exp(-square(x / 0.22)) * jnp.clip(2 * (y - 0.6), 0, 1)
    crown = common(jnp.where(kind(WIDE_BRIM), felt, crown), 0.48 - y, 0.05)
    disc = ellipsoid(x, y - 0.20 * x, z, (0.10, 0.80, -0.18), (1.10, 0.24 + 0.1 * tall, 1.08))
    beret = join(common(crown, y - 0.72, 0.1), disc, 0.12)
    band = ellipsoid(x, y, z, (0, 0.40, -0.15), (0.92 * w, 0.85, 0.97))
    band = common(band, jnp.abs(y - 0.60 - 0.12 * z) - 0.10, 0.05)
    crown = jnp.where(kind(BERET), beret, jnp.where(kind(HEADBAND), band, crown))

    cuff = ellipsoid(x, y, z, (0, 0.55, -0.15), (0.975 * w, 0.62, 1.035))
    cuff = common(cuff, jnp.abs(y - 0.57) - 0.13, 0.06)
    brim = ellipsoid(x, y + 0.12 * x * x - 0.05, z, (0, 0.50, -0.12), (1.42, 0.05, 1.40))
    curl = 0.22 * jnp.clip(length(x, 0.0, z + 0.12) - 0.95, 0, 1)
    bowler = ellipsoid(x, y - curl, z, (0, 0.51, -0.12), (1.16, 0.05, 1.22))
    visor = ellipsoid(
        x, y + 0.15 * x * x + 0.06 * (z - 0.5), z, (0, 0.56, 0.62), (0.66, 0.05, 0.85)
    )
    visor = common(visor, 0.35 - z, 0.05)
    extra = jnp.full_like(x, FAR)
    for number, part in ((BEANIE, cuff), (WIDE_BRIM, brim), (CAP, visor), (BOWLER, bowler)):
        extra = jnp.where(kind(number), part, extra)
    return join(crown, extra, 0.04)


def clothes(x, y, z, person: Person):
    """Torso, and what lies round the neck."""
    c = person.clothes
    ax = jnp.abs(x)
    torso = ellipsoid(x, y, z, (0, -2.42, -0.38), (1.62 * c.shoulders, 0.98, 0.72))
    roll = capsule(x, y, z, (0, -1.4, -0.33), (0, -1.9, -0.36), 0.54)
    ring = capsule(x, y, z, (0, -1.45, -0.30), (0, -1.9, -0.33), 0.56)
    flap = capsule(ax, y, z, (0.40, -1.36, -0.10), (0.22, -1.66, 0.24), 0.10, 0.07)
    stand = capsule(x, y, z, (0, -1.3, -0.40), (0, -1.9, -0.38), 0.55)
    stand = common(stand, y + 1.37 + 0.3 * z, 0.05)
    hood = length(length(x / 1.15, 0.0, z + 0.42) - 0.62, y + 1.42 + 0.35 * z, 0.0) - 0.15
    collar = jnp.where(c.kind < 0.5, common(roll, y + 1.30, 0.05), hood)
    round_neck = common(ring, jnp.abs(y + 1.55 + 0.25 * z) - 0.06, 0.05)
    collar = jnp.where((c.kind > 0.5) & (c.kind < 1.5), round_neck, collar)
    collar = jnp.where((c.kind > 1.5) & (c.kind < 2.5), jnp.minimum(flap, stand), collar)
    return join(torso, collar, 0.05)
