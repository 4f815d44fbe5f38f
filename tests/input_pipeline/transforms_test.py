import dataclasses

import cv2
import numpy as np
import pytest

from input_pipeline import records, transforms
from input_pipeline.errors import InputError
from input_pipeline.transforms import SampleOptions, choose_frames, grow, make_sample

OPTIONS = SampleOptions(size=64, frames=4, jitter_probability=0.0)
SEEDS = range(20)


def _magenta(image):
    """Pixels clearly of the hair's colour: much more red and blue than green."""
    r, g, b = np.moveaxis(image.astype(int), -1, 0)
    return np.minimum(r, b) - g > 100


def _frame_number(image):
    """The frame that a painted picture shows, from the red of its corner."""
    return round(image[..., 2, 2, 0] / 4)


@pytest.mark.parametrize("size", [32, 64, 96])
def test_portrait_holds_no_pixel_of_the_attribute(painted_chunk, size):
    # Invariant (d) of the method, with the affine augmentation on and no slack around the mask.
    options = dataclasses.replace(OPTIONS, size=size, grow=0.0)
    for seed in SEEDS:
        sample = make_sample(painted_chunk(), options, np.random.default_rng(seed))
        assert not _magenta(sample["portrait"]).any()
        assert _magenta(sample["video"]).any() and _magenta(sample["attribute"]).any()


def test_attribute_reference_shows_the_attribute_and_nothing_else(painted_chunk):
    for seed in SEEDS:
        sample = make_sample(painted_chunk(), OPTIONS, np.random.default_rng(seed))
        attribute, mask = sample["attribute"][0], sample["attribute_mask"][0]
        assert (attribute[~mask] == 0).all()
        assert _magenta(attribute[mask]).mean() > 0.85
        assert (sample["portrait"][sample["portrait_mask"]] == 0).all()


def test_references_and_target_are_different_frames(painted_chunk):
    still = dataclasses.replace(OPTIONS, affine_probability=0.0, reference_gap=5)
    for seed in SEEDS:
        sample = make_sample(painted_chunk(), still, np.random.default_rng(seed))
        portrait = _frame_number(sample["portrait"])
        target = [_frame_number(frame) for frame in sample["video"]]
        assert np.diff(target).tolist() == [1, 1, 1]
        assert min(abs(portrait - frame) for frame in target) >= 5


def test_attribute_and_portrait_are_different_frames(painted_chunk, monkeypatch):
    read = []
    original = records.decode_mask
    monkeypatch.setattr(transforms, "decode_mask", lambda data: read.append(data) or original(data))
    chunk = painted_chunk()
    chunk.masks["hair"] = [records.encode_mask(np.eye(64) + (np.arange(64) == i) > 0)
                           for i in range(60)]  # fmt: skip
    for seed in SEEDS:
        read.clear()
        make_sample(chunk, OPTIONS, np.random.default_rng(seed))
        attribute, portrait = read[-2:]
        assert attribute != portrait


@pytest.mark.parametrize("count,frames,stride,gap", [(60, 1, 1, 30), (64, 24, 1, 30),
                                                     (64, 8, 4, 10), (10, 8, 3, 30)])  # fmt: skip
def test_references_keep_their_distance_where_the_chunk_allows(count, frames, stride, gap):
    options = SampleOptions(size=64, frames=frames, stride=stride, reference_gap=gap)
    for seed in range(100):
        target, candidates = choose_frames(count, options, np.random.default_rng(seed))
        assert len(target) == frames and target.min() >= 0 and target.max() < count
        assert len(candidates) >= 2 and len(set(candidates)) == len(candidates)
        distance = np.abs(candidates[:, None] - target).min(1)
        others = np.setdiff1d(np.arange(count), target)
        farthest = np.sort(np.abs(others[:, None] - target).min(1))[::-1]
        assert distance.min() >= min(gap, farthest[min(7, len(farthest) - 1)])
        assert not set(candidates) & set(target)


def test_target_frames_are_never_augmented(painted_chunk):
    options = dataclasses.replace(OPTIONS, jitter_probability=1.0)
    chunk = painted_chunk()
    sample = make_sample(chunk, options, np.random.default_rng(3))
    for frame in sample["video"]:
        source = records.decode_frame(chunk.frames[_frame_number(frame)])
        np.testing.assert_array_equal(frame, source)


def test_keypoints_follow_the_size_of_the_pictures(painted_chunk):
    small = make_sample(painted_chunk(), OPTIONS, np.random.default_rng(0))
    large = make_sample(
        painted_chunk(), dataclasses.replace(OPTIONS, size=128), np.random.default_rng(0)
    )
    # A pixel's centre is at its index, so the picture starts at -0.5.
    np.testing.assert_allclose(large["keypoints"] + 0.5, 2 * (small["keypoints"] + 0.5), rtol=1e-5)


def test_sample_depends_on_the_generator_alone(painted_chunk):
    first, again, other = (
        make_sample(painted_chunk(), OPTIONS, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name])
    assert (first["portrait"] != other["portrait"]).any()


def test_portrait_mask_grows_by_up_to_the_given_share_of_the_face(painted_chunk):
    plain = dataclasses.replace(OPTIONS, affine_probability=0.0, grow=0.0)
    slack = dataclasses.replace(plain, grow=0.3)
    areas = [
        [make_sample(painted_chunk(), options, np.random.default_rng(seed))["portrait_mask"].sum()
         for seed in SEEDS]
        for options in (plain, slack)
    ]  # fmt: skip
    assert np.all(np.array(areas[1]) >= areas[0]) and np.mean(areas[1]) > 1.2 * np.mean(areas[0])


def test_growth_reaches_exactly_the_radius():
    mask = np.zeros((41, 41), bool)
    mask[20, 20] = True
    y, x = np.mgrid[:41, :41]
    distance = np.hypot(y - 20, x - 20)
    grown = grow(mask, 7.0)
    assert grown[distance <= 6.5].all() and not grown[distance >= 7.5].any()
    assert not grow(np.zeros((5, 5), bool), 3.0).any()


def test_a_clip_without_attributes_hides_and_shows_nothing(painted_chunk):
    chunk = dataclasses.replace(painted_chunk(), masks={})
    sample = make_sample(chunk, OPTIONS, np.random.default_rng(0))
    assert not sample["portrait_mask"].any() and not sample["attribute_mask"].any()
    assert not sample["attribute"].any() and sample["portrait"].any()


def test_a_mask_too_small_to_see_is_not_used(painted_chunk):
    tiny = np.zeros((64, 64), bool)
    tiny[0, :5] = True
    chunk = dataclasses.replace(painted_chunk(), masks={"hair": [records.encode_mask(tiny)] * 60})
    sample = make_sample(chunk, OPTIONS, np.random.default_rng(0))
    assert not sample["attribute_mask"].any()


def test_jitter_without_range_changes_nothing_and_with_range_keeps_grey_grey():
    rng = np.random.default_rng(0)
    none = transforms.jitter_matrix(SampleOptions(size=64, jitter=0.0, hue=0.0), rng)
    np.testing.assert_allclose(none, np.eye(3, 4), atol=1e-12)
    some = transforms.jitter_matrix(SampleOptions(size=64), rng)
    grey = some @ [90, 90, 90, 1]
    np.testing.assert_allclose(grey, grey[0], atol=0.2)


def test_affine_moves_picture_and_mask_together():
    image = np.zeros((64, 64, 3), np.uint8)
    image[20:40, 24:44] = 255
    mask = (image[..., 0] > 0).astype(np.float32)
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        moved, moved_mask = transforms.augment(image, mask, OPTIONS, rng, cv2.BORDER_CONSTANT)
        np.testing.assert_allclose(moved[..., 0] / 255, moved_mask, atol=0.02)


def test_chunk_too_short_for_target_and_references_is_refused(painted_chunk):
    with pytest.raises(ValueError, match="5 frames are too few for 4"):
        make_sample(painted_chunk(0, 5), OPTIONS, np.random.default_rng(0))


def test_unknown_kind_is_refused():
    with pytest.raises(InputError, match="choose from hair"):
        SampleOptions(size=64, kinds=("wig",))
