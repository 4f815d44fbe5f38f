"""Counterfactual cases: portrait A, somebody else's attribute, the motion of C, and the true video.

A renderer can do what no camera can: film A again with B's hair, under the same light, before the
same wall, with the motion of C. Everyone in a case is made for that case alone, so that nobody is
in a training set, and case i depends on (seed, i) alone.
"""

import dataclasses
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from input_pipeline.dataset import cases as case_files
from input_pipeline.faces.landmarker import FaceLandmarker
from input_pipeline.synthetic import population
from input_pipeline.synthetic.motion import Motion, compose, sample_clip, sample_still
from input_pipeline.synthetic.people import Person, sample_person
from input_pipeline.synthetic.population import Settings
from input_pipeline.synthetic.renderer import keypoints as truth
from input_pipeline.synthetic.renderer import render

PROTOCOL, VERSION = "counterfactual", 1
FRAMES, FPS = 16, 12.5  # of the cases that `durian synth` writes
# Rows of the table, in the order in which cases take turns.
GROUPS = (
    "hair", "glasses", "beard", "hat", "hair+glasses", "hair+beard", "glasses+beard", "beard+hat",
    "hair", "glasses", "beard", "hat", "glasses+hat", "hair+hat",
    "interpolation/colour", "interpolation/length",
)  # fmt: skip
_ALPHAS = (0.25, 0.5, 0.75)
_STREAM = 2
_LEAST_AREA = 0.01  # share of the picture that an attribute to be copied must cover
_TRIES = 50


class Plan(NamedTuple):
    """A case before it is rendered.

    target: A, wearing what is copied; own: A as in the portrait; attribute_sources: who shows
    each attribute.
    """

    case: case_files.Case
    own: Person
    target: Person
    attribute_sources: list[Person]
    driver: Person
    portrait: Motion
    shown: list[Motion]
    driving: Motion


def draw_case(settings: Settings, index: int, attempt: int = 0) -> Plan:
    """Case number `index`: its people and their motion. attempt: other people for the same case."""
    rng = np.random.default_rng([settings.seed, _STREAM, index, attempt])
    group = GROUPS[index % len(GROUPS)]
    interpolates = group.startswith("interpolation/")
    kinds = ("hair",) if interpolates else tuple(group.split("+"))
    own = sample_person(rng, _visible(kinds, {kind: rng.random() < 0.5 for kind in kinds}))
    driver = sample_person(rng)
    portrait, driving = sample_still(rng, calm=True), sample_clip(rng, settings.seconds, True)
    shown = [sample_still(rng, calm=True) for _ in range(2)]
    if interpolates:
        alpha = _ALPHAS[int(rng.integers(len(_ALPHAS)))]
        attribute_sources = _interpolation(rng, group)
        attributes = [case_files.Attribute("hair", w) for w in (1 - alpha, alpha)]
        hair = jax.tree.map(
            lambda a, b: np.float32((1 - alpha) * a + alpha * b),
            attribute_sources[0].hair,
            attribute_sources[1].hair,
        )
        target = dataclasses.replace(own, hair=hair)
    else:
        attribute_sources = [
            _source_person(rng, kind, motion, settings) for kind, motion in zip(kinds, shown)
        ]
        attributes = [case_files.Attribute(kind) for kind in kinds]
        worn = {
            kind: getattr(attribute_source, kind)
            for kind, attribute_source in zip(kinds, attribute_sources)
        }
        target = dataclasses.replace(own, **worn)
    case = case_files.Case(
        id=f"{index:05d}",
        group=group,
        attributes=tuple(attributes),
        frames=settings.frames,
        people={
            "portrait": f"case_{index:05d}_a",
            "attributes": [f"case_{index:05d}_b{i}" for i in range(len(attribute_sources))],
            "driving": f"case_{index:05d}_c",
        },
    )
    return Plan(
        case,
        own,
        target,
        attribute_sources,
        driver,
        portrait,
        shown[: len(attribute_sources)],
        driving,
    )


def _visible(kinds: tuple[str, ...], worn: dict[str, bool]) -> dict[str, bool]:
    """What must be worn or not, so that the kinds can be seen: no hat over hair in question."""
    if "hair" in kinds:
        worn = worn | {"hair": True}
        if "hat" not in kinds:
            worn = worn | {"hat": False}
    return worn


def _source_person(
    rng: np.random.Generator, kind: str, shown: Motion, settings: Settings
) -> Person:
    """Somebody who shows the attribute clearly."""
    for _ in range(_TRIES):
        attribute_source = sample_person(rng, _visible((kind,), {kind: True}))
        seen = render.render(attribute_source, shown, settings.size, settings.oversample).mask(kind)
        if np.mean(np.asarray(seen) >= 0.5) >= _LEAST_AREA:
            return attribute_source
    raise RuntimeError(f"{_TRIES} people in a row do not show their {kind}")


def _interpolation(rng: np.random.Generator, group: str) -> list[Person]:
    """Two people with the same hair but for its colour or its length."""
    first, second, third = (sample_person(rng, _visible(("hair",), {})) for _ in range(3))
    hair = first.hair
    if group.endswith("length"):
        long = dict(length=0.9, side=-0.4, volume=0.3, curl=0.0, bun=0.0, tails=0.0, crown=9.0)
        long = {name: np.float32(value) for name, value in (long | {"stubble": 0.0}).items()}
        hair = dataclasses.replace(hair, **long)
        other = dataclasses.replace(hair, length=np.float32(0.15))
    else:
        other = dataclasses.replace(hair, colour=third.hair.colour, grey=third.hair.grey)
    return [dataclasses.replace(first, hair=hair), dataclasses.replace(second, hair=other)]


def pictures(plan: Plan, settings: Settings) -> case_files.Pictures:
    """Renders everything in a case."""

    def photo(person: Person, motion: Motion):
        picture = render.render(person, motion, settings.size, settings.oversample)
        return render.to_uint8(picture.colour), render.masks(picture, person)

    def clip(person: Person, motion: Motion):
        film = render.render_clip(person, motion, settings.size, settings.oversample)
        return render.to_uint8(film.colour), render.masks(film, person)

    portrait, own = photo(plan.own, plan.portrait)
    hidden = np.zeros(portrait.shape[:2], bool)
    for kind in plan.case.kinds:
        hidden |= own.get(kind, False)
    shown = [photo(*pair) for pair in zip(plan.attribute_sources, plan.shown)]
    nothing = np.zeros((0, *hidden.shape), bool)
    given = [m[attribute.kind] for (_, m), attribute in zip(shown, plan.case.attributes)]
    driving, _ = clip(plan.driver, plan.driving)
    motion = compose(plan.portrait, plan.driving)
    video, masks = clip(plan.target, motion)
    points = truth.keypoints_of_clip(plan.target, motion, settings.size)
    return case_files.Pictures(
        portrait=portrait,
        portrait_mask=hidden,
        attributes=np.stack([i for i, _ in shown]) if shown else np.repeat(portrait[None], 0, 0),
        attribute_masks=np.stack(given) if given else nothing,
        driving=driving,
        truth=case_files.Truth(
            video=video,
            masks=masks,
            keypoints=points.points,
            extra=population.truth_rows(points, motion),
        ),
    )


def _can_be_scored(
    case: case_files.Case, shown: case_files.Pictures, landmarker: FaceLandmarker
) -> bool:
    """Whether a method could find every face it needs, and the truth shows what is asked for."""
    clips = [[shown.portrait], *([image] for image in shown.attributes), shown.driving]
    clips.append(shown.truth.video)
    return all(landmarker.track(clip).found.all() for clip in clips) and all(
        shown.truth.masks[kind].any((1, 2)).all() for kind in case.kinds
    )


def remove_cases(out: Path) -> None:
    """Removes a case folder, if that is what `out` is: cases of other settings must not stay."""
    if (out / "cases.json").is_file():
        shutil.rmtree(out)


def write_cases(
    out: str | Path,
    settings: Settings,
    count: int,
    draw: Callable[[Settings, int, int], Plan] = draw_case,
    protocol: tuple[str, int] = (PROTOCOL, VERSION),
) -> None:
    """Writes `count` cases to a case folder; see `input_pipeline.dataset.cases`.

    draw: as `draw_case`. protocol: its name and version.
    """
    fps, made = Fraction(settings.fps).limit_denominator(1001), []
    landmarker = FaceLandmarker()
    name, version = protocol
    for index in tqdm(range(count), unit="case", desc=f"{name} cases"):
        for attempt in range(_TRIES):
            plan = draw(settings, index, attempt)
            shown = pictures(plan, settings)
            if _can_be_scored(plan.case, shown, landmarker):
                break
        else:
            raise RuntimeError(f"case {index}: no face found in {_TRIES} attempts")
        case_files.write_case(out, plan.case, shown, fps)
        made.append(plan.case)
    source = {"settings": settings.facts(), "tools": settings.tools()}
    case_files.write_index(
        out, made, protocol=name, version=version, size=settings.size, fps=fps, source=source
    )
