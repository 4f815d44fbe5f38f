"""Pairs of rendered people for the mask benchmarks: a portrait, somebody who wears something, and
what it looks like when the first wears it.
"""

import concurrent.futures
import dataclasses
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from input_pipeline.faces.landmarker import FaceLandmarker
from input_pipeline.kinds import KINDS
from input_pipeline.synthetic.motion import Motion, rotation, sample_still
from input_pipeline.synthetic.people import Person, sample_person
from input_pipeline.synthetic.renderer import keypoints, render

MOST_DEGREES = 35  # between the two poses
_LEAST_AREA = 0.01
_TRIES = 100


@dataclasses.dataclass(frozen=True)
class Pairs:
    """P pairs of one kind, S pixels a side.

    source, portrait: uint8 [P, S, S, 3]; the portrait wears its own things or nothing.
    source_mask, own_mask, true_mask: bool [P, S, S]; the last is the portrait wearing what the
    source does. source_truth, portrait_truth, source_found, portrait_found: float32 [P, 478, 3]
    pixels, exact and as the landmarker finds them.
    degrees: float [P], angle between the head poses.
    """

    source: np.ndarray
    source_mask: np.ndarray
    source_truth: np.ndarray
    source_found: np.ndarray
    portrait: np.ndarray
    own_mask: np.ndarray
    true_mask: np.ndarray
    portrait_truth: np.ndarray
    portrait_found: np.ndarray
    degrees: np.ndarray


def pairs(kind: str, count: int, size: int, cache: Path | None = None) -> Pairs:
    """Renders the first `count` pairs of a kind, or reads them from the folder `cache`."""
    file = cache and cache / f"{kind}_{count}_{size}.npz"
    if file and file.is_file():
        with np.load(file) as stored:
            return Pairs(**stored)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        made = list(
            tqdm(pool.map(lambda i: _pair(kind, i, size), range(count)), total=count, desc=kind)
        )
    landmarker = FaceLandmarker()
    for pair in made:
        for role in ("source", "portrait"):
            pair[f"{role}_found"] = landmarker.track([pair[role]]).keypoints[0]
    made = [p for p in made if np.isfinite(p["source_found"] + p["portrait_found"]).all()]
    result = Pairs(**{name: np.stack([pair[name] for pair in made]) for name in made[0]})
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(file, **dataclasses.asdict(result))
    return result


def _pair(kind: str, index: int, size: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([35, KINDS.index(kind), index])
    for _ in range(_TRIES):
        poses = [sample_still(rng, calm=True) for _ in range(2)]
        degrees = _angle(*poses)
        if degrees > MOST_DEGREES or rng.random() > degrees / 15:  # few of equal pose
            continue
        worn = {"hair": True, "hat": False} if kind == "hair" else {kind: True}
        source = sample_person(rng, worn)
        own = sample_person(rng, worn if kind == "hair" else {kind: rng.random() < 0.5})
        target = dataclasses.replace(own, **{kind: getattr(source, kind)})
        shown, source_mask, source_points = _photo(source, poses[0], kind, size)
        _, true_mask, points = _photo(target, poses[1], kind, size)
        if min(source_mask.mean(), true_mask.mean()) < _LEAST_AREA:
            continue
        portrait, own_mask, _ = _photo(own, poses[1], kind, size)
        return dict(
            source=shown, source_mask=source_mask, source_truth=source_points, portrait=portrait,
            own_mask=own_mask, true_mask=true_mask, portrait_truth=points,
            degrees=np.float64(degrees),
        )  # fmt: skip
    raise RuntimeError(f"{_TRIES} draws without a pair that shows its {kind}")


def _photo(person: Person, motion: Motion, kind: str, size: int):
    picture = jax.device_get(render.render(person, motion, size))
    mask = render.masks(picture, person).get(kind, np.zeros((size, size), bool))
    points = np.asarray(keypoints.keypoints(person, motion, size).points)
    return render.to_uint8(picture.colour), mask, points


def _angle(first: Motion, second: Motion) -> float:
    """Degrees of the turn from one head pose to the other."""
    turn = rotation(first.pose) @ rotation(second.pose).T
    return float(np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))))
