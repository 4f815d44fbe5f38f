"""Faces on their side or head are turned upright, whatever the file says of them."""

import numpy as np
import pytest
from skimage.data import astronaut

from input_pipeline.faces import orientation
from input_pipeline.faces.landmarker import FaceLandmarker


@pytest.fixture(scope="module")
def landmarker():
    return FaceLandmarker()


@pytest.mark.parametrize("quarters", range(4))
def test_a_turned_photo_is_turned_back(landmarker, quarters):
    turned = np.rot90(astronaut(), -quarters)
    assert orientation.turns([turned], landmarker) == quarters


def test_a_tilted_head_is_left_alone(landmarker):
    import cv2

    image = astronaut()
    for degrees in (-30, 30):
        matrix = cv2.getRotationMatrix2D((224, 120), degrees, 1)
        assert orientation.turns([cv2.warpAffine(image, matrix, (512, 512))], landmarker) == 0


def test_of_a_clip_the_frames_with_a_face_decide(landmarker):
    black, turned = np.zeros((512, 512, 3), np.uint8), np.rot90(astronaut(), 2)
    assert orientation.turns([black] * 10 + [turned] * 20, landmarker) == 2
    assert orientation.turns([black] * 10, landmarker) == 0
    assert orientation.turns([], landmarker) == 0
