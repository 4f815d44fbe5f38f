"""Where the 478 points of the face mesh lie on a synthetic head: exact, even where hidden.

Three kinds of points. Eyelids, irises and lips follow the curves that draw them (`head.lids`,
`head.mouth`). Every other point is a spot on the mean head, `assets/head_mesh.npy`, carried to this
head by a thin-plate spline through landmarks that the parameters place, then dropped to its height
over the skin (the network's mesh is smoother than a face: it floats a little). The spots say which
place each index means: they were triangulated once from what the face mesh network sees on rendered
heads (benchmarks/mean_mesh.py); how they move and how they differ between people comes from the
geometry alone.
"""

import functools
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from input_pipeline.faces.landmarker import EYES
from input_pipeline.synthetic.motion import CALM, Motion
from input_pipeline.synthetic.people import Face, Person
from input_pipeline.synthetic.renderer import distances, head, render, scene, shading

MEAN_MESH = Path(__file__).parents[2] / "assets" / "head_mesh.npy"

# Rings of the lips from the outer edge to the opening, each upper then lower, right to left.
_UPPER_LIPS = (
    (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291),
    (76, 184, 74, 73, 72, 11, 302, 303, 304, 408, 306),
    (62, 183, 42, 41, 38, 12, 268, 271, 272, 407, 292),
    (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308),
)
_LOWER_LIPS = (
    (146, 91, 181, 84, 17, 314, 405, 321, 375),
    (77, 90, 180, 85, 16, 315, 404, 320, 307),
    (96, 89, 179, 86, 15, 316, 403, 319, 325),
    (95, 88, 178, 87, 14, 317, 402, 318, 324),
)
_DROP_STEPS = 6
_FLOAT = 0.15  # most that a spot may lie above or below the skin
_STIFFNESS = 1e-4
_HIDDEN = 0.08  # a point so far behind the first surface on its ray is hidden


class Keypoints(NamedTuple):
    """The truth about a face.

    Attributes:
      points: float32 [478, 3] pixels (a pixel's centre is at its index), z in the same scale,
        growing away from the camera, 0 at the depth of the head's origin.
      visible: bool [478], False where something hides the point: hair, beard, hat, the rim of
        glasses (not their lenses), or the face itself.
    """

    points: jax.Array
    visible: jax.Array


@functools.partial(jax.jit, static_argnames="size")
def keypoints(person: Person, motion: Motion, size: int) -> Keypoints:
    """Keypoints of one frame in a picture of `size` pixels a side."""
    at = scene.pose_of(motion)
    x, y, z = distances.apply(at.head, *mesh(person.face, motion).T)
    x, y, z = (a + s for a, s in zip((x, y, z), at.shift))
    pixels = render.project(x, y, z, size)
    scale = size / (2 * render.FIELD * (render.CAMERA[2] - at.shift[2]))
    depth = (at.shift[2] - z) * scale
    return Keypoints(
        jnp.concatenate([pixels, depth[:, None]], -1).astype(jnp.float32),
        _visible((x, y, z), person, motion, at),
    )


def keypoints_of_clip(person: Person, motion: Motion, size: int) -> Keypoints:
    """`keypoints` for motion arrays [F]: numpy arrays with a leading axis F."""
    frames = [keypoints(person, motion.at(i), size) for i in range(len(motion.yaw))]
    return jax.tree.map(lambda *arrays: np.stack(arrays), *frames)


def mesh(face: Face, motion: Motion, mean: jax.Array | None = None) -> jax.Array:
    """[478, 3] in head axes. mean: spots on the mean head, [478, 3], by default the fitted ones."""
    mean = jnp.asarray(_mean_mesh() if mean is None else mean, jnp.float32)
    still = landmarks(mean_face(), CALM)
    moved = _spline(mean[:, :2], still) @ (landmarks(face, motion) - still)
    points = mean.at[:, :2].add(moved)

    height = jnp.clip(head.skin(*mean.T, mean_face(), CALM), -_FLOAT, _FLOAT)

    def distance(x, y, z):
        return head.skin(x, y, z, face, motion) - height

    def drop(_, p):
        p = tuple(p.T)
        d, normal = distance(*p), shading.gradient(p, distance)
        return jnp.stack([a - d * n for a, n in zip(p, normal)], -1)

    points = jax.lax.fori_loop(0, _DROP_STEPS, drop, points)
    points = _lip_points(points, mean, face, motion)
    return _irises(_eyelids(points, mean, face, motion), face, motion)


def landmarks(face: Face, motion: Motion) -> jax.Array:
    """[A, 2] places in front view that parameters and expression move: what carries the mesh."""
    w, lift = face.width, jnp.clip(motion.smile, 0, 1)
    centre, radius = head.eye_centre(face), head.EYE_RADIUS
    middle = head.mouth(jnp.zeros(()), face, motion)
    half = middle.half_width
    quarter, corner = (head.mouth(share * half, face, motion) for share in (0.55, 0.97))
    tip = -0.26 - 0.05 * (face.nose_length - 1)
    wing = 0.15 * face.nose_width + 0.008 * lift
    down = 0.13 * motion.open
    jaw = face.jaw * w
    one_side = []
    for out in (-0.95, 0.0, 0.95):
        upper, lower = head.lids(jnp.asarray(centre + out * radius), 0.0, face, motion)
        for lid in (upper, lower)[: 1 if out else 2]:
            one_side.append((centre + out * radius, head.EYE_Y + radius * lid))
    for out in (-0.9, -0.3, 0.3, 0.9):
        one_side.append((centre + 0.02 + 0.215 * out, shading.brow_height(out, face, motion)))
    one_side += [
        (wing, -0.275), (half, corner.line), (0.55 * half, quarter.upper),
        (0.55 * half, quarter.lower), (0.17 * face.chin, -0.95 - down - 0.1 * (face.chin - 1)),
        (0.50 * jaw, -0.72 - 0.8 * down), (0.60 * jaw, -0.40 - 0.3 * down), (0.74 * w, 0.0),
        (0.70 * w, 0.40), (0.42 * w, 0.72), (0.36 * w + 0.02 * lift, -0.20 + 0.06 * lift),
    ]  # fmt: skip
    centred = [(0.0, 0.72), (0.0, 0.17), (0.0, tip), (0.0, -0.36), (0.0, middle.upper)]
    centred += [(0.0, middle.lower), (0.0, -1.03 - down - 0.22 * (face.chin - 1))]
    both = [(sign * x, y) for sign in (1, -1) for x, y in one_side] + centred
    return jnp.stack([jnp.stack([jnp.asarray(v, jnp.float32) for v in p]) for p in both])


def _lip_points(points, mean, face: Face, motion: Motion):
    """Puts the rings of the lips between the drawn edges."""
    still = head.mouth(jnp.abs(mean[:, 0]), mean_face(), CALM)
    height = mean[:, 2] - head.lip_front(jnp.abs(mean[:, 0]), still, CALM)
    for rings, upper in ((_UPPER_LIPS, True), (_LOWER_LIPS, False)):
        for ring, indices in enumerate(rings):
            index = np.array(indices)
            share = 1 - ring / (len(rings) - 1)
            # The corners of inner rings lie a little inside those of the outer ring.
            x = mean[index, 0] / still.half_width
            m0 = head.mouth(jnp.zeros(()), face, motion)
            x = jnp.clip(x, -1.0, 1.0) * m0.half_width
            m = head.mouth(jnp.abs(x), face, motion)
            half_gap = (
                0.095 * m.gap * jnp.sqrt(jnp.clip(1 - (x / (0.93 * m.half_width)) ** 2, 0, 1))
            )
            inner = m.line - 0.042 * motion.open * m.taper + (half_gap if upper else -half_gap)
            outer = m.upper if upper else m.lower
            y = inner + share * (outer - inner)
            z = head.lip_front(jnp.abs(x), m, motion) + height[index]
            points = points.at[index].set(jnp.stack([x, y, z], -1))
    return points


def _eyelids(points, mean, face: Face, motion: Motion):
    """Puts the lids' edges on the lids."""
    radius, centre = head.EYE_RADIUS, head.eye_centre(face)
    mean_centre = head.eye_centre(mean_face())
    for _, _, _, lids in EYES:
        index = np.array(lids)
        out = jnp.clip((jnp.abs(mean[index, 0]) - mean_centre) / radius, -0.95, 0.95)
        x = centre + out * radius
        upper, lower = head.lids(x, 0.0, face, motion)
        # The order of EYES: outer corner, lower lid, inner corner, upper lid.
        is_lower = np.arange(len(lids)) < 9
        y = head.EYE_Y + radius * jnp.where(is_lower, lower, upper)
        rest = (radius + 0.017) ** 2 - (out * radius) ** 2 - (y - head.EYE_Y) ** 2
        z = head.EYE_Z + jnp.sqrt(jnp.clip(rest, 0, 1))
        side = jnp.sign(mean[index, 0])
        points = points.at[index].set(jnp.stack([side * x, y, z], -1))
    return points


def _irises(points, face: Face, motion: Motion):
    """Centre of each iris, then four points of its rim: towards the nose, up, outwards, down."""
    gaze = jnp.stack(shading.unit(motion.gaze_x, motion.gaze_y, jnp.ones_like(motion.gaze_x)))
    right = jnp.stack([gaze[2], jnp.zeros_like(gaze[2]), -gaze[0]])
    up = jnp.cross(gaze, right)
    ring = jnp.array([(0, 0), (1, 0), (0, 1), (-1, 0), (0, -1)], jnp.float32)
    size = jnp.sin(shading.IRIS_ANGLE)
    for outer, _, iris, _ in EYES:
        side = -1.0 if outer == 33 else 1.0
        middle = jnp.stack([side * head.eye_centre(face), head.EYE_Y, head.EYE_Z])
        depth = jnp.where(jnp.arange(5) == 0, 1.0, jnp.cos(shading.IRIS_ANGLE))
        offsets = depth[:, None] * gaze + size * (ring[:, 1:] * up - ring[:, :1] * side * right)
        points = points.at[iris : iris + 5].set(middle + head.EYE_RADIUS * offsets)
    return points


def _visible(points, person: Person, motion: Motion, at: scene.Pose) -> jax.Array:
    """Marches from the camera to each point: is what it meets there the skin or an eye?"""
    offset = [p - c for p, c in zip(points, render.CAMERA)]
    reach = distances.length(*offset)
    direction = [o / reach for o in offset]

    def advance(_, t):
        return t + jnp.clip(
            0.92 * scene.nearest(*render.along(direction, t), person, motion, at), 0, 0.9
        )

    t = jax.lax.fori_loop(0, 48, advance, jnp.full_like(reach, render.NEAR))
    seen = jnp.stack(scene.distances(*render.along(direction, t), person, motion, at)).argmin(0)
    bare = (seen == scene.SKIN - 1) | (seen == scene.EYE - 1)
    return bare & (t > reach - _HIDDEN)


@functools.cache
def mean_face() -> Face:
    colour = np.full(3, 0.5, np.float32)
    factors = {name: np.float32(1) for name in Face.__dataclass_fields__}
    plain = dict.fromkeys(("eye_tilt", "brow_tilt", "lid_shadow", "freckles", "age"), np.float32(0))
    plain |= dict.fromkeys(("lashes", "blush"), np.float32(0.5))
    skin, lips, eye = ((0.90, 0.69, 0.55), (0.70, 0.35, 0.32), (0.24, 0.13, 0.07))
    colours = dict(skin=skin, lip_colour=lips, eye_colour=eye, brow_colour=(0.12, 0.08, 0.06))
    colours = {name: np.float32(value) for name, value in colours.items()}
    return Face(**{**factors, **plain, **colours, "lid_colour": colour})


@functools.cache
def _mean_mesh() -> np.ndarray:
    return np.load(MEAN_MESH)


def _spline(points: jax.Array, centres: jax.Array) -> jax.Array:
    """Thin-plate spline (F. Bookstein, 1989) as a matrix [P, A]: values at the centres [A, 2] to
    values at the points [P, 2]. A little stiffness keeps close centres from fighting."""

    def kernel(a, b):
        r2 = ((a[:, None] - b) ** 2).sum(-1)
        return 0.5 * r2 * jnp.log(r2 + 1e-9)

    def affine(a):
        return jnp.concatenate([jnp.ones((len(a), 1)), a], 1)

    n = len(centres)
    stiff = kernel(centres, centres) + _STIFFNESS * jnp.eye(n)
    system = jnp.block([[stiff, affine(centres)], [affine(centres).T, jnp.zeros((3, 3))]])
    basis = jnp.concatenate([kernel(points, centres), affine(points)], 1)
    return basis @ jnp.linalg.solve(system, jnp.eye(n + 3)[:, :n])
