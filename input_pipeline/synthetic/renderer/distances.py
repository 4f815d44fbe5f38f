"""Signed distances (negative inside, head units): the vocabulary.

Written after the usual distance fields: ellipsoids, capsules, smooth unions (I. Quilez, "distance
functions" and "smooth minimum"). A field may underestimate; it must not overestimate by much, or
the marching steps through thin things.
"""

import jax
import jax.numpy as jnp

FAR = 9.0  # distance of what is not there


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


def when(condition, distance, like):
    """The distance where a scalar condition holds, else FAR at no cost."""
    return jax.lax.cond(condition, distance, lambda: jnp.full_like(like, FAR))
