import dataclasses

import numpy as np
import pytest

from input_pipeline.dataset import records
from input_pipeline.errors import InputError
from input_pipeline.training import transforms
from input_pipeline.training.transforms import SampleOptions, choose_frames, make_sample

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


def test_unmasked_references_are_whole_and_keep_their_masks(painted_chunk):
    whole = dataclasses.replace(OPTIONS, masked=False)
    one, other = (
        make_sample(painted_chunk(), options, np.random.default_rng(3))
        for options in (OPTIONS, whole)
    )
    assert _magenta(other["portrait"]).any()
    for name in ("portrait", "attribute"):
        np.testing.assert_array_equal(one[f"{name}_mask"], other[f"{name}_mask"])
        seen = (one[name] != 0).any(-1)
        np.testing.assert_array_equal(one[name][seen], other[name][seen])


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


class _Lender:
    """Donors of one square mask; remembers who asked."""

    def __init__(self, empty=False):
        self.asked, self.empty = [], empty

    def borrow(self, kind, identity, keypoints, size, rng):
        self.asked.append((kind, identity, keypoints))
        mask = np.zeros((size, size), bool)
        mask[-8:, :8] = not self.empty
        return mask


def test_the_portrait_hides_what_it_borrows_and_its_own(painted_chunk):
    still = dataclasses.replace(OPTIONS, affine_probability=0.0, grow=0.0, expand_probability=1.0)
    for seed in SEEDS:
        plain, more = (
            make_sample(painted_chunk(), still, np.random.default_rng(seed), donors=lender)
            for lender in (_Lender(empty=True), _Lender())
        )
        added = more["portrait_mask"] & ~plain["portrait_mask"]
        assert added[-8:, :8].all() and added.sum() == 64
        assert not (plain["portrait_mask"] & ~more["portrait_mask"]).any()
        assert not more["portrait"][more["portrait_mask"]].any()
        np.testing.assert_array_equal(more["attribute_mask"], plain["attribute_mask"])


def test_expansion_obeys_its_probability_and_count(painted_chunk):
    for probability, count in ((0.0, 1), (0.5, 1), (1.0, 3)):
        options = dataclasses.replace(OPTIONS, expand_probability=probability, expand_count=count)
        asked = []
        for seed in range(60):
            lender = _Lender()
            make_sample(painted_chunk(5), options, np.random.default_rng(seed), donors=lender)
            assert all(question[:2] == ("hair", "person5") for question in lender.asked)
            asked.append(len(lender.asked))
        share = np.mean(np.array(asked) > 0)
        assert abs(share - probability) < 0.2
        assert set(asked) - {0} == set(range(1, count + 1) if probability else ())


def test_keypoints_reach_the_donors_in_pixels_of_the_sample(painted_chunk):
    for size in (64, 32):
        options = dataclasses.replace(OPTIONS, size=size, expand_probability=1.0)
        lender = _Lender()
        make_sample(painted_chunk(), options, np.random.default_rng(0), donors=lender)
        _, _, points = lender.asked[0]
        known = (painted_chunk().keypoints + 0.5) * (size / 64) - 0.5
        assert np.abs(known - points).max((1, 2)).min() < 1e-4


def test_masks_of_the_record_go_before_borrowed_ones(painted_chunk):
    corner = np.zeros((64, 64), bool)
    corner[:8, -8:] = True
    frames = range(0, 60, 2)
    expanded = {"hair": {i: [records.encode_mask(corner)] for i in frames}}
    chunk = dataclasses.replace(painted_chunk(), expanded=expanded)
    options = dataclasses.replace(OPTIONS, affine_probability=0.0, expand_probability=1.0)
    for seed in SEEDS:
        lender = _Lender()
        sample = make_sample(chunk, options, np.random.default_rng(seed), donors=lender)
        assert not lender.asked, "some candidate always has a mask of its own here"
        assert sample["portrait_mask"][:8, -8:].all()


def test_an_expansion_of_nothing_is_refused():
    with pytest.raises(InputError, match=r"data\.expand_count is 0"):
        SampleOptions(size=64, expand_count=0)


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


def test_chunk_too_short_for_target_and_references_is_refused(painted_chunk):
    with pytest.raises(ValueError, match="5 frames are too few for 4"):
        make_sample(painted_chunk(0, 5), OPTIONS, np.random.default_rng(0))


def test_unknown_kind_is_refused():
    with pytest.raises(InputError, match="choose from hair"):
        SampleOptions(size=64, kinds=("wig",))


def test_keypoints_of_references_are_those_of_their_frames_unless_augmented(painted_chunk):
    options = dataclasses.replace(OPTIONS, expand_probability=0.0, grow=0.0)
    names = ("portrait", "attribute")
    for one, other in (names, names[::-1]):
        chosen, changed = dataclasses.replace(options, augmented=(one,)), 0
        for seed in SEEDS:
            sample = make_sample(painted_chunk(), chosen, np.random.default_rng(seed))
            frames = painted_chunk().keypoints[..., :2]
            plain, moved = (sample[f"{name}_keypoints"].reshape(478, 2) for name in (other, one))
            assert np.abs(frames - plain).max((1, 2)).min() < 1e-4
            changed += np.abs(frames - moved).max((1, 2)).min() > 0.5
        assert changed > len(SEEDS) // 2


def test_keypoints_of_an_augmented_reference_move_with_its_picture(painted_chunk):
    # Keypoints and hair of the painted head sway together: their distance is the head's alone.
    for seed in SEEDS:
        sample = make_sample(painted_chunk(), OPTIONS, np.random.default_rng(seed))
        places = np.argwhere(sample["attribute_mask"][0])[:, ::-1]
        if places.min() > 0 and places.max() < 63:  # all of it is in the picture
            apart = sample["attribute_keypoints"][0].mean(0) - places.mean(0)
            assert 8 < np.linalg.norm(apart) < 25


def test_unknown_references_to_augment_are_refused():
    with pytest.raises(InputError, match=r"data.augmented has .'driver'.: choose portrait, attr"):
        dataclasses.replace(OPTIONS, augmented=("driver",))
