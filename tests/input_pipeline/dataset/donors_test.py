import dataclasses

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from skimage.data import astronaut

from input_pipeline.dataset import records
from input_pipeline.dataset.donors import MOST_DONORS, NOBODY, Donors
from input_pipeline.faces.landmarker import FaceLandmarker
from input_pipeline.masks import alignment
from input_pipeline.masks.regions import grow

SIZE = 128


@pytest.fixture(scope="module")
def face():
    """float32 [478, 3]: the astronaut in a picture of 128 pixels."""
    points = FaceLandmarker().track([astronaut()]).keypoints[0]
    return (points + 0.5) * (SIZE / 512) - 0.5


@pytest.fixture
def chunk(face, painted_chunk):
    """A function of (identity, degrees of yaw, hair) to a chunk of three equal frames."""

    def make(identity, yaw=0.0, hair=None):
        turn = Rotation.from_euler("y", -yaw, degrees=True).as_matrix()
        middle = face.mean(0)
        points = (face - middle) @ turn.T + middle
        mask = hair if hair is not None else cap(points)
        return dataclasses.replace(
            painted_chunk(0, 3), identity=identity, keypoints=np.float32([points] * 3),
            masks={"hair": [records.encode_mask(mask)] * 3},
        )  # fmt: skip

    return make


def cap(points, radius=14):
    mask = np.zeros((SIZE, SIZE), np.uint8)
    cv2.circle(mask, np.round(points[10, :2]).astype(int).tolist(), radius, 1, -1)
    return mask > 0


def test_a_mask_is_borrowed_from_somebody_else_and_carried_to_this_head(chunk, face):
    donors = Donors.collect([chunk("me", 0.0, cap(face, 30)), chunk("her", 20.0)])
    mine, hers = chunk("me"), chunk("her", 20.0)
    for seed in range(5):
        borrowed = donors.borrow("hair", "me", mine.keypoints[1], SIZE, np.random.default_rng(seed))
        hair = records.decode_mask(hers.masks["hair"][1])
        expected = alignment.align(hair, hers.keypoints[1], mine.keypoints[1], "hair", SIZE)
        shared = (borrowed & expected).sum() / (borrowed | expected).sum()
        assert shared > 0.95, "never my own, which is larger"


def test_nothing_is_borrowed_where_nobody_fits(chunk, face):
    rng = np.random.default_rng(0)
    everywhere = np.ones((SIZE, SIZE), bool)
    cases = {
        "nobody": NOBODY,
        "only myself": Donors.collect([chunk("me")]),
        "turned too far": Donors.collect([chunk("her", 60.0)]),
        "covers the picture": Donors.collect([chunk("her", 0.0, everywhere)]),
    }
    for name, donors in cases.items():
        assert not donors.borrow("hair", "me", face, SIZE, rng).any(), name
    her = Donors.collect([chunk("her")])
    assert her.borrow("hair", "me", face, SIZE, rng).any()
    assert not her.borrow("beard", "me", face, SIZE, rng).any()
    assert not her.borrow(None, "me", face, SIZE, rng).any()


def test_donors_survive_storage_and_the_size_of_the_portrait_is_free(chunk, face):
    donors = Donors.collect([chunk("her", 10.0)])
    again = Donors.decode(donors.encode())
    small, large = (
        d.borrow("hair", "me", (face + 0.5) * k - 0.5, k * SIZE, np.random.default_rng(0))
        for d, k in ((donors, 1), (again, 2))
    )
    halved = large.reshape(SIZE, 2, SIZE, 2).mean((1, 3)) > 0.5
    assert (halved & small).sum() / (halved | small).sum() > 0.95


def test_merged_donors_are_limited_and_come_from_all_parts(chunk):
    parts = [Donors.collect([chunk(f"{name}")] * 700) for name in ("a", "b")]
    merged = Donors.merge([*parts, NOBODY])
    identities = merged._rows["hair"]["identity"]
    assert len(identities) <= MOST_DONORS and set(identities) == {"a", "b"}


def test_small_masks_are_no_donors_and_most_is_kept(chunk):
    speck = np.zeros((SIZE, SIZE), bool)
    speck[:4, :4] = True
    assert not Donors.collect([chunk("her", 0.0, speck)])._rows
    assert len(Donors.collect([chunk("her")] * 5, most=3)._rows["hair"]) == 3


@pytest.mark.parametrize("radius", [0.5, 3.0, 40.0])
def test_growing_adds_the_pixels_within_the_radius(radius):
    mask = np.zeros((60, 50), bool)
    mask[20, 20] = mask[22, 40] = True
    rows, columns = np.mgrid[:60, :50]
    distance = np.minimum(np.hypot(rows - 20, columns - 20), np.hypot(rows - 22, columns - 40))
    grown = grow(mask, radius)
    assert not (grown ^ (distance <= radius))[np.abs(distance - radius) > 0.03 * radius + 0.1].any()
    assert not grow(np.zeros((5, 5), bool), 3.0).any()


def test_the_donors_of_a_data_set_lie_beside_it(write_painted):
    dataset = write_painted(4)
    assert set(dataset.donors._rows["hair"]["identity"]) == {f"person{i}" for i in range(4)}
