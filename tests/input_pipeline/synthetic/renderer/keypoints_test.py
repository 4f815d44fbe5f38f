import dataclasses

import jax
import numpy as np
import pytest

from input_pipeline.faces import geometry
from input_pipeline.faces.landmarker import FaceLandmarker
from input_pipeline.synthetic import population
from input_pipeline.synthetic.motion import CALM
from input_pipeline.synthetic.people import KINDS, sample_person
from input_pipeline.synthetic.renderer import keypoints, render

SIZE = 64


def _bare(seed=3):
    return sample_person(np.random.default_rng(seed), dict.fromkeys(KINDS, False))


def _moved(**values):
    return dataclasses.replace(CALM, **{name: np.float32(v) for name, v in values.items()})


def _points(motion, person=None, size=SIZE):
    return np.asarray(keypoints.keypoints(person or _bare(), motion, size).points)


def test_a_calm_face_is_symmetric_and_in_the_middle():
    points = _points(CALM)
    assert points.shape == (478, 3) and points.dtype == np.float32
    for right, left in ((33, 263), (61, 291), (234, 454), (105, 334), (468, 473)):
        np.testing.assert_allclose(points[right, 0] + points[left, 0], SIZE - 1, atol=0.2)
        np.testing.assert_allclose(points[right, 1], points[left, 1], atol=0.2)
    assert points[10, 1] < points[168, 1] < points[4, 1] < points[13, 1] < points[152, 1]
    assert points[4, 2] < points[234, 2]  # the nose is nearer than the ears


def test_expressions_move_what_they_name():
    calm = _points(CALM)
    opened, blink = _points(_moved(open=0.8)), _points(_moved(blink=1))
    assert opened[14, 1] - opened[13, 1] > calm[14, 1] - calm[13, 1] + 2
    assert opened[152, 1] > calm[152, 1] + 1
    for upper, lower in ((159, 145), (386, 374)):
        assert calm[lower, 1] - calm[upper, 1] > 1.5 > 0.5 > abs(blink[lower, 1] - blink[upper, 1])
    smile = _points(_moved(smile=1))
    assert smile[291, 0] - smile[61, 0] > calm[291, 0] - calm[61, 0] + 1
    assert _points(_moved(brow=1))[105, 1] < calm[105, 1] - 1
    assert _points(_moved(gaze_x=0.3))[468, 0] > calm[468, 0] + 0.5


def test_pose_from_the_keypoints_is_the_pose():
    for pose in ((20, 0, 0), (-20, 8, 0), (0, -10, 8)):
        motion = _moved(**dict(zip(("yaw", "pitch", "roll"), pose)))
        rotation, _, _ = geometry.head_pose(_points(motion))
        found = geometry.euler_angles(rotation)
        # Pitch depends on whose mean head is called level.
        np.testing.assert_allclose(found[[0, 2]], np.array(pose)[[0, 2]], atol=2.5)
        np.testing.assert_allclose(found[1], pose[1], atol=8)


def test_what_lies_behind_something_is_hidden():
    front = np.asarray(keypoints.keypoints(_bare(), CALM, SIZE).visible)
    assert front.mean() > 0.9
    turned = np.asarray(keypoints.keypoints(_bare(), _moved(yaw=35), SIZE).visible)
    # The nose points to the right of the picture: its right side is the far one.
    assert not turned[454] and turned[234]
    for kind, hidden, seen in (("hair", 10, 152), ("beard", 152, 10)):
        worn = dict.fromkeys(KINDS, False) | {kind: True}
        person = sample_person(np.random.default_rng(3), worn)
        thick = dict(fringe=0.95, hairline=0.7, volume=0.3, temples=0.0, crown=9.0, sweep=0.0)
        if kind == "beard":
            thick = dict(chin=1.0, cheeks=1.0, length=0.8)
        thick = {name: np.float32(value) for name, value in thick.items()}
        group = dataclasses.replace(getattr(person, kind), **thick)
        person = dataclasses.replace(person, **{kind: group})
        visible = np.asarray(keypoints.keypoints(person, CALM, SIZE).visible)
        assert front[hidden] and not visible[hidden] and visible[seen]


def test_keypoints_scale_with_the_picture():
    small, large = _points(CALM, size=64), _points(CALM, size=128)
    np.testing.assert_allclose((small[:, :2] + 0.5) * 2, large[:, :2] + 0.5, atol=1e-3)
    np.testing.assert_allclose(small[:, 2] * 2, large[:, 2], atol=1e-3)


def test_the_crop_of_prepare_leaves_the_pictures_whole():
    """The face fills as much of the picture as `durian prepare` makes it fill."""
    for seed in range(12):
        person = sample_person(np.random.default_rng(seed))
        settings = population.Settings(size=SIZE, frames=8)
        clip = population.draw_motion(settings, seed, 0)
        points = keypoints.keypoints_of_clip(person, clip, SIZE).points
        crop = geometry.Crop.around(points, SIZE, SIZE)
        np.testing.assert_allclose(dataclasses.astuple(crop), [31.5, 31.5, SIZE], atol=1e-6)


def _disagreement(seed, people, size):
    """[people, 478] distances of what `geometry.py` finds from the truth, in eye distances."""
    settings, landmarker, errors = (
        population.Settings(size=size, seed=seed),
        FaceLandmarker(),
        [],
    )
    for index in range(people):
        person, motion = (
            population.draw_person(settings, index),
            population.draw_motion(settings, index, 0).at(8),
        )
        truth = _points(motion, person, size)
        image = render.to_uint8(render.render(person, motion, size).colour)
        track = landmarker.track([image])
        assert track.found[0], f"no face in the picture of person {index}"
        span = np.linalg.norm(truth[33] - truth[263])
        errors.append(np.linalg.norm(track.keypoints[0, :, :2] - truth[:, :2], axis=1) / span)
    return np.stack(errors)


@pytest.mark.slow
def test_the_face_mesh_network_finds_the_points_within_3_percent_of_the_eye_distance():
    """200 frames of 200 people, none of whom had a part in the fit of the mean mesh."""
    errors = _disagreement(seed=11, people=200, size=256)
    print(f"median {np.median(errors):.4f}, by frame up to {np.median(errors, 1).max():.4f}")
    assert np.median(errors) < 0.03


def test_the_face_mesh_network_agrees_on_a_few_small_pictures():
    assert np.median(_disagreement(seed=12, people=8, size=128)) < 0.04


def test_people_share_one_compiled_program():
    keypoints.keypoints(_bare(1), CALM, SIZE)
    before = keypoints.keypoints._cache_size()
    keypoints.keypoints(_bare(2), _moved(yaw=3), SIZE)
    assert keypoints.keypoints._cache_size() == before
    assert jax.tree.structure(_bare(1)) == jax.tree.structure(_bare(2))
