import json

import numpy as np
import pytest

from input_pipeline.errors import InputError
from input_pipeline.faces.geometry import Crop
from input_pipeline.masks import segmenters
from input_pipeline.masks.segmenters import Pictures
from input_pipeline.media.pictures import write_picture

HAIR = frozenset({"hair"})


def save(folder, masks, clip="a/b", kind="hair"):
    for i, mask in enumerate(masks):
        write_picture(folder / clip / kind / f"{i:05d}.png", mask.astype(np.uint8) * 255)


def test_masks_are_those_of_the_frames_in_the_file(tmp_path, red_on_grey):
    pictures, red = red_on_grey(5)
    save(tmp_path, red)
    later = Pictures(
        pictures.images[2:4], pictures.keypoints[2:4], pictures.source, pictures.frames[2:4],
        pictures.source_shape, pictures.crop,
    )  # fmt: skip
    masks = segmenters.load(f"files:{tmp_path}")(later, HAIR)
    np.testing.assert_array_equal(masks["hair"], red[2:4])


def test_masks_are_cropped_as_their_pictures_are(tmp_path, red_on_grey):
    source, red = red_on_grey(2, 96)
    save(tmp_path, red)
    crop = Crop(44.0, 37.5, 60.0)
    images = np.stack([crop.apply(image, 128) for image in source.images])
    pictures = Pictures(
        images, source.keypoints, source.source, source.frames, source.source_shape, crop
    )
    mask = segmenters.load(f"files:{tmp_path}")(pictures, HAIR)["hair"]
    np.testing.assert_array_equal(mask, images[..., 1] < 55)  # half way from red to grey


def test_what_is_missing_or_does_not_fit_is_named(tmp_path, red_on_grey):
    pictures, red = red_on_grey(3)
    save(tmp_path, red[:2])
    files = segmenters.load(f"files:{tmp_path}")
    with pytest.raises(InputError, match=r"a/b/hair/00002.png: no such mask"):
        files(pictures, HAIR)
    save(tmp_path, np.tile(red, (1, 2, 1)))
    with pytest.raises(InputError, match=r"00000.png: 64x128 pixels, a/b.mp4 has 64x64"):
        files(pictures, HAIR)
    with pytest.raises(InputError, match="the pictures come from no file"):
        files(Pictures(pictures.images, pictures.keypoints), HAIR)
    with pytest.raises(InputError, match="nowhere: no such folder"):
        segmenters.load(f"files:{tmp_path / 'nowhere'}")


def test_a_changed_file_is_another_version(tmp_path, red_on_grey):
    _, red = red_on_grey(2)
    save(tmp_path, red)
    before = str(segmenters.load(f"files:{tmp_path}"))
    assert str(segmenters.load(f"files:{tmp_path}")) == before
    save(tmp_path, red[::-1])
    assert str(segmenters.load(f"files:{tmp_path}")) != before


def test_truth_has_the_renderers_version(tmp_path, red_on_grey):
    pictures, red = red_on_grey(2)
    save(tmp_path, red)
    with pytest.raises(InputError, match=r"truth.json: does not name the renderer.*use files:"):
        segmenters.load(f"truth:{tmp_path}")
    (tmp_path / "truth.json").write_text(json.dumps({"renderer": "durian_jax synthetic 7"}))
    truth = segmenters.load(f"truth:{tmp_path}")
    assert str(truth) == "truth durian_jax synthetic 7"
    np.testing.assert_array_equal(truth(pictures, HAIR)["hair"], red)
