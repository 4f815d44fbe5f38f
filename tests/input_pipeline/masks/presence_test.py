"""Attributes that are drawn on a face are seen, and are in doubt on a bare one."""

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from input_pipeline.faces.geometry import Crop
from input_pipeline.masks.presence import SIZE, doubt


@pytest.fixture(scope="module")
def face(landmarker):
    """A picture of a bare face, and its keypoints."""
    image = astronaut()
    keypoints = landmarker.track([image]).keypoints
    crop = Crop.around(keypoints, *image.shape[:2])
    return crop.apply(image, SIZE), crop.points(keypoints[0], SIZE)


def test_a_bare_face_is_in_doubt(face):
    assert doubt("hair", *face) == ""
    assert "no bridge of glasses" in doubt("glasses", *face)
    for kind in ("beard", "hat"):
        assert f"whether a {kind} is there" in doubt(kind, *face)


@pytest.mark.parametrize("colour", [(20, 20, 20), (90, 40, 30)])
def test_frames_across_the_nose_are_glasses(face, colour):
    image, points = face[0].copy(), face[1][:, :2]
    width = max(2, round(0.05 * np.linalg.norm(points[263] - points[33])))
    for eye in ((33, 133), (362, 263)):
        centre, radius = points[list(eye)].mean(0), 0.62 * np.linalg.norm(points[33] - points[133])
        cv2.circle(image, np.int32(centre), int(radius), colour, width)
    cv2.line(image, np.int32(points[133]), np.int32(points[362]), colour, width)
    assert doubt("glasses", image, face[1]) == ""


def test_a_dark_chin_is_a_beard(face):
    image, points = face[0].copy(), face[1][:, :2]
    lower = points[[58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 18]]
    cv2.fillPoly(image, [np.int32(cv2.convexHull(np.float32(lower)))], (30, 22, 18))
    assert doubt("beard", image, face[1]) == ""


def test_a_face_at_the_very_edge_is_in_doubt_and_no_error(face):
    assert doubt("beard", face[0], face[1] + 400) and doubt("glasses", face[0], face[1] - 400)
