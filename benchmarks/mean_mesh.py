"""Fits the face mesh of the mean synthetic head, `input_pipeline/assets/head_mesh.npy`.

python -m benchmarks.mean_mesh
"""

import dataclasses
import functools

import jax
import numpy as np
from tqdm import tqdm

from input_pipeline.faces.landmarker import FaceLandmarker
from input_pipeline.kinds import NUM_KEYPOINTS
from input_pipeline.synthetic.motion import CALM, sample_still
from input_pipeline.synthetic.people import KINDS, sample_person
from input_pipeline.synthetic.renderer import keypoints, render, scene

SEED, ROUNDS = 478, 3


def fit_mean_mesh(people: int = 96, size: int = 256) -> np.ndarray:
    """[478, 3] head axes: the spots that the face mesh network means.

    Triangulated from the calm mean head, bare, seen from 35 sides; then corrected by the
    mean residual over many people in many poses, who are part of no data set. Made symmetric.
    """
    bare = sample_person(np.random.default_rng([SEED]), dict.fromkeys(KINDS, False))
    bare = dataclasses.replace(bare, face=keypoints.mean_face())
    sides = [
        (bare, dataclasses.replace(CALM, yaw=np.float32(yaw), pitch=np.float32(pitch)))
        for yaw in np.linspace(-30, 30, 7)
        for pitch in np.linspace(-14, 14, 5)
    ]
    crowd = []
    for i in range(people):
        rng = np.random.default_rng([SEED, i])
        crowd.append((sample_person(rng), sample_still(rng)))
    mean = _residual(_seen(sides, size), lambda *_: np.zeros((NUM_KEYPOINTS, 3)), size)
    flip = np.array([-1, 1, 1])
    mirror = ((mean[:, None] - mean * flip) ** 2).sum(-1).argmin(1)
    mean = (mean + mean[mirror] * flip) / 2
    found = _seen(crowd, size)
    place = jax.jit(lambda mean, person, motion: keypoints.mesh(person.face, motion, mean))
    for _ in range(ROUNDS):
        added = _residual(found, functools.partial(place, mean), size)
        mean = mean + (added + added[mirror] * flip) / 2
    return mean


def _seen(views, size: int) -> list:
    """(person, motion, keypoints found in the picture) of those views in which a face is found."""
    landmarker, found = FaceLandmarker(), []
    for person, motion in tqdm(views, unit="picture", desc="fitting the mesh"):
        track = landmarker.track([render.to_uint8(render.render(person, motion, size).colour)])
        if track.found[0]:
            found.append((person, motion, track.keypoints[0]))
    return found


def _residual(found, place, size: int) -> np.ndarray:
    """[478, 3]: what to add to `place(person, motion)` to get to where the network sees the points;
    least squares of the perspective equations."""
    rows, values = [], []
    for person, motion, seen in found:
        at = jax.tree.map(np.asarray, scene.pose_of(motion))
        known = np.asarray(place(person, motion)) @ at.head.T + at.shift - render.CAMERA
        u = (seen[:, 0] + 0.5) * 2 / size - 1
        v = 1 - (seen[:, 1] + 0.5) * 2 / size
        # x - cx = u FIELD (cz - z), the same for y; (x, y, z) = R (p + added) + shift.
        for slope, axis in ((u, 0), (v, 1)):
            k = (slope * render.FIELD)[:, None]
            rows.append(at.head[axis] + k * at.head[2])
            values.append(-known[:, axis] - k[:, 0] * known[:, 2])
    pairs = zip(np.stack(rows, 1), np.stack(values, 1))
    return np.stack([np.linalg.lstsq(r, b, rcond=None)[0] for r, b in pairs])


if __name__ == "__main__":
    np.save(keypoints.MEAN_MESH, fit_mean_mesh().astype(np.float32))
