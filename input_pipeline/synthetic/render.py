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

from input_pipeline.synthetic import attire, distances, scene, shading
from input_pipeline.synthetic.motion import Motion
from input_pipeline.synthetic.people import KINDS, Person

CAMERA = (0.0, -0.02, 6.2)  # looks along -z
FIELD = 0.279  # half the picture's side at distance 1
TILE = 16
NEAR, _END = 3.9, 8.6  # distances from the camera between which all things lie
_ARRIVED = 0.004  # about half a pixel at 256
_COARSE_STEPS, _STEPS = 24, 40
_EDGE_SHARE = 8  # one pixel in so many is at most taken for an edge pixel
_DEPTH_EDGE = 0.06
_SUBPIXELS = ((-0.125, -0.375), (0.375, -0.125), (-0.375, 0.125), (0.125, 0.375))


class Picture(NamedTuple):
    """What the camera sees, S pixels a side.

    Attributes:
      colour: float32 [S, S, 3] in [0, 1].
      layers: float32 [S, S, 10], share of the pixel: the 8 materials of `scene` (which add up to
        1), then lenses and eyebrows, which lie over other materials.
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


def _antialiased(person: Person, motion: Motion, side: int) -> Picture:
    at = scene.stance(motion)
    pixel = 2.0 / side
    grid = (jnp.arange(side, dtype=jnp.float32) + 0.5) * pixel - 1
    u, v = jnp.meshgrid(grid, -grid)
    u, v = _to_tiles(u), _to_tiles(v)
    start = _coarse(u, v, person, motion, at)
    shade = functools.partial(_shade, person=person, motion=motion, at=at)
    tiles = jax.lax.map(lambda tile: shade(*tile), (u, v, start))
    seen = _from_tiles(tiles.swapaxes(1, 2))
    return _smooth_edges(seen[..., :3], seen[..., 3:-1], seen[..., -1], shade)


def _smooth_edges(colour, layers, depth, shade) -> Picture:
    """Renders the pixels on edges again, with four rays each."""
    side = len(depth)
    pixel = 2.0 / side
    near = jnp.where(jnp.isfinite(depth), depth, _END)
    luma = colour @ jnp.array([0.3, 0.6, 0.1])
    strength = jnp.zeros_like(near)
    for axis in (0, 1):
        for shift in (1, -1):
            step = jnp.abs(jnp.roll(near, shift, axis) - near) > _DEPTH_EDGE
            other = jnp.abs(jnp.roll(layers, shift, axis) - layers).sum(-1) > 0.5
            bright = jnp.abs(jnp.roll(luma, shift, axis) - luma)
            strength = jnp.maximum(strength, jnp.where(step | other, 1 + bright, bright))
    # Raster order within tiles keeps rays that march together close to each other.
    count = side * side // _EDGE_SHARE // (TILE * TILE) * TILE * TILE
    wanted = strength > jnp.maximum(0.15, -jnp.sort(-strength, axis=None)[count - 1])
    order = _to_tiles(jnp.arange(side * side).reshape(side, side)).reshape(-1)
    chosen = jnp.nonzero(wanted.reshape(-1)[order], size=count, fill_value=-1)[0]
    valid = chosen >= 0
    index = order[jnp.where(valid, chosen, 0)]
    row, column = index // side, index % side
    shortest = near
    for axis in (0, 1):
        around = [jnp.roll(shortest, shift, axis) for shift in (1, -1)]
        shortest = jnp.minimum(shortest, jnp.minimum(*around))
    start = jnp.where(valid, shortest[row, column] - 0.1, _END + 1)
    right, down = np.array(_SUBPIXELS, np.float32).T[:, :, None]
    u = (column + 0.5 + right) * pixel - 1
    v = 1 - (row + 0.5 + down) * pixel
    rays = (u, v, jnp.broadcast_to(start, u.shape))
    rays = tuple(a.reshape(-1, TILE * TILE).astype(jnp.float32) for a in rays)
    again = jax.lax.map(lambda tile: shade(*tile), rays).swapaxes(1, 2)
    again = again.reshape(len(_SUBPIXELS), count, -1).mean(0)
    index = jnp.where(valid, index, side * side)  # out of range: dropped
    colour, layers = (
        a.reshape(side * side, -1).at[index].set(new, mode="drop").reshape(a.shape)
        for a, new in zip((colour, layers), (again[:, :3], again[:, 3:-1]))
    )
    return Picture(colour, layers, depth)


def _to_tiles(a: jax.Array) -> jax.Array:
    """[S, S] -> [tiles, TILE * TILE]."""
    n = len(a) // TILE
    return a.reshape(n, TILE, n, TILE).swapaxes(1, 2).reshape(n * n, TILE * TILE)


def _from_tiles(a: jax.Array) -> jax.Array:
    """[tiles, TILE * TILE, ...] -> [S, S, ...]."""
    n = round(len(a) ** 0.5)
    rest = a.shape[2:]
    return a.reshape(n, n, TILE, TILE, *rest).swapaxes(1, 2).reshape(n * TILE, n * TILE, *rest)


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
    return jnp.stack([*colour, *layers, jnp.where(hit, t, jnp.inf)]).astype(jnp.float32)


def _through_lens(direction, t, person, at):
    """Where rays cross the plane of the lenses, in head axes, and whether inside a lens."""
    origin = scene.to_head(*CAMERA, at)
    dx, dy, dz = distances.apply(at.head.T, *direction)
    reach = (attire.LENS_Z - origin[2]) / dz
    x, y = origin[0] + reach * dx, origin[1] + reach * dy
    inside = (attire.lens(x, y, person) < 0) & (reach < t + 0.02) & (dz < -0.2)
    return x, y, inside & (person.glasses.worn > 0.5)


def masks(picture: Picture, person: Person) -> dict[str, np.ndarray]:
    """bool [..., S, S] for each attribute that the person wears: half of the pixel or more."""
    return {kind: np.asarray(picture.mask(kind) >= 0.5) for kind in KINDS if kind in person.worn()}
