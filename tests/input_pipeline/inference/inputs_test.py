from fractions import Fraction

import numpy as np
import pytest
from skimage.data import astronaut

from input_pipeline.errors import InputError
from input_pipeline.faces import geometry
from input_pipeline.inference import aligners, inputs
from input_pipeline.kinds import KINDS
from input_pipeline.masks import alignment, segmenters
from input_pipeline.masks.regions import grow
from input_pipeline.media.pictures import read_picture, write_picture


def masking(segmenter, aligner=aligners.geometric, grow=0.03):
    return inputs.Masking(segmenter, aligner, grow)


@pytest.fixture(scope="module")
def segmenter():
    return segmenters.load("heuristic")


@pytest.fixture(scope="module")
def scene(portrait_picture, talking_head_clips, landmarker, segmenter):
    sources = [(talking_head_clips / "warm.mp4", "hair"), (portrait_picture, "glasses")]
    driving = talking_head_clips / "dark.mp4"
    return inputs.read_scene(portrait_picture, sources, driving, 96, landmarker, masking(segmenter))


def test_scene_gives_the_batch_contract(scene):
    shapes = {name: (value.shape, value.dtype.name) for name, value in scene.batch.items()}
    assert shapes == {
        "keypoints": ((60, 478, 2), "float32"),
        "portrait": ((96, 96, 3), "uint8"),
        "portrait_mask": ((96, 96), "bool"),
        "portrait_keypoints": ((478, 2), "float32"),
        "attribute": ((2, 96, 96, 3), "uint8"),
        "attribute_mask": ((2, 96, 96), "bool"),
        "attribute_keypoints": ((2, 478, 2), "float32"),
        "face": ((112, 112, 3), "uint8"),
    }
    assert scene.motion.fps == Fraction(25)


def test_references_come_with_the_keypoints_of_their_faces(scene):
    np.testing.assert_array_equal(
        scene.batch["portrait_keypoints"], scene.portrait.keypoints[:, :2]
    )
    for points, (source, _) in zip(scene.batch["attribute_keypoints"], scene.sources):
        np.testing.assert_array_equal(points, source.keypoints[:, :2])


def test_portrait_hides_its_own_region_and_the_aligned_one(scene, segmenter):
    # Eq. 13: M_port = M_init U aligned masks.
    hidden = scene.batch["portrait_mask"]
    own = scene.portrait.find(frozenset({"hair", "glasses"}), segmenter)
    assert all(hidden[mask].all() for mask in own.values())
    assert (scene.batch["portrait"][hidden] == 0).all()
    shown = ~hidden
    np.testing.assert_array_equal(scene.batch["portrait"][shown], scene.portrait.image[shown])
    assert hidden.sum() > (own["hair"] | own["glasses"]).sum()


def test_models_trained_on_whole_references_get_them_whole(
    portrait_picture, talking_head_clips, landmarker, segmenter
):
    whole = inputs.Masking(segmenter, aligners.geometric, 0.03, masked=False)
    sources = [(talking_head_clips / "warm.mp4", "hair")]
    scene = inputs.read_scene(portrait_picture, sources, portrait_picture, 64, landmarker, whole)
    np.testing.assert_array_equal(scene.batch["portrait"], scene.portrait.image)
    np.testing.assert_array_equal(scene.batch["attribute"][0], scene.sources[0][0].image)
    assert scene.batch["portrait_mask"].any() and scene.batch["attribute_mask"].any()


def test_the_aligner_says_where_attributes_will_lie(scene):
    for (source, kind), mask, aligned in zip(
        scene.sources, scene.batch["attribute_mask"], scene.aligned
    ):
        carried = alignment.align(mask, source.keypoints, scene.portrait.keypoints, kind, 96)
        np.testing.assert_array_equal(aligned, carried)
        assert scene.batch["portrait_mask"][aligned].all()


def test_the_mask_grows_by_a_share_of_the_face(
    portrait_picture, talking_head_clips, landmarker, segmenter
):
    def hidden(share):
        scene = inputs.read_scene(
            portrait_picture, [(talking_head_clips / "warm.mp4", "hair")],
            talking_head_clips / "dark.mp4", 96, landmarker, masking(segmenter, grow=share),
        )  # fmt: skip
        return scene.batch["portrait_mask"], np.ptp(scene.portrait.keypoints[:, 1])

    (plain, height), (grown, _) = hidden(0.0), hidden(0.1)
    np.testing.assert_array_equal(grown, grow(plain, 0.1 * height))
    with pytest.raises(InputError, match=r"grow_mask 1\.5: must be 0 to 1"):
        masking(segmenter, grow=1.5)


def test_the_preview_shows_every_mask_beside_what_is_left(scene):
    preview = scene.preview()
    assert preview.shape == (96, 7 * 96, 3) and preview.dtype == np.uint8
    tiles = np.split(preview, 7, axis=1)
    np.testing.assert_array_equal(tiles[0], scene.portrait.image)
    np.testing.assert_array_equal(tiles[-1], scene.batch["portrait"])
    for tile, mask in zip((tiles[1], tiles[3]), (scene.own, scene.aligned[0])):
        changed = (tile != scene.portrait.image).any(-1)
        assert changed[mask].mean() > 0.9 and not changed[~grow(mask, 2)].any()


def test_attributes_are_black_outside_their_masks(scene):
    for image, mask in zip(scene.batch["attribute"], scene.batch["attribute_mask"]):
        assert mask.mean() > 0.005 and (image[~mask] == 0).all() and image[mask].any()


def test_motion_starts_at_the_portraits_own_keypoints(scene):
    own = scene.portrait.keypoints[:, :2]
    np.testing.assert_allclose(scene.batch["keypoints"][0], own, atol=0.01)
    assert np.abs(scene.batch["keypoints"][15] - own).mean() > 0.5


def test_driver_frames_are_cropped_around_the_head(scene):
    frames = list(scene.motion.frames(96))
    assert len(frames) == 60
    points = scene.motion.crop.points(scene.motion.keypoints, 96)[..., :2]
    assert points.min() > 0 and points.max() < 95


def test_an_attribute_that_is_not_there_is_named(portrait_picture, talking_head_clips, landmarker):
    def finds_nothing(pictures, present):
        return {kind: np.zeros(pictures.images.shape[:3], bool) for kind in present}

    with pytest.raises(InputError, match=r"no hat found \(0.00% of the picture, 0.5% needed\)"):
        inputs.read_scene(
            portrait_picture, [(portrait_picture, "hat")], talking_head_clips / "cool.mp4", 64,
            landmarker, masking(finds_nothing),
        )  # fmt: skip


@pytest.mark.parametrize("kind", ["glasses", "beard", "hat"])
def test_what_the_segmenter_cannot_tell_is_noted(
    kind, portrait_picture, talking_head_clips, landmarker, segmenter, tmp_path
):
    def notes(segmenter, *mask):
        scene = inputs.read_scene(
            portrait_picture, [(portrait_picture, kind, *mask)], portrait_picture, 64, landmarker,
            masking(segmenter),
        )  # fmt: skip
        return [note for note in scene.notes if kind in note]

    (note,) = notes(segmenter)
    assert str(portrait_picture) in note and f"where {kind} would be: use a photo" in note
    # Neither with a mask nor by a segmenter that looks for the attribute itself.
    assert not notes(
        segmenter, _mask_file(tmp_path / "m.png", 512, 512, slice(9, 99), slice(200, 300))
    )
    assert not notes(lambda pictures, present: segmenter(pictures, present))


def test_an_unknown_kind_is_refused_before_reading(landmarker, segmenter):
    with pytest.raises(InputError, match=f"choose from {', '.join(KINDS)}"):
        inputs.read_scene("a.png", [("b.png", "wig")], "c.mp4", 64, landmarker, masking(segmenter))


def _mask_file(path, height, width, rows, columns):
    mask = np.zeros((height, width), np.uint8)
    mask[rows, columns] = 255
    write_picture(path, mask)
    return path


def test_given_masks_take_the_place_of_the_segmenter(
    portrait_picture, talking_head_clips, landmarker, tmp_path
):
    # Around the crop of the astronaut: columns 130..350, rows 10..240 of 512 x 512.
    shown = _mask_file(tmp_path / "shown.png", 512, 512, slice(20, 120), slice(150, 300))
    own = _mask_file(tmp_path / "own.png", 512, 512, slice(100, 130), slice(180, 260))
    scene = inputs.read_scene(
        portrait_picture, [(portrait_picture, "hat", shown)], talking_head_clips / "cool.mp4", 64,
        landmarker, masking(_never), portrait_mask=own,
    )  # fmt: skip
    track = landmarker.track([astronaut()])
    crop = geometry.Crop.around(track.keypoints, 512, 512)

    def cropped(path):
        return crop.apply(np.asarray(read_picture(path)), 64)[..., 0]

    np.testing.assert_array_equal(scene.batch["attribute_mask"][0], cropped(shown) > 127)
    assert scene.batch["portrait_mask"][cropped(own) > 0].all()
    assert scene.batch["portrait_mask"][scene.batch["attribute_mask"][0]].all()
    assert not scene.batch["portrait_mask"].all()


def _never(*_):
    raise AssertionError("the segmenter was asked although masks were given")


def test_a_given_mask_may_be_thin_but_not_empty(
    portrait_picture, talking_head_clips, landmarker, tmp_path
):
    def shown(mask):
        scene = inputs.read_scene(
            portrait_picture, [(portrait_picture, "glasses", mask)],
            talking_head_clips / "cool.mp4", 32, landmarker, masking(_never), portrait_mask=black,
        )  # fmt: skip
        return scene.batch["attribute_mask"][0]

    black = _mask_file(tmp_path / "black.png", 512, 512, slice(0, 0), slice(0, 0))
    thin = _mask_file(tmp_path / "thin.png", 512, 512, slice(120, 122), slice(180, 260))
    assert 3 <= shown(thin).sum() <= 40
    with pytest.raises(InputError, match=r"its mask is black: paint it white where glasses"):
        shown(black)
    white = _mask_file(tmp_path / "white.png", 512, 512, slice(0, 512), slice(0, 512))
    with pytest.raises(InputError, match=r"the glasses mask covers 100% of the picture, at most"):
        shown(white)


@pytest.fixture
def outfit(portrait_picture, talking_head_clips, tmp_path):
    """A painted hat, two views of somebody's hair, and glasses."""
    hat = _mask_file(tmp_path / "hat.png", 512, 512, slice(0, 70), slice(150, 310))
    return [
        (portrait_picture, "hat", hat),
        (talking_head_clips / "warm.mp4", "hair"),
        (talking_head_clips / "dark.mp4", "hair"),
        (talking_head_clips / "cool.mp4", "glasses"),
    ]


@pytest.fixture
def dress(portrait_picture, landmarker, segmenter):
    def read(attributes, size=64):
        driving = portrait_picture
        return inputs.read_scene(
            portrait_picture, attributes, driving, size, landmarker, masking(segmenter)
        )

    return read


def test_the_order_of_attributes_changes_no_mask(outfit, dress):
    del outfit[3]
    seen = []
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        scene = dress([outfit[i] for i in order])
        masks = dict(zip(order, scene.batch["attribute_mask"]))
        photos = dict(zip(order, scene.photos[1:]))
        seen.append(
            [scene.batch["portrait_mask"], scene.batch["portrait"]]
            + [np.stack([by_place[i] for i in range(3)]) for by_place in (masks, photos)]
        )
    for other in seen[1:]:
        for a, b in zip(seen[0], other):
            np.testing.assert_array_equal(a, b)
    # The hat takes its part of both views of the hair.
    for view in (1, 2):
        alone = dress([outfit[view]]).batch["attribute_mask"][0]
        assert not (masks[view] & ~alone).any() and masks[view].sum() < 0.95 * alone.sum()


def test_attributes_are_padded_to_few_counts(outfit, dress):
    for count, padded in ((1, 1), (2, 2), (3, 4), (4, 4)):
        scene = dress(outfit[:count], 32)
        assert scene.batch["attribute"].shape == (padded, 32, 32, 3)
        assert scene.batch["attribute_mask"].shape == (padded, 32, 32)
        assert not scene.batch["attribute"][count:].any()
        assert not scene.batch["attribute_mask"][count:].any()
        assert scene.batch["attribute_mask"][:count].any((1, 2)).all()
        assert ("attribute_count" in scene.batch) == (padded > 2)
        if padded > 2:
            value = scene.batch["attribute_count"]
            assert value == count and value.shape == () and value.dtype == np.int32
        assert len(scene.photos) == 1 + count
        assert scene.preview().shape == (32, (3 + 2 * count) * 32, 3)
        np.testing.assert_array_equal(scene.photos[0], scene.portrait.image)
        np.testing.assert_array_equal(scene.photos[1:], scene.batch["attribute"][:count])


def test_nine_attributes_are_too_many(dress):
    with pytest.raises(InputError, match=r"9 attributes: at most 8 .* leave out 1"):
        dress([("none.png", "hair")] * 9)


def test_hair_that_a_hat_would_cover_is_left_out_with_a_note(outfit, dress, segmenter, tmp_path):
    hat, hair = outfit[:2]
    lock = _mask_file(tmp_path / "lock.png", 256, 256, slice(20, 34), slice(110, 150))
    scene = dress([hat, (hair[0], "hair", lock)])
    assert [kind for _, kind in scene.sources] == ["hat"]
    assert scene.batch["attribute"].shape[0] == 1 and len(scene.photos) == 2
    (note,) = scene.notes
    assert "warm.mp4: its hair is left out, the hat would cover it" in note
    # The portrait's own hair still makes room.
    own = scene.portrait.find(frozenset({"hair", "hat"}), segmenter)["hair"]
    assert own.any() and scene.batch["portrait_mask"][own].all()
