import dataclasses

import jax
import numpy as np
import pytest

from input_pipeline.synthetic import people


def _leaves(person):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(person)]


def test_a_person_depends_on_the_seed_alone():
    first, again, other = (people.sample_person(np.random.default_rng(s)) for s in (1, 1, 2))
    for a, b in zip(_leaves(first), _leaves(again)):
        np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(_leaves(first), _leaves(other)))


@pytest.mark.parametrize("kind", people.KINDS)
def test_what_is_worn_changes_nothing_else(kind):
    with_it, without = (
        people.sample_person(np.random.default_rng(3), {kind: worn}) for worn in (True, False)
    )
    assert kind in with_it.worn() and kind not in without.worn()
    stripped = dataclasses.replace(getattr(with_it, kind), worn=np.float32(0))
    for a, b in zip(_leaves(dataclasses.replace(with_it, **{kind: stripped})), _leaves(without)):
        np.testing.assert_array_equal(a, b)


def test_all_people_have_the_same_structure_in_float32_and_colours_in_range():
    crowd = [people.sample_person(np.random.default_rng(seed)) for seed in range(60)]
    assert len({jax.tree.structure(person) for person in crowd}) == 1
    assert {leaf.dtype for person in crowd for leaf in _leaves(person)} == {np.dtype("float32")}
    for person in crowd:
        colours = [person.face.skin, person.face.lip_colour, person.hair.colour, person.hat.colour]
        colours += [person.glasses.colour, person.clothes.colour, person.lighting.background]
        assert all(colour.min() >= 0 and colour.max() <= 1 for colour in colours)
        np.testing.assert_allclose(np.linalg.norm(person.lighting.light), 1, rtol=1e-5)


def test_people_are_varied():
    crowd = [people.sample_person(np.random.default_rng(seed)) for seed in range(300)]
    assert {int(person.hat.kind) for person in crowd} == set(range(6))
    assert {int(person.clothes.kind) for person in crowd} == set(range(4))
    for kind in people.KINDS:
        share = np.mean([kind in person.worn() for person in crowd])
        assert 0.15 < share < 0.99
    brightness = [person.face.skin.mean() for person in crowd]
    assert min(brightness) < 0.3 and max(brightness) > 0.8


def test_there_are_as_many_styles_as_promised():
    assert len(people.STYLES) >= 8
    # No two hair styles are the same in all that their tables say.
    assert len({repr(style) for style in people.STYLES.values()}) == len(people.STYLES)
