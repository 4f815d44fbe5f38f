import zipfile

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from input_pipeline.errors import InputError
from input_pipeline.faces.landmarker import EYES, FaceLandmarker
from tests.input_pipeline.faces.face_task import write_task

PUPILS = [(203, 101), (246, 103)]  # read off the picture by eye: the viewer's left, right
MOUTH_CORNERS = [(202, 139.5), (246, 139.5)]


@pytest.fixture(scope="module")
def landmarker():
    return FaceLandmarker()


def find(landmarker, image):
    return landmarker.landmarks(image, landmarker.detect(image)[0].region)


def test_keypoints_sit_on_the_face(landmarker):
    points = find(landmarker, astronaut())
    assert points.shape == (478, 3) and points.dtype == np.float32
    np.testing.assert_allclose(points[[468, 473], :2], PUPILS, atol=1.5)
    np.testing.assert_allclose(points[[61, 291], :2], MOUTH_CORNERS, atol=3)
    assert points[4, 2] < points[[234, 454], 2].min(), "the nose is nearer than the ears"


@pytest.mark.parametrize("degrees", [-25, 25])
def test_keypoints_turn_with_the_picture(landmarker, degrees):
    image = astronaut()
    matrix = cv2.getRotationMatrix2D((223, 120), degrees, 0.8)
    turned = cv2.warpAffine(image, matrix, (512, 512))
    wanted = find(landmarker, image)[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    error = np.linalg.norm(find(landmarker, turned)[:, :2] - wanted, axis=1)
    assert error.mean() < 2.5  # pixels; the face is 100 wide


def test_keypoints_do_not_depend_on_where_the_region_came_from(landmarker):
    image = astronaut()
    face = landmarker.detect(image)[0]
    shifted = cv2.warpAffine(image, np.float64([[1, 0, 25], [0, 1, 12]]), (512, 512))
    moved = landmarker.landmarks(shifted, face.region)
    expected = landmarker.landmarks(image, face.region)[:, :2] + [25, 12]
    assert np.linalg.norm(moved[:, :2] - expected, axis=1).mean() < 1.5  # the face is 100 wide


def test_the_largest_face_comes_first_and_is_the_one_followed(landmarker):
    big = astronaut()[:300, 60:360]
    small = cv2.resize(big, (225, 225), interpolation=cv2.INTER_AREA)
    scene = np.zeros((300, 600, 3), np.uint8)
    scene[60:285, 40:265], scene[:, 300:] = small, big
    first, second = landmarker.detect(scene)
    assert first.region.side > second.region.side and first.region.cx > 300 > second.region.cx
    track = landmarker.track([scene])
    assert track.face_count == 2 and track.keypoints[0, 4, 0] > 300


def test_a_face_in_a_corner_of_a_large_picture_is_found(landmarker):
    scene = np.full((720, 1280, 3), 90, np.uint8)
    scene[400:700, 900:1200] = astronaut()[:300, 60:360]
    tiny = cv2.resize(scene, None, fx=0.75, fy=0.75, interpolation=cv2.INTER_AREA)
    points = find(landmarker, tiny)
    # 0.75 (203 - 60 + 900), 0.75 (101 + 400)
    np.testing.assert_allclose(points[468, :2], (782, 376), atol=2)


def test_no_face_is_no_result(landmarker):
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    assert landmarker.detect(noise) == []
    track = landmarker.track([noise, noise])
    assert not track.found.any() and np.isnan(track.keypoints).all() and track.face_count == 0


def test_the_same_face_is_found_again_and_no_other_is_taken_for_it(landmarker):
    face = cv2.resize(astronaut()[:300, 60:360], (256, 256), interpolation=cv2.INTER_AREA)
    left, right = np.zeros((2, 256, 900, 3), np.uint8)
    left[:, :256], right[:, 644:] = face, face
    nothing = np.zeros_like(left)
    track = landmarker.track([left, left, nothing, right, right, left])
    assert track.found.tolist() == [True, True, False, False, False, True]
    drift = np.linalg.norm((track.keypoints[5] - track.keypoints[0])[:, :2], axis=1)
    assert drift.mean() < 1


def test_a_face_landmarker_gives_the_eyelids_and_nothing_else(landmarker, tmp_path):
    image = astronaut()
    region = landmarker.detect(image)[0].region
    usual = landmarker.landmarks(image, region)
    # All points in the middle of its region: both eyes are shut there.
    task = write_task(tmp_path / "face.task", np.full((478, 3), 127.5))
    found = FaceLandmarker(task).landmarks(image, region)
    lids = [index for *_, lids in EYES for index in lids]
    others = np.setdiff1d(np.arange(478), lids)
    np.testing.assert_array_equal(found[others], usual[others])
    assert np.ptp(found[lids, :2], axis=0).max() < 1e-3
    # The region is a square round the face.
    middle = (usual[:468, :2].min(0) + usual[:468, :2].max(0)) / 2
    assert np.linalg.norm(found[lids[0], :2] - middle) < 15


def test_the_version_names_the_face_landmarker(landmarker, tmp_path):
    task = write_task(tmp_path / "face.task", np.zeros((478, 3)))
    other = write_task(tmp_path / "other.task", np.ones((478, 3)))
    versions = [one.version for one in (landmarker, FaceLandmarker(task), FaceLandmarker(other))]
    assert versions[1].startswith(f"{versions[0]}, eyelids of face landmarker ")
    assert len(set(versions)) == 3


def test_files_that_are_no_face_landmarker_are_refused_in_one_line(tmp_path):
    (tmp_path / "text.task").write_text("not a zip")
    with zipfile.ZipFile(tmp_path / "hand.task", "w") as task:
        task.writestr("hand_landmarks_detector.tflite", b"")
    with zipfile.ZipFile(tmp_path / "broken.task", "w") as task:
        task.writestr("face_landmarks_detector.tflite", b"no network")
    write_task(tmp_path / "few.task", np.zeros((68, 3)))
    for name, reason in (
        ("absent", "cannot be read"), ("text", "not a zip"), ("hand", "no item named"),
        ("broken", "no Face Landmarker"), ("few", "204 values, not 478 points"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=rf"--landmarks .*{name}.task: .*{reason}") as failure:
            FaceLandmarker(tmp_path / f"{name}.task")
        assert "\n" not in str(failure.value)
