import itertools

import cv2
import numpy as np
import pytest
from skimage import data

from input_pipeline.faces.geometry import CONTOURS, Crop
from input_pipeline.faces.landmarker import FaceLandmarker
from input_pipeline.kinds import KINDS
from input_pipeline.masks.segmenters import Pictures
from input_pipeline.masks.segmenters.heuristic import HeuristicSegmenter

ALL = frozenset(KINDS)


@pytest.fixture(scope="module")
def segment():
    return of_one(HeuristicSegmenter())


@pytest.fixture(scope="module")
def landmarker():
    return FaceLandmarker()


@pytest.fixture(scope="module")
def portrait(landmarker):
    """A 512-pixel crop of a woman with brown shoulder-length hair, and her keypoints."""
    return crop_face(landmarker, data.astronaut(), 512)


@pytest.fixture(scope="module")
def masks(segment, portrait):
    return segment(*portrait, frozenset({"hair", "glasses", "beard"}))


def of_one(segmenter):
    """The segmenter as a function of one picture, its keypoints and the kinds."""

    def segment(image, keypoints, present):
        masks = segmenter(Pictures(image[None], keypoints[None]), present)
        return {kind: mask[0] for kind, mask in masks.items()}

    return segment


def crop_face(landmarker, image, size):
    keypoints = landmarker.track([image]).keypoints
    crop = Crop.around(keypoints, *image.shape[:2])
    return crop.apply(image, size), crop.points(keypoints[0], size)


def inside(keypoints, name, size=512):
    mask = np.zeros((size, size), np.uint8)
    for chain in CONTOURS[name]:
        cv2.fillPoly(mask, [np.round(keypoints[list(chain), :2]).astype(np.int32)], 1)
    return mask > 0


def at(keypoints, index, up=0.0, right=0.0):
    """The pixel (row, column) so many outer-canthal distances away from a keypoint."""
    span = np.linalg.norm(keypoints[263, :2] - keypoints[33, :2])
    x, y = keypoints[index, :2]
    return round(float(y - up * span)), round(float(x + right * span))


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def test_hair_covers_the_crown_and_both_sides_but_neither_face_nor_clothes(masks, portrait):
    _, keypoints = portrait
    hair = masks["hair"]
    assert hair[at(keypoints, 10, up=0.6)]
    assert hair[at(keypoints, 127, up=0.3, right=-0.2)]
    assert hair[at(keypoints, 356, up=0.3, right=0.2)]
    for name in ("eyes", "lips", "brows"):
        assert (hair & inside(keypoints, name)).sum() == 0
    assert not hair[at(keypoints, 1)]
    assert not hair[at(keypoints, 151)]  # forehead
    assert not hair[at(keypoints, 152, up=-0.9)]  # below the chin
    assert not hair[:, :8].any()  # background


def test_glasses_cover_both_eyes_and_the_bridge_and_not_the_mouth(masks, portrait):
    _, keypoints = portrait
    glasses = masks["glasses"]
    assert glasses[inside(keypoints, "eyes")].all()
    assert glasses[at(keypoints, 168)]
    assert not (glasses & inside(keypoints, "lips")).any()


def test_beard_covers_chin_and_upper_lip_but_not_the_lips(masks, portrait):
    _, keypoints = portrait
    beard = masks["beard"]
    lips = inside(keypoints, "lips")
    # Lips are cut out at working size: only their outermost pixels may differ.
    assert not (beard & cv2.erode(lips.astype(np.uint8), np.ones((5, 5))).astype(bool)).any()
    assert beard[at(keypoints, 199)] and beard[at(keypoints, 164)]
    assert not (beard & inside(keypoints, "eyes")).any()


def test_a_red_cap_is_hat_and_the_hair_beside_it_is_hair(segment, portrait):
    image, keypoints = portrait
    row, column = at(keypoints, 10, up=0.55)
    span = np.linalg.norm(keypoints[263] - keypoints[33])
    cap = np.zeros(image.shape[:2], np.uint8)
    axes = (round(0.95 * span), round(0.5 * span))
    cv2.ellipse(cap, (column, row), axes, 0, 0, 360, 1, -1)
    cap = cap > 0
    image = np.where(cap[..., None], np.array([190, 20, 30], np.uint8), image)
    masks = segment(image, keypoints, frozenset({"hair", "hat"}))
    assert iou(masks["hat"], cap) > 0.8
    assert not (masks["hat"] & masks["hair"]).any()
    assert (masks["hair"] & cap).sum() < 0.05 * cap.sum()
    assert masks["hair"].sum() > 0.3 * cap.sum()


def test_hair_beard_and_hat_never_overlap(segment, portrait):
    masks = segment(*portrait, ALL)
    together = sum(masks[kind].astype(int) for kind in ("hair", "beard", "hat"))
    assert together.max() == 1


def test_only_the_requested_kinds_are_returned(segment, portrait):
    for present in (frozenset(), frozenset({"beard"}), frozenset({"hair", "glasses"}), ALL):
        masks = segment(*portrait, present)
        assert set(masks) == present
        assert all(mask.dtype == bool and mask.shape == (512, 512) for mask in masks.values())


def test_the_same_picture_gives_the_same_masks(segment, portrait):
    first, second = segment(*portrait, ALL), of_one(HeuristicSegmenter())(*portrait, ALL)
    assert all(np.array_equal(first[kind], second[kind]) for kind in KINDS)


@pytest.mark.parametrize("size, least", [(1024, 0.95), (256, 0.95), (64, 0.8)])
def test_masks_scale_with_the_picture(segment, portrait, masks, size, least):
    image, keypoints = portrait
    method = cv2.INTER_AREA if size < 512 else cv2.INTER_LINEAR
    resized = cv2.resize(image, (size, size), interpolation=method)
    scaled = (keypoints + 0.5) * (size / 512) - 0.5
    for kind, mask in segment(resized, scaled, frozenset(masks)).items():
        mask = cv2.resize(mask.astype(np.uint8), (512, 512), interpolation=cv2.INTER_NEAREST)
        assert iou(mask > 0, masks[kind]) > least, kind


def test_a_mirrored_picture_gives_mirrored_masks(segment, landmarker, portrait):
    mirrored = np.ascontiguousarray(portrait[0][:, ::-1])
    keypoints = landmarker.track([mirrored]).keypoints[0]
    present = frozenset({"hair", "glasses"})
    masks, reflections = segment(*portrait, present), segment(mirrored, keypoints, present)
    for kind in present:
        assert iou(reflections[kind][:, ::-1], masks[kind]) > 0.93, kind


def test_a_picture_of_nobody_gives_masks_without_hair(segment, portrait):
    masks = segment(np.full((512, 512, 3), 128, np.uint8), portrait[1], ALL)
    assert not masks["hair"].any()


def test_hair_does_not_flicker(portrait):
    # Ten pictures of one face that differ in noise alone.
    image, keypoints = portrait
    rng = np.random.default_rng(0)
    frames = image + rng.normal(0, 15, (10, *image.shape))
    frames = np.clip(frames, 0, 255).astype(np.uint8)
    segmenter, hair = HeuristicSegmenter(), frozenset({"hair"})
    clip = segmenter(Pictures(frames, np.repeat(keypoints[None], 10, 0)), hair)["hair"]
    alone = [of_one(segmenter)(frame, keypoints, hair)["hair"] for frame in frames]
    steadiness = [
        np.mean([iou(first, second) for first, second in itertools.pairwise(masks)])
        for masks in (clip, alone)
    ]
    assert steadiness[0] > 0.99
    assert 1 - steadiness[0] < 0.5 * (1 - steadiness[1])
    assert np.mean([iou(one, other) for one, other in zip(clip, alone)]) > 0.9


def test_a_mask_follows_a_head_that_moves(segment, portrait):
    image, keypoints = portrait
    hair = frozenset({"hair"})
    frames, points = [], []
    for i in range(6):
        shift = np.array([6.0 * i, 3.0 * i])
        matrix = np.column_stack([np.eye(2), shift])
        frames.append(cv2.warpAffine(image, matrix, (512, 512), borderMode=cv2.BORDER_REPLICATE))
        points.append(keypoints + np.append(shift, 0).astype(np.float32))
    masks = HeuristicSegmenter()(Pictures(np.array(frames), np.array(points)), hair)["hair"]
    for frame, point, mask in zip(frames, points, masks):
        assert iou(segment(frame, point, hair)["hair"], mask) > 0.93
