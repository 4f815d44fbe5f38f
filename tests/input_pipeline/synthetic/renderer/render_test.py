import dataclasses

import numpy as np
import pytest

from input_pipeline.synthetic.motion import CALM
from input_pipeline.synthetic.people import KINDS, sample_person
from input_pipeline.synthetic.renderer import render, scene

SIZE = 64


def _person(seed=3, **worn):
    return sample_person(np.random.default_rng(seed), dict.fromkeys(KINDS, False) | worn)


def _turned(**angles):
    return dataclasses.replace(CALM, **{name: np.float32(v) for name, v in angles.items()})


@pytest.fixture(scope="module")
def dressed():
    """A person who wears everything, from the front."""
    person = _person(hair=True, glasses=True, beard=True, hat=True)
    return person, render.render(person, CALM, SIZE)


def test_pictures_are_finite_in_range_and_repeat_bit_for_bit(dressed):
    person, picture = dressed
    colour = np.asarray(picture.colour)
    assert np.isfinite(colour).all() and colour.min() >= 0 and colour.max() <= 1
    again = render.render(person, CALM, SIZE)
    for a, b in zip(picture, again):
        np.testing.assert_array_equal(a, b)


def test_materials_share_every_pixel_and_edges_are_soft(dressed):
    layers = np.asarray(dressed[1].layers)
    np.testing.assert_allclose(layers[..., :8].sum(-1), 1, atol=1e-5)
    skin = layers[..., scene.SKIN]
    assert ((skin > 0.1) & (skin < 0.9)).sum() > 20
    assert set(np.unique(np.round(skin * 4))) == {0, 1, 2, 3, 4}


def test_depth_is_where_the_person_is(dressed):
    _, picture = dressed
    depth, background = np.asarray(picture.depth), np.asarray(picture.layers[..., 0])
    # Depth is that of the pixel's middle, which may miss what covers a part of it.
    assert np.isinf(depth[background == 1]).mean() > 0.99
    assert np.isfinite(depth[background == 0]).mean() > 0.99
    near = depth[np.isfinite(depth)]
    assert near.min() > 4 and near.max() < 8.6
    middle = depth[26:46, 26:38]
    assert np.median(middle) < np.median(near)  # the face is nearer than the shoulders


@pytest.mark.parametrize("kind", KINDS)
def test_masks_hold_what_appears_with_the_attribute_and_nothing_else_moves(kind):
    bare, worn = _person(), _person(**{kind: True})
    without, with_it = (render.render(p, CALM, SIZE) for p in (bare, worn))
    assert set(render.masks(with_it, worn)) == {kind}
    mask = render.masks(with_it, worn)[kind]
    assert 0.005 < mask.mean() < 0.5
    change = np.abs(np.asarray(with_it.colour) - np.asarray(without.colour)).max(-1)
    assert change[mask].mean() > 5 * change[~mask].mean()
    # Far from the attribute there is at most its shadow.
    rows, columns = np.nonzero(mask)
    y, x = np.mgrid[:SIZE, :SIZE]
    far = (x < columns.min() - 14) | (x > columns.max() + 14) | (y > rows.max() + 24)
    assert change[far].mean() < 0.01


def test_the_nose_turns_and_nods_as_the_angles_say():
    person = _person()

    def nose(motion):
        depth = np.asarray(render.render(person, motion, SIZE).depth)
        return np.array(np.unravel_index(np.argmin(depth), depth.shape))  # row, column

    front = nose(CALM)
    assert nose(_turned(yaw=20))[1] > front[1] + 3 and nose(_turned(yaw=-20))[1] < front[1] - 3
    assert nose(_turned(pitch=15))[0] < front[0] - 2


def test_clips_are_their_frames():
    person = _person(hair=True)
    angles = np.float32([0, 10, 20])
    clip = dataclasses.replace(
        CALM, **{name: np.zeros(3, np.float32) for name in vars(CALM)} | {"yaw": angles}
    )
    pictures = render.render_clip(person, clip, SIZE)
    single = render.render(person, _turned(yaw=10), SIZE)
    np.testing.assert_array_equal(pictures.colour[1], single.colour)


@pytest.mark.slow
def test_all_frames_at_once_look_like_one_after_another():
    """What accelerators do; on a CPU it only takes longer. Rounding may move single edge pixels."""
    person = _person(hair=True, glasses=True)
    clip = dataclasses.replace(
        CALM, **dict.fromkeys(vars(CALM), np.zeros(2, np.float32)) | {"yaw": np.float32([0, 15])}
    )
    together = render.render_together(person, clip, SIZE, 1)
    apart = render.render_clip(person, clip, SIZE)
    difference = np.abs(np.asarray(together.colour) - apart.colour)
    assert difference.mean() < 1e-3 and (difference.max(-1) > 0.05).mean() < 0.01


def test_sizes_that_tiles_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="multiple of 16"):
        render.render(_person(), CALM, 72)
