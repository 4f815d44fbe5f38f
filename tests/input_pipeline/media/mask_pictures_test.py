"""Masks in every kind of picture that people paint and programs write."""

import numpy as np
import pytest
from PIL import Image

from input_pipeline.errors import InputError
from input_pipeline.media.mask_pictures import read_mask

WANTED = np.zeros((80, 100), bool)
WANTED[20:50, 30:70] = True


def _grey(low, high, dtype=np.uint8):
    return Image.fromarray(np.where(WANTED, high, low).astype(dtype))


def _rgba(shown, hidden):
    return Image.fromarray(np.where(WANTED[..., None], shown, hidden).astype(np.uint8), "RGBA")


def _palette(low, high):
    picture = Image.fromarray(WANTED.astype(np.uint8), "P")
    picture.putpalette([*low, *high])
    return picture


def _noise(low, high):
    return np.random.default_rng(0).integers(low, high, (80, 100, 3))


MASKS = {
    "plain": _grey(0, 255),
    "one bit": Image.fromarray(WANTED),
    "zero and one": _grey(0, 1),
    "middle grey": _grey(0, 128),
    "dark grey": _grey(0, 100),
    "grey on grey": _grey(60, 200),
    "soft": Image.fromarray(np.where(WANTED, _noise(150, 256)[..., 0], 90).astype(np.uint8)),
    "a red brush": Image.fromarray(np.where(WANTED[..., None], [230, 20, 30], 0).astype(np.uint8)),
    "16 bits": _grey(0, 65535, np.uint16),
    "16 bits, zero and one": _grey(0, 1, np.uint16),
    "16 bits, 255": _grey(0, 255, np.uint16),
    "16 bits, soft": Image.fromarray(
        np.where(WANTED, 40000 + _noise(0, 99)[..., 0], 9).astype("u2")
    ),
    "white on transparent": _rgba([255] * 4, [0] * 4),
    "white on transparent white": _rgba([255] * 4, [255, 255, 255, 0]),
    "a soft brush on transparent": _rgba([255, 255, 255, 120], [0] * 4),
    "red on transparent": _rgba([230, 20, 30, 255], [0] * 4),
    "a cut-out": _rgba(np.dstack([_noise(0, 256), np.full((80, 100), 255)]), [9, 9, 9, 0]),
    "opaque alpha": _rgba([255] * 4, [0, 0, 0, 255]),
    "grey with alpha": _rgba([255] * 4, [0] * 4).convert("LA"),
    "black and white palette": _palette([0, 0, 0], [255, 255, 255]),
    "dark palette": _palette([0, 0, 0], [1, 1, 1]),
    "colours of classes": _palette([0, 0, 0], [128, 0, 0]),
    "equally bright colours": _palette([128, 64, 128], [150, 35, 90]),
    "equal colours": _palette([0, 0, 0], [0, 0, 0]),
    "white palette first": _palette([0, 0, 0], [255, 255, 255]),
}


@pytest.mark.parametrize("name", MASKS)
def test_masks_of_all_kinds_say_the_same(name, tmp_path):
    MASKS[name].save(tmp_path / "mask.png")
    found = read_mask(tmp_path / "mask.png")
    assert found.dtype == bool
    np.testing.assert_array_equal(found, WANTED)


@pytest.mark.parametrize("suffix", ["bmp", "gif", "tif", "webp", "jpg"])
@pytest.mark.parametrize("name", ["plain", "middle grey"])
def test_other_files(name, suffix, tmp_path):
    MASKS[name].save(tmp_path / f"mask.{suffix}", quality=95)
    np.testing.assert_array_equal(read_mask(tmp_path / f"mask.{suffix}"), WANTED)


@pytest.mark.parametrize("values", [np.float32([0, 1]), np.float32([0, 255]), np.int32([0, 1])])
def test_numbers_of_32_bits(values, tmp_path):
    Image.fromarray(values[WANTED.astype(int)]).save(tmp_path / "mask.tif")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.tif"), WANTED)


def test_a_transparent_entry_of_a_palette_is_not_covered(tmp_path):
    _palette([255, 255, 255], [255, 0, 0]).save(tmp_path / "mask.png", transparency=0)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), WANTED)


def test_of_black_and_white_with_a_hole_white_is_covered(tmp_path):
    picture = np.array(_rgba([255] * 4, [0, 0, 0, 255]))
    picture[40:, :, 3] = 0
    Image.fromarray(picture).save(tmp_path / "mask.png")
    wanted = WANTED & (np.arange(80) < 40)[:, None]
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), wanted)


@pytest.mark.parametrize(("value", "covered"), [(0, False), (1, True), (255, True)])
def test_masks_of_one_value(value, covered, tmp_path):
    Image.fromarray(np.full((80, 100), value, np.uint8)).save(tmp_path / "mask.png")
    assert (read_mask(tmp_path / "mask.png") == covered).all()


def test_what_is_wholly_transparent_covers_nothing(tmp_path):
    Image.new("RGBA", (100, 80), (255, 255, 255, 0)).save(tmp_path / "mask.png")
    assert not read_mask(tmp_path / "mask.png").any()


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        (_rgba([0, 0, 0, 255], [0] * 4), "black on transparent"),
        (_rgba([0, 0, 0, 255], [255, 255, 255, 0]), "its alpha channel does not tell"),
        (Image.fromarray(np.uint8(WANTED) + np.uint8(WANTED.cumsum(0) > 9)), "values are 0, 1, 2"),
    ],
)
def test_what_may_mean_either_is_refused(picture, reason, tmp_path):
    picture.save(tmp_path / "mask.png")
    with pytest.raises(InputError, match=f"mask.png: .*{reason}.*white|mask.png: .*{reason}.*255"):
        read_mask(tmp_path / "mask.png")


def test_a_coloured_map_of_classes_is_refused(tmp_path):
    picture = Image.fromarray(np.uint8(WANTED) + np.uint8(WANTED.cumsum(0) > 9), "P")
    picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    picture.save(tmp_path / "mask.png")
    with pytest.raises(InputError, match="3 colours of a palette, a map of classes"):
        read_mask(tmp_path / "mask.png")


def test_turned_by_exif_like_the_photo_it_belongs_to(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    MASKS["plain"].save(tmp_path / "mask.png", exif=exif)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), np.rot90(WANTED, -1))


def test_what_is_no_picture_is_named(tmp_path):
    (tmp_path / "mask.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    with pytest.raises(InputError, match=r"mask\.png: "):
        read_mask(tmp_path / "mask.png")
    with pytest.raises(InputError, match=r"no\.png: no such file"):
        read_mask(tmp_path / "no.png")
