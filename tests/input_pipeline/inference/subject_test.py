import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from input_pipeline.errors import InputError
from input_pipeline.inference.subject import read_subject
from input_pipeline.masks import segmenters
from input_pipeline.media.pictures import write_picture


def test_the_largest_of_several_faces_is_taken_and_noted(tmp_path, landmarker):
    picture = np.zeros((512, 896, 3), np.uint8)
    picture[:, :512] = astronaut()
    picture[:384, 512:] = cv2.resize(astronaut(), (384, 384), interpolation=cv2.INTER_AREA)
    subject = read_subject(_saved(tmp_path / "two.png", picture), 64, landmarker)
    alone = read_subject(_saved(tmp_path / "one.png", astronaut()), 64, landmarker)
    assert subject.face_count == 2 and alone.face_count == 1
    np.testing.assert_allclose(subject.keypoints, alone.keypoints, atol=1.0)


def _saved(path, picture):
    write_picture(path, picture)
    return path


def _mask_file(path, height, width, rows, columns):
    mask = np.zeros((height, width), np.uint8)
    mask[rows, columns] = 255
    write_picture(path, mask)
    return path


def test_a_mask_of_another_size_is_named(portrait_picture, landmarker, tmp_path):
    mask = _mask_file(tmp_path / "small.png", 256, 300, slice(0, 9), slice(0, 9))
    with pytest.raises(InputError, match=r"small.png: 300x256 pixels, its photo has 512x512"):
        read_subject(portrait_picture, 64, landmarker, mask)


def test_framed_pictures_are_used_whole(portrait_picture, landmarker, tmp_path):
    subject = read_subject(portrait_picture, 512, landmarker, framed=True)
    np.testing.assert_array_equal(subject.image, astronaut())
    np.testing.assert_allclose(
        subject.keypoints, landmarker.track([astronaut()]).keypoints[0], atol=1e-3
    )
    wide = _saved(tmp_path / "wide.png", np.ascontiguousarray(astronaut()[:400]))
    with pytest.raises(InputError, match=r"wide.png: 512x400 pixels: framed pictures"):
        read_subject(wide, 64, landmarker, framed=True)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_photo_on_its_side_is_turned_with_its_mask(tmp_path, landmarker, quarters):
    photo, mask = astronaut()[:480], np.zeros((480, 512), np.uint8)
    mask[20:120, 150:300] = 255
    read = []
    for name, turns in (("upright", 0), ("turned", quarters)):
        for kind, picture in (("photo", photo), ("mask", mask)):
            write_picture(tmp_path / f"{name}_{kind}.png", np.rot90(picture, -turns))
        paths = (tmp_path / f"{name}_{kind}.png" for kind in ("photo", "mask"))
        read.append(read_subject(next(paths), 64, landmarker, next(paths)))
    upright, turned = read
    assert turned.turns == quarters and turned.photo_shape == (480, 512)
    for name in ("image", "keypoints", "mask"):
        np.testing.assert_array_equal(getattr(turned, name), getattr(upright, name))
    np.testing.assert_array_equal(turned.photo(), photo)
    for name in ("upright", "turned"):
        (tmp_path / f"masks/{name}_photo/hair").mkdir(parents=True)
        own = tmp_path / f"masks/{name}_photo/hair/00000.png"
        own.write_bytes((tmp_path / f"{name}_mask.png").read_bytes())
    files = segmenters.load(f"files:{tmp_path / 'masks'}")
    found, turned_found = (one.find(frozenset(["hair"]), files)["hair"] for one in read)
    assert found.any()
    np.testing.assert_array_equal(turned_found, found)


@pytest.mark.parametrize("turns", [0, 1])
def test_a_painted_mask_comes_back_where_it_was_painted(landmarker, tmp_path, turns):
    photo = _saved(tmp_path / "me.png", np.ascontiguousarray(np.rot90(astronaut(), -turns)))
    painted = np.zeros((512, 512), bool)
    painted[100:300, 150:260] = True
    subject = read_subject(photo, 64, landmarker)
    assert subject.turns == turns
    subject.write_mask(tmp_path / "mask.png", painted)
    covered = read_subject(photo, 64, landmarker, tmp_path / "mask.png").mask
    expected = cv2.resize(painted.astype(np.float32), (64, 64), interpolation=cv2.INTER_AREA)
    assert np.abs(covered - expected).mean() < 0.01 and (covered > 0.5).sum() > 300
