"""Camera and ray marching: a person in a pose -> picture, masks and depth.

Sphere tracing (J. Hart, 1996) over tiles of pixels: first one ray per tile, as thick as the tile,
finds where the tile's rays may start; then the rays of a tile march together until all have
arrived. Pixels on edges are rendered again with four rays each.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from input_pipeline.synthetic.motion import Motion
from input_pipeline.synthetic.people import KINDS, Person
from input_pipeline.synthetic.renderer import accessories, distances, scene, shading

CAMERA = (0.0, -0.02, 6.2)  # looks along -z
FIELD = 0.279  # half the picture's side at distance 1
TILE = 16
NEAR, _END = 3.9, 8.6  # distances from the camera between which all things lie
_ARRIVED = 0.004  # about half a pixel at 256
_COARSE_STEPS, _STEPS = 24, 40
_EDGE_SHARE = 8  # one pixel in so many is at most taken for an edge pixel
_DEPTH_EDGE, _LUMA_EDGE = 0.06, 0.15
LAYERS = 10
_SUBPIXELS = ((-0.125, -0.375), (0.375, -0.125), (-0.375, 0.125), (0.125, 0.375))


class Picture(NamedTuple):
    """What the camera sees, S pixels a side.

    Attributes:
      colour: float32 [S, S, 3] in [0, 1].
      layers: float32 [S, S, LAYERS], share of the pixel: the 8 materials of `scene` (which add up
        to 1), then lenses and eyebrows, which lie over other materials.
      depth: float32 [S, S], head units from the camera along the ray; infinite for the background.
    """

    colour: jax.Array
    layers: jax.Array
    depth: jax.Array

    def mask(self, kind: str) -> jax.Array:
        """float32 [..., S, S] in [0, 1]: hair, glasses (with their lenses), beard, hat or brows."""
        if kind == "brows":
            return self.layers[..., 9]
        if kind == "glasses":
            return jnp.maximum(self.layers[..., scene.GLASSES], self.layers[..., 8])
        index = {"hair": scene.HAIR, "beard": scene.BEARD, "hat": scene.HAT}[kind]
        return self.layers[..., index]


@functools.partial(jax.jit, static_argnames=("size", "oversample"))
def render(person: Person, motion: Motion, size: int, oversample: int = 1) -> Picture:
    """Renders one frame.

    Args:
      size: side of the picture; size * oversample must be a multiple of 16.
      oversample: renders so many times larger, then averages: textures finer than a pixel stop
        shimmering. Edges are smooth without it.

    Raises:
      ValueError: a size that the tiles do not divide.
    """
    side = size * oversample
    if side % TILE:
        raise ValueError(f"size {size} x oversample {oversample}: must be a multiple of {TILE}")
    picture = _antialiased(person, motion, side)
    if oversample == 1:
        return picture

    def average(a):
        return a.reshape(size, oversample, size, oversample, -1).mean((1, 3))

    depth = picture.depth.reshape(size, oversample, size, oversample).min((1, 3))
    return Picture(average(picture.colour), average(picture.layers), depth)


@functools.partial(jax.jit, static_argnames=("size", "oversample"))
def render_together(person: Person, motion: Motion, size: int, oversample: int) -> Picture:
    return jax.vmap(lambda frame: render(person, frame, size, oversample))(motion)


def render_clip(person: Person, motion: Motion, size: int, oversample: int = 1) -> Picture:
    """`render` for motion arrays [F]: numpy arrays with a leading axis F.

    An accelerator renders all frames at once. A CPU renders one after another: then nothing is
    spent on what the person does not wear, and all clips share one compiled program.
    """
    if jax.default_backend() != "cpu":
        return jax.tree.map(np.asarray, render_together(person, motion, size, oversample))
    frames = [render(person, motion.at(i), size, oversample) for i in range(len(motion.yaw))]
    return jax.tree.map(lambda *arrays: np.stack(arrays), *frames)


def project(x, y, z, size: int) -> jax.Array:
    """Scene points -> pixels [..., 2] of the picture; a pixel's centre is at its index."""
    away = CAMERA[2] - z
    u, v = (x - CAMERA[0]) / (away * FIELD), (y - CAMERA[1]) / (away * FIELD)
    return jnp.stack([(u + 1) * size / 2 - 0.5, (1 - v) * size / 2 - 0.5], -1)


def to_uint8(colour: jax.Array) -> np.ndarray:
    """Colours in [0, 1] -> uint8, rounded."""
    return np.round(np.asarray(colour) * 255).astype(np.uint8)


def ray(u, v):
    """Unit direction through picture coordinates u (right) and v (up) in [-1, 1]."""
    return shading.unit(u * FIELD, v * FIELD, -jnp.ones_like(u))


def along(direction, t):
    """Points at distance t from the camera."""
    return tuple(c + t * d for c, d in zip(CAMERA, direction))


class _Rays(NamedTuple):
    """R rays in groups that march together, [R / 256, 256] each: picture coordinates, where on the
    ray to start, and the number of the pixel they count for (out of range: none)."""

    u: jax.Array
    v: jax.Array
    start: jax.Array
    pixel: jax.Array


def _antialiased(person: Person, motion: Motion, side: int) -> Picture:
    """Two passes, one ray for each pixel, then four more for pixels on edges.

    Both passes are one loop over the same code, because compiling it is what takes long.
    """
    at = scene.pose_of(motion)
    first_rays = _one_per_pixel(person, motion, at, side)

    def render_pass(seen, first):
        rays = jax.lax.cond(first, lambda: first_rays, lambda: _through_edges(seen, first_rays))
        tiles = jax.lax.map(lambda tile: _shade(*tile, person, motion, at), rays[:3])
        values = tiles.swapaxes(1, 2).reshape(side * side, -1)
        pixel = rays.pixel.reshape(-1)
        total = jnp.zeros_like(seen).at[pixel].add(values, mode="drop")
        count = jnp.zeros((side * side, 1)).at[pixel].add(1.0, mode="drop")
        fresh = jnp.where(count > 0, total / jnp.maximum(count, 1), seen)
        # Depth of an edge is that of its middle: a mean of near and far is nowhere.
        depth = jnp.where(first, fresh[:, -1:], seen[:, -1:])
        return jnp.concatenate([fresh[:, :-1], depth], 1), None

    blank = jnp.zeros((side * side, 3 + LAYERS + 1))
    seen, _ = jax.lax.scan(render_pass, blank, jnp.array([True, False]))
    seen = seen.reshape(side, side, -1)
    depth = jnp.where(seen[..., -1] < _END, seen[..., -1], jnp.inf)
    return Picture(seen[..., :3], seen[..., 3:-1], depth)


def _one_per_pixel(person, motion, at, side: int) -> _Rays:
    grid = (jnp.arange(side, dtype=jnp.float32) + 0.5) * (2.0 / side) - 1
    u, v = (_to_tiles(a) for a in jnp.meshgrid(grid, -grid))
    pixel = _to_tiles(jnp.arange(side * side).reshape(side, side))
    return _Rays(u, v, _coarse(u, v, person, motion, at), pixel)


def _through_edges(seen, first_rays: _Rays) -> _Rays:
    """Four rays for each pixel on an edge, as many as there were in the first pass at most."""
    side = round(len(seen) ** 0.5)
    image = seen.reshape(side, side, -1)
    luma, layers = image[..., :3] @ jnp.array([0.3, 0.6, 0.1]), image[..., 3:-1]
    near = image[..., -1]
    strength = jnp.zeros_like(near)
    for axis in (0, 1):
        for shift in (1, -1):
            step = jnp.abs(jnp.roll(near, shift, axis) - near) > _DEPTH_EDGE
            other = jnp.abs(jnp.roll(layers, shift, axis) - layers).sum(-1) > 0.5
            bright = jnp.abs(jnp.roll(luma, shift, axis) - luma)
            strength = jnp.maximum(strength, jnp.where(step | other, 1 + bright, bright))
    count = side * side // _EDGE_SHARE
    weakest = -jnp.sort(-strength, axis=None)[count - 1]
    wanted = (strength > jnp.maximum(_LUMA_EDGE, weakest)).reshape(-1)
    # In the order of the tiles, so that rays that march together stay close to each other.
    order = first_rays.pixel.reshape(-1)
    place = jnp.nonzero(wanted[order], size=count, fill_value=-1)[0]
    index = order[jnp.maximum(place, 0)]
    row, column = index // side, index % side
    shortest = near
    for axis in (0, 1):
        around = [jnp.roll(shortest, shift, axis) for shift in (1, -1)]
        shortest = jnp.minimum(shortest, jnp.minimum(*around))
    start = jnp.where(place >= 0, shortest[row, column] - 0.1, 2 * _END)
    right, down = np.array(_SUBPIXELS, np.float32).T[:, :, None]
    u = (column + 0.5 + right) * (2.0 / side) - 1
    v = 1 - (row + 0.5 + down) * (2.0 / side)
    pixel = jnp.where(place >= 0, index, side * side)

    def padded(a, value):
        a = jnp.broadcast_to(a, u.shape).reshape(-1)
        a = jnp.pad(a, (0, side * side - a.size), constant_values=value)
        return a.reshape(first_rays.u.shape)

    return _Rays(
        padded(u, 0).astype(jnp.float32), padded(v, 0).astype(jnp.float32),
        padded(start, 2 * _END).astype(jnp.float32), padded(pixel, side * side),
    )  # fmt: skip


def _to_tiles(a: jax.Array) -> jax.Array:
    """[S, S] -> [tiles, TILE * TILE]."""
    n = len(a) // TILE
    return a.reshape(n, TILE, n, TILE).swapaxes(1, 2).reshape(n * n, TILE * TILE)


def _coarse(u, v, person, motion, at):
    """[tiles, TILE * TILE]: how far the rays of each tile can go before anything is near."""
    cu, cv = (u.max(1) + u.min(1)) / 2, (v.max(1) + v.min(1)) / 2
    direction = ray(cu, cv)
    half_tile = (u.max() - u.min()) / 2 / round(len(u) ** 0.5)
    thick = 1.5 * FIELD * half_tile

    def advance(_, t):
        d = scene.nearest(*along(direction, t), person, motion, at) - thick * t
        return jnp.where((d < 0.01) | (t > _END), t, t + 0.9 * d)

    t = jax.lax.fori_loop(0, _COARSE_STEPS, advance, jnp.full_like(cu, NEAR))
    return jnp.broadcast_to(t[:, None], u.shape)


def _shade(u, v, start, person, motion, at):
    """Along P rays that start at distance `start`: [3 + 10 + 1, P], colour, layers and depth.

    Channels come first: XLA vectorises along the last axis.
    """
    direction = ray(u, v)

    def field(x, y, z):
        return scene.nearest(x, y, z, person, motion, at)

    def running(state):
        t, d, i = state
        return (i < _STEPS) & jnp.any((d > _ARRIVED) & (t < _END))

    def advance(state):
        t, d, i = state
        d = field(*along(direction, t))
        done = (d < 0.7 * _ARRIVED) | (t > _END)
        return jnp.where(done, t, t + jnp.clip(0.92 * d, -0.1, 0.9)), d, i + 1

    t, _, _ = jax.lax.while_loop(running, advance, (start, jnp.ones_like(start), 0))
    point = along(direction, t)
    distances = jnp.stack(scene.distances(*point, person, motion, at))
    hit = (distances.min(0) < 0.02) & (t < _END)
    material = jnp.where(hit, distances.argmin(0) + 1, scene.BACKGROUND)
    far = shading.background(u, v, person)

    def surface():
        near = shading.surface(point, direction, material, field, person, motion, at)
        return [jnp.where(hit, a, b) for a, b in zip(near, far)]

    colour = jax.lax.cond(jnp.any(hit), surface, lambda: far)
    x, y, in_lens = _through_lens(direction, t, person, at)
    tinted = shading.behind_lens(colour, x, y, person, motion.yaw)
    colour = shading.developed([jnp.where(in_lens, a, b) for a, b in zip(tinted, colour)])
    brows = shading.brow_cover(*scene.to_head(*point, at), person, motion)
    materials = [material == m for m in range(8)]
    layers = [*materials, in_lens, brows * (material == scene.SKIN)]
    return jnp.stack([*colour, *layers, jnp.where(hit, t, 2 * _END)]).astype(jnp.float32)


def _through_lens(direction, t, person, at):
    """Where rays cross the plane of the lenses, in head axes, and whether inside a lens."""
    origin = scene.to_head(*CAMERA, at)
    dx, dy, dz = distances.apply(at.head.T, *direction)
    reach = (accessories.LENS_Z - origin[2]) / dz
    x, y = origin[0] + reach * dx, origin[1] + reach * dy
    inside = (accessories.lens(x, y, person) < 0) & (reach < t + 0.02) & (dz < -0.2)
    return x, y, inside & (person.glasses.worn > 0.5)


def masks(picture: Picture, person: Person) -> dict[str, np.ndarray]:
    """bool [..., S, S] for each attribute that the person wears: half of the pixel or more."""
    return {kind: np.asarray(picture.mask(kind) >= 0.5) for kind in KINDS if kind in person.worn()}
