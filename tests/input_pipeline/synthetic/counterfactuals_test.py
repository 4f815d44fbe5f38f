import dataclasses

import jax
import numpy as np
import pytest

from input_pipeline.dataset import cases
from input_pipeline.synthetic import counterfactuals, population

SETTINGS = population.Settings(people=1, clips=1, frames=3, size=64, seed=5)


def _plan(group):
    return counterfactuals.draw_case(SETTINGS, counterfactuals.GROUPS.index(group))


def test_every_kind_pairs_and_interpolations_take_turns():
    singles = {group for group in counterfactuals.GROUPS if group in cases.KINDS}
    assert singles == set(cases.KINDS)
    pairs = {frozenset(group.split("+")) for group in counterfactuals.GROUPS if "+" in group}
    assert len(pairs) == 6
    assert {"interpolation/colour", "interpolation/length"} <= set(counterfactuals.GROUPS)


@pytest.mark.parametrize("group", ["hair", "glasses+beard"])
def test_the_target_is_the_portrait_but_for_the_copied_attributes(group):
    plan = _plan(group)
    for name in vars(plan.own):
        source = plan.own
        if name in plan.case.kinds:
            source = plan.attribute_sources[plan.case.kinds.index(name)]
        jax.tree.map(
            np.testing.assert_array_equal, getattr(plan.target, name), getattr(source, name)
        )


def test_interpolated_hair_lies_between_its_sources():
    for group, name in (("interpolation/colour", "colour"), ("interpolation/length", "length")):
        plan = _plan(group)
        first, second = (
            getattr(attribute_source.hair, name) for attribute_source in plan.attribute_sources
        )
        weights = [attribute.weight for attribute in plan.case.attributes]
        np.testing.assert_allclose(
            getattr(plan.target.hair, name), weights[0] * first + weights[1] * second, rtol=1e-5
        )
        assert np.abs(first - second).max() > 0.02
        same = [field.name for field in dataclasses.fields(plan.own.hair)]
        same = [field for field in same if field not in ("colour", "grey", "length")]
        for field in same:
            a, b = (
                getattr(attribute_source.hair, field) for attribute_source in plan.attribute_sources
            )
            assert a == b == getattr(plan.target.hair, field)


def test_cases_on_disk_say_what_is_true(small_set):
    found = cases.CaseSet.read(small_set / "counterfactual")
    assert [case.group for case in found.cases] == list(counterfactuals.GROUPS[:4])
    for case in found.cases:
        pictures = found.load(case)
        kind = case.kinds[0]
        assert pictures.attribute_masks[0].mean() > 0.01
        assert pictures.truth.masks[kind].any()
        assert set(pictures.truth.extra) == {"visible", "pose", "expression"}
        # Frame 0 has the portrait's own pose: outside what is exchanged nothing differs but shade.
        first, portrait = pictures.truth.video[0].astype(int), pictures.portrait.astype(int)
        changed = pictures.truth.masks[kind][0] | pictures.portrait_mask
        difference = np.abs(first - portrait).max(-1)
        assert np.median(difference[~changed]) <= 2
