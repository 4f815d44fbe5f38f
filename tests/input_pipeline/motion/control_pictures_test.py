from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from input_pipeline.motion import control_pictures
from tests.parity.folders import FIXTURES

HEAD = Path(control_pictures.__file__).parents[1] / "assets" / "head_mesh.npy"


@pytest.fixture(scope="module")
def official():
    """Landmarks and what the official code made of them."""
    found = load_file(FIXTURES / "x_portrait.safetensors")
    return {name.removeprefix("prepare/"): x for name, x in found.items() if name[:8] == "prepare/"}


def test_best_frame_and_alignment_are_the_official_ones(official):
    driver, portrait = official["landmarks_driving"], official["landmarks_source"]
    assert control_pictures.best_frame(driver, portrait) == official["best_frame"][0]
    # The official code computes in single precision.
    matrix = control_pictures.alignment(driver[1], portrait)
    np.testing.assert_allclose(matrix, official["matrix_256"], atol=1e-4)


def test_squares_lie_where_the_official_ones_do(official):
    white = np.full((256, 256, 3), 255, np.uint8)
    shown = control_pictures.local_picture(white, official["landmarks_driving"][2])
    wanted = np.unpackbits(official["local_shown"], axis=-1).astype(bool)
    np.testing.assert_array_equal(shown.any(-1), wanted)


@pytest.mark.parametrize("size", [64, 512])
def test_squares_keep_their_place_at_other_sizes(official, size):
    white = np.full((size, size, 3), 255, np.uint8)
    points = official["landmarks_driving"][2] * size / 256
    shown = control_pictures.local_picture(white, points).any(-1)
    wanted = np.unpackbits(official["local_shown"], axis=-1).astype(bool)
    fine, coarse = (shown, wanted) if size > 256 else (wanted, shown)
    factor = len(fine) // len(coarse)
    np.testing.assert_allclose(shown.mean(), wanted.mean(), atol=0.01)
    assert (fine[::factor, ::factor] != coarse).mean() < 0.02


def test_the_box_of_one_face_falls_onto_the_box_of_the_other():
    rng = np.random.default_rng(0)
    driver, portrait = rng.uniform(20, 200, (2, 68, 2))
    points = control_pictures.moved(driver, control_pictures.alignment(driver, portrait))
    np.testing.assert_allclose(points.mean(0), portrait.mean(0))
    np.testing.assert_allclose(np.ptp(points, axis=0), np.ptp(portrait, axis=0))


def test_a_picture_moves_as_its_points_do_and_is_black_beyond():
    picture = np.zeros((40, 40, 3), np.uint8)
    picture[10, 20] = 255
    matrix = np.array([[1.0, 0, 5], [0, 1, -3]])
    moved = control_pictures.warped(picture, matrix)
    x, y = control_pictures.moved(np.array([20, 10]), matrix)
    assert moved[int(y), int(x)].all() and moved.sum() == 3 * 255
    white = np.full((40, 40, 3), 255, np.uint8)
    assert not control_pictures.warped(white, matrix)[:, :4].any()


def test_landmarks_are_a_face_of_68_points():
    keypoints = np.stack([np.arange(478), -np.arange(478), np.zeros(478)], -1)
    points = control_pictures.landmarks(keypoints[None])
    assert points.shape == (1, 68, 2) and len(np.unique(points[0, :, 0])) == 68


@pytest.fixture(scope="module")
def face():
    """Keypoints [478, 3] of a rendered face in a picture of 256 px, from the front."""
    mean = np.load(HEAD)[:, :2] * np.float32([1, -1])
    mean = (mean - mean.min(0)) / np.ptp(mean[:, 1]) * 140 + [70, 60]
    return np.pad(mean, ((0, 0), (0, 1)))


@pytest.mark.parametrize("size", [64, 256])
def test_regions_are_eyes_nose_and_mouth_and_nothing_else(face, size):
    points = (face + 0.5) * (size / 256) - 0.5
    mask = control_pictures.region_mask(points, size)
    inside = {"eyes": (33, 133, 159, 145, 263, 362), "nose": (4, 48, 278), "mouth": (61, 291, 13)}
    for name, corners in inside.items():
        x, y = np.int32(np.round(points[list(corners), :2])).T
        assert mask[y, x].all(), name
    for name, corner in {"brow": 105, "chin": 152, "cheek": 205, "temple": 127}.items():
        x, y = np.int32(np.round(points[corner, :2]))
        assert not mask[y, x], name
    area = np.ptp(points[:, 0]) * np.ptp(points[:, 1]) / size**2
    assert 0.2 * area < mask.mean() < 0.6 * area


def test_a_region_picture_keeps_what_is_inside_and_blanks_the_rest(face):
    picture = np.random.default_rng(0).integers(1, 256, (256, 256, 3)).astype(np.uint8)
    shown = control_pictures.region_picture(picture, face)
    mask = control_pictures.region_mask(face, 256)
    np.testing.assert_array_equal(shown[mask], picture[mask])
    assert mask.any() and not shown[~mask].any()


def test_regions_that_leave_the_picture_are_cut_off(face):
    away = face + np.float32([400, 0, 0])
    assert not control_pictures.region_mask(away, 256).any()
    half = face + np.float32([120, 0, 0])
    assert (
        0
        < control_pictures.region_mask(half, 256).sum()
        < (control_pictures.region_mask(face, 256).sum())
    )
