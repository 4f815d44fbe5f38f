"""Pairs of synthetic people for the retargeting benchmark: a portrait, a driver, and the truth: the
portrait's person moving like the driver.
"""

import dataclasses
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from input_pipeline.faces.landmarker import FaceLandmarker
from input_pipeline.synthetic.motion import Motion, compose, sample_clip, sample_still
from input_pipeline.synthetic.people import Person, sample_person
from input_pipeline.synthetic.renderer import keypoints, render

SIZE = 128
LOOKED_AT = (6, 12, 18, 24)


@dataclasses.dataclass(frozen=True)
class Pairs:
    """P pairs, F frames, float32 keypoints in pixels of SIZE x SIZE pictures.

    portrait: [P, 478, 3]. driver, relative, absolute: [P, F, 478, 3]; the last two are the
    portrait's person, moving relative to the driver's first frame, and with the driver's pose and
    expression.
    found_portrait, found_driver: what the landmarker finds in rendered pictures of the first Q
    pairs, NaN where it finds no face; found_relative, found_absolute: in the frames LOOKED_AT of
    the truth.
    blink, open: [P, F], how far the driver's eyes are closed and its mouth is open, 0 to 1.
    """

    portrait: np.ndarray
    driver: np.ndarray
    relative: np.ndarray
    absolute: np.ndarray
    found_portrait: np.ndarray
    found_driver: np.ndarray
    found_relative: np.ndarray
    found_absolute: np.ndarray
    blink: np.ndarray
    open: np.ndarray


@jax.jit
def _points(person: Person, motion: Motion) -> jax.Array:
    """[F, 478, 3] of motion arrays [F]."""
    return jax.vmap(lambda frame: keypoints.keypoints(person, frame, SIZE).points)(motion)


def pairs(count: int, frames: int, fps: float, rendered: int, cache: Path | None = None) -> Pairs:
    """Draws `count` pairs, renders the first `rendered`; or reads them from the folder `cache`."""
    file = cache and cache / f"{count}_{frames}_{fps:g}_{rendered}.npz"
    if file and file.is_file():
        with np.load(file) as stored:
            return Pairs(**stored)
    landmarker = FaceLandmarker()
    made = [
        _pair(i, np.arange(frames) / fps, landmarker if i < rendered else None)
        for i in tqdm(range(count), unit="pair")
    ]
    stacked = {
        field.name: np.stack([pair[field.name] for pair in made if field.name in pair])
        for field in dataclasses.fields(Pairs)
    }
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, **stacked)
    return Pairs(**stacked)


def _pair(index: int, seconds: np.ndarray, landmarker: FaceLandmarker | None) -> dict:
    rng = np.random.default_rng([8, index])
    # Every second pair is as users are advised to take it: a calm portrait, a calm first frame.
    calm = index % 2 == 0
    person, driver = sample_person(rng), sample_person(rng)
    still, moving = sample_still(rng, calm), sample_clip(rng, seconds, calm)

    together = compose(still, moving)
    pair = {
        "portrait": _points(person, jax.tree.map(np.atleast_1d, still))[0],
        "driver": _points(driver, moving),
        "relative": _points(person, together),
        "absolute": _points(person, moving),
        "blink": moving.blink,
        "open": moving.open,
    }
    if landmarker:

        def picture(person: Person, motion: Motion) -> np.ndarray:
            return render.to_uint8(render.render(person, motion, SIZE).colour)

        pair["found_portrait"] = landmarker.track([picture(person, still)]).keypoints[0]
        clip = [picture(driver, moving.at(i)) for i in range(len(seconds))]
        pair["found_driver"] = landmarker.track(clip).keypoints
        for name, truth in (("relative", together), ("absolute", moving)):
            pair[f"found_{name}"] = np.concatenate(
                [landmarker.track([picture(person, truth.at(i))]).keypoints for i in LOOKED_AT]
            )
    return pair


def tracked_clips(count: int, frames: int, fps: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rendered clips: their true keypoints and those that the landmarker finds, [F, 478, 3]."""
    landmarker, clips = FaceLandmarker(), []
    for index in tqdm(range(count), unit="clip"):
        rng = np.random.default_rng([9, index])
        person, motion = sample_person(rng), sample_clip(rng, np.arange(frames) / fps)
        pictures = (
            render.to_uint8(render.render(person, motion.at(i), SIZE).colour) for i in range(frames)
        )
        clips.append((np.asarray(_points(person, motion)), landmarker.track(pictures).keypoints))
    return clips
