"""Renders the example case folder of the package: one portrait, four wishes, and their truth.

    python -m benchmarks.examples durian_jax/examples

One synthetic person wears somebody's hair, somebody else's glasses, both, and a mixture of two
hair colours, always with the motion of the same driver. It is a case folder of `durian evaluate`,
but all its cases share their people, so that one sees what changes.
"""

import dataclasses
import sys
from fractions import Fraction
from pathlib import Path

import jax
import numpy as np

from input_pipeline.dataset import cases as case_files
from input_pipeline.synthetic import counterfactuals
from input_pipeline.synthetic.motion import sample_clip, sample_still
from input_pipeline.synthetic.people import Person, sample_person
from input_pipeline.synthetic.population import Settings

SETTINGS = Settings(size=64, frames=24, fps=12.5)
SEED = 12
BARE = {"hair": True, "hat": False, "glasses": False, "beard": False}


def draw(rng: np.random.Generator, wanted=lambda person: True, **worn: bool) -> Person:
    """A person with hair and what else is to be worn, the first of whom it is wanted."""
    while not wanted(person := sample_person(rng, BARE | worn)):
        pass
    return person


def is_fair_and_long(person: Person) -> bool:
    return person.hair.length > 0.6 and person.hair.colour.mean() > 0.4


def is_dark(person: Person) -> bool:
    return person.hair.colour.mean() < 0.12


def plans() -> list[counterfactuals.Plan]:
    """The four cases, before they are rendered."""
    rng = np.random.default_rng(SEED)
    own, first, second = draw(rng), draw(rng, is_fair_and_long), draw(rng, is_dark)
    glasses, driver = draw(rng, glasses=True), sample_person(rng)
    portrait, driving = sample_still(rng, calm=True), sample_clip(rng, SETTINGS.seconds, True)
    poses = [sample_still(rng, calm=True) for _ in range(3)]
    other = dataclasses.replace(first.hair, colour=second.hair.colour, grey=second.hair.grey)
    other = dataclasses.replace(second, hair=other)
    half = jax.tree.map(lambda a, b: np.float32((a + b) / 2), first.hair, other.hair)
    wishes = {
        "hair": ([("hair", 1.0, first, poses[0])], {"hair": first.hair}),
        "glasses": ([("glasses", 1.0, glasses, poses[1])], {"glasses": glasses.glasses}),
        "hair+glasses": (
            [("hair", 1.0, first, poses[0]), ("glasses", 1.0, glasses, poses[1])],
            {"hair": first.hair, "glasses": glasses.glasses},
        ),
        "interpolation/colour": (
            [("hair", 0.5, first, poses[0]), ("hair", 0.5, other, poses[2])],
            {"hair": half},
        ),
    }
    made = []
    for number, (group, (sources, worn)) in enumerate(wishes.items()):
        case = case_files.Case(
            id=f"{number:04d}",
            group=group,
            attributes=tuple(case_files.Attribute(kind, weight) for kind, weight, _, _ in sources),
            frames=SETTINGS.frames,
            people={"portrait": "a", "attributes": [s[0] for s in sources], "driving": "c"},
        )
        made.append(
            counterfactuals.Plan(
                case=case, own=own, target=dataclasses.replace(own, **worn),
                attribute_sources=[person for _, _, person, _ in sources],
                driver=driver, portrait=portrait,
                shown=[pose for _, _, _, pose in sources], driving=driving,
            )
        )  # fmt: skip
    return made


def main(out: Path) -> None:
    fps = Fraction(SETTINGS.fps).limit_denominator(1001)
    chosen = plans()
    for plan in chosen:
        pictures = counterfactuals.pictures(plan, SETTINGS)
        # To 1/256 of a pixel: no score sees it, and it packs by a third better.
        keypoints = np.round(pictures.truth.keypoints * 256) / 256
        truth = dataclasses.replace(pictures.truth, keypoints=np.float32(keypoints))
        case_files.write_case(out, plan.case, dataclasses.replace(pictures, truth=truth), fps)
    case_files.write_index(
        out, [plan.case for plan in chosen],
        protocol=counterfactuals.PROTOCOL, version=counterfactuals.VERSION,
        size=SETTINGS.size, fps=fps, source={"script": "benchmarks/examples.py", "seed": SEED},
    )  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]))
