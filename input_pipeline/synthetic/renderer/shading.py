"""Colours and light: what a point of a surface looks like.

A point is a tuple of coordinate arrays; a colour is a list of three arrays, linear RGB.
"""

import jax
import jax.numpy as jnp
import numpy as np

from input_pipeline.synthetic.motion import Motion
from input_pipeline.synthetic.people import Person
from input_pipeline.synthetic.renderer import accessories, distances, head, scene
from input_pipeline.synthetic.renderer.distances import square
from input_pipeline.synthetic.renderer.scene import Pose

NORMAL_STEP = 0.004
_SHADOW_STEPS = 6
_PRIMES = np.uint32((0x8DA6B343, 0xD8163841, 0xCB1AB31F))
_TEETH, _GUMS = (0.90, 0.88, 0.83), (0.33, 0.08, 0.08)


def noise(x, y, z):
    """Smooth value noise in [0, 1] with one lump per unit."""
    ix, iy, iz = jnp.floor(x), jnp.floor(y), jnp.floor(z)
    fx, fy, fz = (f * f * (3 - 2 * f) for f in (x - ix, y - iy, z - iz))
    place = [i.astype(jnp.int32).astype(jnp.uint32) for i in (ix, iy, iz)]

    def corner(a, b, c):
        """A hash of the corner (one round of murmur3's mixing)."""
        h = sum((i + step) * k for i, step, k in zip(place, np.uint32((a, b, c)), _PRIMES))
        h = (h ^ (h >> 15)) * np.uint32(0x2C1B3C6D)
        h = (h ^ (h >> 12)) * np.uint32(0x297A2D39)
        return (h >> 8).astype(jnp.float32) * 2.0**-24

    def edge(b, c):
        return corner(0, b, c) + (corner(1, b, c) - corner(0, b, c)) * fx

    low = edge(0, 0) + (edge(1, 0) - edge(0, 0)) * fy
    high = edge(0, 1) + (edge(1, 1) - edge(0, 1)) * fy
    # Three colour channels use it: without the barrier XLA computes it three times.
    return jax.lax.optimization_barrier(low + (high - low) * fz)


def step(x):
    """A soft step from 0 to 1 about x = 0, one wide."""
    return jax.nn.sigmoid(x)


def bump(x):
    return jnp.exp(-square(x))


def unit(x, y, z):
    n = distances.length(x, y, z)
    return x / n, y / n, z / n


def dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def mix(a, b, share):
    return [p + (q - p) * share for p, q in zip(a, b)]


def scale(colour, factor):
    return [channel * factor for channel in colour]


def brow_height(out, face, motion: Motion):
    """Height of the middle of the eyebrow, from its inner end (out = -1) to its outer end (1)."""
    arch = -0.055 * face.brow_arch * square(out - 0.25) + 0.02 * face.brow_arch
    height = 0.268 + 0.09 * motion.brow + arch + face.brow_tilt * out
    return height - 0.03 * jnp.clip(-motion.brow, 0, 1) * jnp.clip(-out, 0, 1)


def brow_cover(x, y, z, person: Person, motion: Motion):
    """Share of the skin that the eyebrow hides, [0, 1]; head axes."""
    face = person.face
    out = (jnp.abs(x) - head.eye_centre(face) - 0.02) / 0.215
    height = brow_height(out, face, motion)
    thick = 0.034 * face.brow_thickness * (1.12 - 0.42 * out)
    hairs = 0.62 + 0.5 * noise(60 * x + 40 * y * jnp.sign(x), 25 * y, 20 * z)
    band = jnp.exp(-square(square((y - height) / thick))) * step(16 * (1 - jnp.abs(out)))
    return jnp.clip(band * hairs * step(20 * (z - 0.1)), 0, 1)


def _skin(x, y, z, person: Person, motion: Motion):
    face, ax, front = person.face, jnp.abs(x), step(20 * (z - 0.1))
    fine, blotches = noise(26 * x, 26 * y, 26 * z), noise(5 * x, 5 * y, 5 * z)
    flush = face.blush * jnp.exp(-square((ax - 0.38) / 0.2) - square((y + 0.22) / 0.17)) * front
    flush = flush + 0.45 * jnp.exp(-square(x / 0.12) - square((y + 0.26) / 0.1)) * front
    flush = 0.28 * (flush + 0.4 * step(30 * (ax - 0.74)))
    tone = 0.955 + 0.05 * fine + 0.06 * (blotches - 0.5)
    colour = [face.skin[i] * (1 - flush * (0.1, 0.75, 0.8)[i]) * tone for i in range(3)]

    near = jnp.exp(-square((ax - 0.27) / 0.2) - square((y + 0.10) / 0.16)) + 0.25
    spots = step(40 * (noise(34 * x, 34 * y, 34 * z) - 0.70)) * near * front
    colour = mix(
        colour,
        [face.skin[i] * (0.72, 0.55, 0.45)[i] for i in range(3)],
        0.6 * face.freckles * spots,
    )
    return scale(colour, 1 - _lines(ax, y, face, motion) * front)


def _lines(ax, y, face, motion: Motion):
    """Darkening by lines of age and expression."""
    raised = jnp.clip(motion.brow, 0, 1)
    wave = y + 0.02 * jnp.cos(6 * ax)
    forehead = (bump((wave - 0.46) / 0.012) + bump((wave - 0.56) / 0.012)) * step(25 * (0.36 - ax))
    smile = jnp.clip(motion.smile, 0, 1)
    down = jnp.clip((-0.30 - y) / 0.30, 0, 1)
    fold = bump((ax - (0.165 + 0.20 * down + 0.03 * smile)) / 0.016)
    fold = fold * jnp.clip((-0.29 - y) / 0.08, 0, 1) * jnp.clip((y + 0.66) / 0.1, 0, 1)
    ray = jnp.abs(y - 0.05) - 0.35 * (ax - 0.47)
    crow = (bump(ray / 0.010) + bump((y - 0.05) / 0.010)) * bump((ax - 0.53) / 0.05)
    bag = bump((y + 0.10 - 0.35 * square(ax - 0.28)) / 0.015) * bump((ax - 0.28) / 0.12)
    return (
        forehead * (0.10 * face.age + 0.16 * raised * (0.3 + face.age))
        + fold * (0.13 * face.age + 0.15 * smile)
        + crow * face.age * (0.08 + 0.12 * smile)
        + 0.14 * bag * face.age
    )


def _mouth(colour, x, y, z, person: Person, motion: Motion):
    """Lips, teeth and the line between the lips over the skin's colour."""
    face, ax, front = person.face, jnp.abs(x), step(20 * (z - 0.1))
    m = head.mouth(ax, face, motion)
    lips = step(70 * (m.upper - y)) * step(70 * (y - m.lower)) * step(30 * (1.0 - m.u)) * front
    creases = 0.92 + 0.16 * noise(60 * x, 12 * y, 12 * z)
    colour = mix(colour, scale(list(face.lip_colour), creases), lips)
    high = jnp.maximum(0.095 * m.gap + 0.002, 0.002)
    cavity = square((y - m.line + 0.042 * motion.open) / high) + square(ax / (0.93 * m.half_width))
    inside = step(8 * (1 - cavity)) * jnp.clip(motion.open * 16 - 0.6, 0, 1) * front
    teeth = step(80 * (y - (m.line + 0.020 * motion.open - 0.028))) * step(60 * (0.86 - m.u))
    gaps = 1 - 0.12 * bump((jnp.mod(ax + 0.021, 0.042) - 0.021) / 0.004)
    colour = mix(colour, mix(_GUMS, scale(_TEETH, gaps), teeth), inside)
    line = bump((y - m.line) / 0.010) * step(25 * (1.03 - m.u))
    corner = jnp.exp(-square((ax - m.half_width) / 0.028) - square((y - m.line) / 0.022))
    shut = (1 - jnp.clip(12 * motion.open, 0, 1)) * front
    return scale(colour, 1 - (0.55 * line * shut + 0.35 * corner * front * (1 - 0.5 * line)))


def _eye(x, y, z, person: Person, motion: Motion):
    """Colour of eyeball and lids; which of the two."""
    face, ax = person.face, jnp.abs(x)
    upper, lower = head.lids(x, y, face, motion)
    height = (y - head.EYE_Y) / head.EYE_RADIUS
    below_upper, above_lower = upper - height, height - lower
    lid = (below_upper < 0) | (above_lower < 0)
    gaze = unit(motion.gaze_x, motion.gaze_y, jnp.ones_like(motion.gaze_x))
    side = (ax - head.eye_centre(face)) * jnp.sign(x)
    q = unit(side, y - head.EYE_Y, z - head.EYE_Z)
    angle = jnp.arccos(jnp.clip(dot(q, gaze), -1, 1))
    iris, pupil = step(50 * (IRIS_ANGLE - angle)), step(70 * (0.16 - angle))
    rays = (0.55 + 2.3 * angle) * (0.8 + 0.4 * noise(30 * q[0], 30 * q[1], 5 * q[2]))
    ball = mix([0.90, 0.885, 0.87], scale(list(face.eye_colour), rays), iris)
    ring = 1 - 0.6 * bump((angle - IRIS_ANGLE + 0.01) / 0.06)
    shadow = 1 - 0.35 * jnp.exp(-jnp.clip(below_upper, 0, None) / 0.06)
    ball = scale(ball, ring * (1 - 0.97 * pupil) * shadow)
    inner = bump((ax - head.eye_centre(face) + 0.16) / 0.022)
    ball = mix(ball, [0.75, 0.45, 0.42], 0.7 * inner)
    made_up = face.lid_shadow * jnp.clip(1 - (height - upper) / 0.5, 0, 1)
    lids = [face.skin[i] * (0.95 - 0.35 * made_up * (1 - face.lid_colour[i])) for i in range(3)]
    lash = bump((height - upper - 0.03) / 0.075) * (0.35 + 0.65 * face.lashes)
    rim = 0.35 * bump((lower - height) / 0.05)
    fold = 0.22 * bump((height - upper - 0.36) / 0.06)
    lids = scale(lids, (1 - 0.85 * lash) * (1 - fold) * (1 - rim))
    return [jnp.where(lid, a, b) for a, b in zip(lids, ball)], lid


IRIS_ANGLE = 0.38  # radians from the eye's axis to the rim of the iris


def _strands(x, y, z, wave):
    """Light and dark strands running down from the crown, about 0 to 1."""
    radius = distances.length(x, y, z)
    around = jnp.arctan2(x, z + 0.3) + 0.35 * wave * jnp.sin(5 * y + 2 * x)
    return 0.6 * noise(42 * around, 2.2 * y + 3 * around, 9 * radius) + 0.4 * noise(
        15 * around, 1.1 * y, 4 * radius
    )


def _hair(x, y, z, strands, person: Person):
    hair = person.hair
    streak = step(25 * (noise(60 * jnp.arctan2(x, z + 0.3), 2 * y, 7 * z) - 1 + hair.grey))
    base = mix(list(hair.colour), [0.62, 0.62, 0.64], hair.grey * (0.5 + 0.5 * streak))
    colour = scale(base, 0.45 + 0.9 * strands)
    # A shaved head is skin with short dark dots, fading out at the edge of the hair.
    grain = 0.42 + 0.40 * noise(70 * x, 70 * y, 70 * z)
    edge = accessories.hairline(x, jnp.abs(x), person) - 0.02
    thin = grain * jnp.clip(jnp.where(z > 0.2, (y - edge) / 0.10, 1.0), 0.1, 1)
    shaved = mix(list(person.face.skin), list(0.8 * hair.colour), jnp.clip(thin, 0, 1))
    return mix(colour, shaved, hair.stubble)


def _beard(x, y, z, person: Person):
    beard = person.beard
    fibres = noise(55 * x, 22 * y, 40 * z)
    base = mix(list(beard.colour), [0.62, 0.62, 0.64], 0.8 * beard.grey * step(20 * (fibres - 0.4)))
    full = scale(base, 0.45 + 0.9 * fibres)
    dots = 0.30 + 0.45 * noise(75 * x, 75 * y, 75 * z)
    return mix(mix(list(person.face.skin), base, dots), full, jnp.clip(4 * beard.length, 0, 1))


def _clothes(scene_point, neck_point, person: Person):
    c = person.clothes
    weave = 0.86 + 0.2 * noise(*(90 * p for p in scene_point))
    x, y, z = neck_point
    bands = step(60 * jnp.sin(16 * y))
    colour = mix(list(c.colour), list(c.second), c.stripes * bands)
    trim = ((c.kind > 0.5) & (c.kind < 2.5)) * step(60 * (y + 1.66 + 0.25 * z))
    colour = mix(colour, list(c.second), 0.85 * trim)
    placket = (c.kind > 1.5) & (c.kind < 2.5)
    colour = scale(colour, 1 - 0.45 * placket * bump((jnp.abs(x) - 0.10) / 0.012))
    zip_ = (c.kind > 2.5) * bump(x / 0.02)
    return scale(mix(colour, [0.6, 0.6, 0.62], 0.6 * zip_), weave)


def _hat(x, y, z, person: Person):
    hat = person.hat
    around = jnp.arctan2(x, z + 0.3)
    knit = ((hat.kind < 0.5) | (hat.kind > 4.5)) * 0.22 * jnp.abs(jnp.sin(24 * around))
    band = ((hat.kind > 0.5) & (hat.kind < 1.5)) | ((hat.kind > 3.5) & (hat.kind < 4.5))
    ribbon = band * step(90 * (0.72 - y)) * step(90 * (y - 0.58))
    cuff = (hat.kind < 0.5) * step(60 * (0.70 - y))
    panel = ((hat.kind > 1.5) & (hat.kind < 2.5)) * step(60 * (z - 0.82))
    colour = mix(list(hat.colour), list(hat.band), jnp.clip(ribbon + cuff + panel, 0, 1))
    return scale(colour, 0.80 + knit + 0.12 * noise(26 * x, 26 * y, 26 * z))


def surface(point, direction, material, field, person: Person, motion: Motion, at: Pose):
    """Colour of surface points as the camera sees them.

    Args:
      point: scene points; direction: unit vectors of the camera's rays.
      material: int32, SKIN ... HAT of `scene`.
      field: signed distance of the whole scene as a function of x, y, z.
    """
    local = scene.to_head(*point, at)
    skin = _mouth(_skin(*local, person, motion), *local, person, motion)
    skin = mix(skin, list(person.face.brow_colour), 0.88 * brow_cover(*local, person, motion))
    eye, lid = _eye(*local, person, motion)
    strands = _strands(*local, person.hair.wave)
    albedos = [
        skin, eye, _clothes(point, distances.apply(at.neck.T, *point), person),
        _hair(*local, strands, person), _beard(*local, person),
        [channel + 0 * local[0] for channel in person.glasses.colour], _hat(*local, person),
    ]  # fmt: skip
    albedo = [
        sum(jnp.where(material == m + 1, a[i], 0.0) for m, a in enumerate(albedos))
        for i in range(3)
    ]
    albedo = jax.lax.optimization_barrier(albedo)
    return _lit(albedo, point, direction, material, lid, strands, field, person)


def _lit(albedo, point, direction, material, lid, strands, field, person: Person):
    lighting = person.lighting
    normal = gradient(point, field)
    light = lighting.light

    def open_to_sky(i, state):
        """Samples along the normal (ambient occlusion), then along the light (soft shadow)."""
        wide, narrow, shadow = state
        reach = jnp.where(i < 2, jnp.where(i == 0, 0.22, 0.07), 0.06 + 0.15 * (i - 2))
        lift = jnp.where(i < 2, reach, 0.02)
        towards = jnp.where(i < 2, 0.0, reach)
        d = field(*(p + lift * n + towards * l for p, n, l in zip(point, normal, light)))
        missing = jnp.clip(reach - d, 0, None) / reach
        wide = jnp.where(i == 0, jnp.clip(1 - 1.1 * missing, 0, 1), wide)
        narrow = jnp.where(i == 1, jnp.clip(1 - 1.2 * missing, 0.35, 1), narrow)
        passed = jnp.where(i < 2, 1.0, jnp.clip(0.5 + 7 * d / reach, 0, 1))
        return wide, narrow, jnp.minimum(shadow, passed)

    one = jnp.ones_like(point[0])
    wide, narrow, shadow = jax.lax.fori_loop(0, 2 + _SHADOW_STEPS, open_to_sky, (one, one, one))
    occlusion = (0.6 * wide + 0.4) * narrow
    facing = dot(normal, light)
    is_skin = (material == scene.SKIN) | ((material == scene.EYE) & lid)
    # Skin scatters red light farthest round into the shade.
    wrapped = [jnp.where(is_skin, a, 0.35) for a in (0.45, 0.25, 0.18)]
    diffuse = [jnp.clip((facing + a) / (1 + a), 0, 1) * (0.35 + 0.65 * shadow) for a in wrapped]
    upward = 0.5 + 0.5 * normal[1]
    fill = jnp.clip(-0.7 * normal[0] + 0.1 * normal[1] + 0.6 * normal[2], 0, 1)
    around = [
        (upward * sky + (1 - upward) * ground + fill * bounce) * occlusion * lighting.ambient
        for sky, ground, bounce in ((0.34, 0.26, 0.16), (0.38, 0.20, 0.17), (0.46, 0.17, 0.20))
    ]
    half = unit(*(l - d for l, d in zip(light, direction)))
    aligned = jnp.clip(dot(normal, half), 0, 1)
    gloss = jnp.where(is_skin, 0.09 * aligned**22, 0.0)
    gloss = gloss + jnp.where((material == scene.EYE) & ~lid, 1.1 * aligned**220, 0.0)
    gloss = gloss + jnp.where(material == scene.GLASSES, 0.6 * aligned**40, 0.0)
    # Hair shines across its strands (J. Kajiya and T. Kay, 1989), which run downwards.
    along = unit(-normal[1] * normal[0], 1 - normal[1] * normal[1], -normal[1] * normal[2])
    across = jnp.sqrt(jnp.clip(1 - square(dot(along, half)), 1e-6, 1))
    shine = (0.20 * across**60 + 0.12 * across**18) * (0.3 + strands) * jnp.clip(facing + 0.4, 0, 1)
    gloss = gloss + jnp.where(material == scene.HAIR, shine * (1 - person.hair.stubble), 0.0)
    grazing = (1 - jnp.clip(-dot(normal, direction), 0, 1)) ** 3
    grazing = 0.10 * grazing * occlusion * (material != scene.GLASSES)
    return [
        albedo[i] * (lighting.light_colour[i] * diffuse[i] * 1.05 + around[i])
        + gloss * shadow * lighting.light_colour[i] + grazing * (0.8, 0.9, 1.0)[i]
        for i in range(3)
    ]  # fmt: skip


def gradient(point, field):
    """Unit gradient of a field, the surface's normal, from four samples on a tetrahedron."""
    corners = jnp.array(((1, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1)), jnp.float32)

    def add(i, total):
        k = corners[i]
        d = field(*(p + NORMAL_STEP * k[j] for j, p in enumerate(point)))
        return [total[j] + k[j] * d for j in range(3)]

    return unit(*jax.lax.fori_loop(0, 4, add, [jnp.zeros_like(point[0])] * 3))


def background(u, v, person: Person):
    """Out-of-focus backdrop at picture coordinates u, v in [-1, 1]."""
    lighting = person.lighting
    k, s = lighting.background_scale, lighting.background_seed
    blend = 0.7 * noise(u * k + s, v * k + s, 0 * u + s) + 0.3 * step(
        2.5 * (v - 0.3 + 0.2 * jnp.sin(s))
    )
    vignette = 1 - 0.12 * (u * u + v * v)
    return scale(mix(list(lighting.background[0]), list(lighting.background[1]), blend), vignette)


def behind_lens(colour, x, y, person: Person, yaw):
    """What a lens does to the colour behind it: tint and a slanted reflection; head axes."""
    g = person.glasses
    streak = step(14 * (jnp.sin(5 * x + 6 * y + 0.1 * yaw) - 0.86))
    glint = (0.30 * streak + 0.04) * (0.5 + 0.5 * (1 - g.tint))
    return [
        c * (1 - g.tint * (0.95, 0.96, 0.97)[i]) + 0.8 * glint * person.lighting.light_colour[i]
        for i, c in enumerate(colour)
    ]


def developed(colour):
    """Linear light -> [0, 1] as a camera would store it: highlights rolled off, gamma."""
    lit = [jnp.clip(c, 0, None) for c in colour]
    return [jnp.clip(c / (1 + 0.18 * c), 0, 1) ** 0.8 for c in lit]
