"""Reenactment cases: portrait A, the motion of C, and the true video of A with it.

The portrait looks straight ahead and calm, as the driver's first frame does. So motion relative to
that frame and the driver's own pose are one and the same, and no system is asked for a convention
that is not its own. Everyone in a case is made for that case alone; case i depends on (seed, i).
"""

from pathlib import Path

import numpy as np

from input_pipeline.dataset import cases as case_files
from input_pipeline.synthetic import counterfactuals
from input_pipeline.synthetic.counterfactuals import Plan
from input_pipeline.synthetic.motion import CALM, sample_clip
from input_pipeline.synthetic.people import sample_person
from input_pipeline.synthetic.population import Settings

PROTOCOL, VERSION = "reenact", 1
_STREAM = 4


def draw_case(settings: Settings, index: int, attempt: int = 0) -> Plan:
    """Case number `index`: its people and their motion. attempt: other people for the same case."""
    rng = np.random.default_rng([settings.seed, _STREAM, index, attempt])
    person, driver = sample_person(rng), sample_person(rng)
    driving = sample_clip(rng, settings.seconds, calm_start=True)
    people = {"portrait": f"reenact_{index:05d}_a", "attributes": []}
    people["driving"] = f"reenact_{index:05d}_c"
    case = case_files.Case(f"{index:05d}", PROTOCOL, (), settings.frames, people)
    return Plan(case, person, person, [], driver, CALM, [], driving)


def write_cases(out: str | Path, settings: Settings, count: int) -> None:
    """Writes `count` cases to a case folder; see `input_pipeline.dataset.cases`."""
    counterfactuals.write_cases(out, settings, count, draw_case, (PROTOCOL, VERSION))
