import dataclasses

import jax
import numpy as np

from input_pipeline.dataset import cases
from input_pipeline.faces import geometry
from input_pipeline.synthetic import population, reenactments
from input_pipeline.synthetic.motion import compose

SETTINGS = population.Settings(people=1, clips=1, frames=3, size=64, fps=12.5, seed=5)


def test_relative_and_absolute_motion_are_one_and_the_same():
    plan = reenactments.draw_case(SETTINGS, 0)
    motion = compose(plan.portrait, plan.driving)
    for name in vars(motion):
        np.testing.assert_allclose(getattr(motion, name), getattr(plan.driving, name), atol=1e-4)
    assert plan.case.attributes == () and plan.own is plan.target
    assert plan.own.face.width != plan.driver.face.width


def test_a_case_depends_on_seed_and_number_alone():
    one, same = (reenactments.draw_case(SETTINGS, 3) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, one.own, same.own)
    assert one.case == same.case
    for other in (
        reenactments.draw_case(SETTINGS, 4),
        reenactments.draw_case(SETTINGS, 3, attempt=1),
        reenactments.draw_case(dataclasses.replace(SETTINGS, seed=6), 3),
    ):
        assert other.own.face.width != one.own.face.width


def test_cases_on_disk_say_what_is_true(tmp_path):
    reenactments.write_cases(tmp_path, SETTINGS, 1)
    found = cases.CaseSet.read(tmp_path)
    assert (found.protocol, found.version) == ("reenact", 1)
    pictures = found.load(found.cases[0])
    assert pictures.attributes.shape == (0, 64, 64, 3) and not pictures.portrait_mask.any()
    # Frame 0 is the portrait itself.
    np.testing.assert_array_equal(pictures.truth.video[0], pictures.portrait)
    turn, _, _ = geometry.head_pose(pictures.truth.keypoints)
    apart = geometry.euler_angles(turn) - pictures.truth.extra["pose"]
    assert np.abs(apart - apart[0]).max() < 5
