"""How people move: head pose and expression of one frame, and smooth random curves over a clip."""

import dataclasses

import jax
import numpy as np

EXPRESSION = ("smile", "open", "pucker", "blink", "brow", "gaze_x", "gaze_y")
POSE = ("yaw", "pitch", "roll")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Motion:
    """Pose and expression, float32 scalars, or arrays [F] for the frames of a clip.

    Attributes:
      yaw, pitch, roll: degrees, signs as in `faces.euler_angles`: nose to the right of the picture,
        nose up, head tilted clockwise are positive.
      x, y: shift of the head in head units, right and up.
      smile: -0.4 (corners down) to 1. open: mouth, 0 to 1. pucker: lips drawn together, 0 to 1.
      blink: 0 open eyes to 1 closed. brow: -0.5 (frown) to 1 (raised).
      gaze_x, gaze_y: right and up, about -0.4 to 0.4 (tangent of the angle).
    """

    yaw: np.ndarray
    pitch: np.ndarray
    roll: np.ndarray
    x: np.ndarray
    y: np.ndarray
    smile: np.ndarray
    open: np.ndarray
    pucker: np.ndarray
    blink: np.ndarray
    brow: np.ndarray
    gaze_x: np.ndarray
    gaze_y: np.ndarray

    @property
    def pose(self) -> np.ndarray:
        """[..., 3] yaw, pitch, roll in degrees."""
        return np.stack([getattr(self, name) for name in POSE], -1)

    @property
    def expression(self) -> np.ndarray:
        """[..., 7], in the order of EXPRESSION."""
        return np.stack([getattr(self, name) for name in EXPRESSION], -1)

    def at(self, frame: int) -> "Motion":
        """One frame of a clip."""
        return jax.tree.map(lambda curve: curve[frame], self)


CALM = Motion(*[np.float32(0)] * len(dataclasses.fields(Motion)))

# Ends that drawn and composed motion is clipped to.
LIMITS = dict(yaw=(-38, 38), pitch=(-22, 22), roll=(-18, 18), x=(-0.16, 0.16), y=(-0.1, 0.1))
LIMITS |= dict(smile=(-0.4, 1), open=(0, 1), pucker=(0, 1), blink=(0, 1), brow=(-0.5, 1))
LIMITS |= dict(gaze_x=(-0.4, 0.4), gaze_y=(-0.25, 0.25))


def _clipped(**curves: np.ndarray) -> Motion:
    return Motion(
        **{name: np.float32(np.clip(curves[name], *limits)) for name, limits in LIMITS.items()}
    )


def sample_still(rng: np.random.Generator, calm: bool = False) -> Motion:
    """One frame for a photo; `calm` keeps mouth and eyes as in a passport photo."""
    turn = rng.normal(0, (13, 6, 4))
    quiet = 0.0 if calm else 1.0
    return _clipped(
        yaw=turn[0], pitch=turn[1], roll=turn[2], x=rng.normal(0, 0.04), y=rng.normal(0, 0.03),
        smile=rng.uniform(-0.25, 0.9) * (0.35 + 0.65 * quiet), open=quiet * rng.uniform(-0.6, 0.8),
        pucker=quiet * rng.uniform(-1.2, 0.6), blink=quiet * rng.uniform(-2.5, 0.6),
        brow=rng.uniform(-0.3, 0.7) * (0.3 + 0.7 * quiet), gaze_x=rng.normal(0, 0.13),
        gaze_y=rng.normal(0, 0.07),
    )  # fmt: skip


def sample_clip(rng: np.random.Generator, seconds: np.ndarray, calm_start: bool = False) -> Motion:
    """Smooth motion, a talking and looking head, as a function of time.

    Args:
      rng: the curves depend on it alone, so that more or other times sample the same motion.
      seconds: [F] times of the frames.
      calm_start: fades everything in over the first 0.4 s, from CALM: for driving clips, whose
        first frame stands for the portrait's own pose and expression.

    Returns:
      Motion of arrays [F].
    """
    seconds = np.asarray(seconds, np.float64)
    talking, looking = rng.random() < 0.65, rng.random() < 0.8
    pose = {
        "yaw": _drift(rng, seconds, 0.35, 15) + rng.normal(0, 7),
        "pitch": _drift(rng, seconds, 0.45, 6) + rng.normal(0, 3),
        "roll": _drift(rng, seconds, 0.3, 4),
        "x": _drift(rng, seconds, 0.3, 0.035),
        "y": _drift(rng, seconds, 0.4, 0.02),
    }
    syllables = np.clip(_drift(rng, seconds, 3.2, 0.42), 0, 1) * talking
    phrases = np.clip(0.75 + _drift(rng, seconds, 0.5, 0.45), 0, 1)
    expression = {
        "smile": 0.25 + _drift(rng, seconds, 0.4, 0.35),
        "open": syllables * phrases + np.clip(_drift(rng, seconds, 0.25, 0.35) - 0.3, 0, 1),
        "pucker": np.clip(_drift(rng, seconds, 1.1, 0.4) - 0.15, 0, 1) * talking,
        "blink": _blinks(rng, seconds),
        "brow": _drift(rng, seconds, 0.5, 0.3) + 0.1,
        "gaze_x": _drift(rng, seconds, 0.6, 0.14) * looking,
        "gaze_y": _drift(rng, seconds, 0.6, 0.07) * looking,
    }
    curves = pose | expression
    if calm_start:
        fade = np.clip(seconds / 0.4, 0, 1)
        fade = fade * fade * (3 - 2 * fade)
        curves = {name: curve * fade for name, curve in curves.items()}
    return _clipped(**curves)


def compose(own: Motion, driver: Motion) -> Motion:
    """The driver's motion relative to its first frame, on top of a portrait's own pose [F].

    Rotations are composed as seen from the camera, the rest is added: the convention of
    `retarget.retarget`.
    """
    first = driver.at(0)
    turn = rotation(driver.pose) @ rotation(first.pose).T @ rotation(own.pose)
    curves = {
        name: getattr(own, name) + getattr(driver, name) - getattr(first, name) for name in LIMITS
    }
    # Inverse of `rotation`, as in `faces.euler_angles`.
    curves["yaw"] = np.degrees(np.arcsin(np.clip(turn[:, 2, 0], -1, 1)))
    curves["pitch"] = -np.degrees(np.arctan2(turn[:, 2, 1], turn[:, 2, 2]))
    curves["roll"] = np.degrees(np.arctan2(turn[:, 1, 0], turn[:, 0, 0]))
    return _clipped(**curves)


def rotation(pose: np.ndarray) -> np.ndarray:
    """[..., 3, 3] from degrees [..., 3]: Rz(roll) Ry(-yaw) Rx(-pitch), y down, z away."""
    yaw, pitch, roll = np.radians(np.moveaxis(np.float64(pose), -1, 0))
    one, zero = np.ones_like(yaw), np.zeros_like(yaw)
    cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    cr, sr = np.cos(roll), np.sin(roll)

    def matrix(*entries):
        return np.stack(entries, -1).reshape(*yaw.shape, 3, 3)

    about_z = matrix(cr, -sr, zero, sr, cr, zero, zero, zero, one)
    about_y = matrix(cy, zero, -sy, zero, one, zero, sy, zero, cy)
    about_x = matrix(one, zero, zero, zero, cp, sp, zero, -sp, cp)
    return about_z @ about_y @ about_x


def _drift(rng: np.random.Generator, seconds: np.ndarray, hertz: float, size: float) -> np.ndarray:
    """Sum of four sines around a frequency; `size` is its standard deviation."""
    rates = hertz * rng.uniform(0.5, 1.6, 4)
    phases, weights = rng.uniform(0, 2 * np.pi, 4), rng.normal(0, 1, 4)
    waves = np.sin(2 * np.pi * rates * seconds[..., None] + phases)
    return size * np.sqrt(2) * (waves @ weights) / np.linalg.norm(weights)


def _blinks(rng: np.random.Generator, seconds: np.ndarray) -> np.ndarray:
    """Lids close within 0.1 s and open within 0.15 s, every two to five seconds."""
    starts = rng.uniform(-1.5, 2.0) + np.cumsum(rng.uniform(2, 5, 64))
    starts = np.concatenate([[rng.uniform(-2, 1.5)], starts])
    since = seconds[..., None] - starts
    return np.clip(np.minimum(1 + since / 0.1, 1 - since / 0.15), 0, 1).max(-1)
