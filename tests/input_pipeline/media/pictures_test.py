"""Photos as phones, cameras and editors save them."""

import io
import struct

import av
import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from input_pipeline.errors import InputError
from input_pipeline.media.pictures import read_picture

SRGB = ImageCms.createProfile("sRGB")
# x, y of red, green and blue.
P3 = ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06))
REC709 = ((0.64, 0.33), (0.3, 0.6), (0.15, 0.06))
ADOBE = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))


def profile(primaries, gamma=2.2, title=b"me"):
    """A small ICC profile of these primaries, or none for grey, white D65 and a gamma."""

    def xyz(x, y):
        return np.array([x / y, 1, (1 - x - y) / y])

    white, d50 = xyz(0.3127, 0.329), np.array([0.9642, 1, 0.8249])

    def numbers(values):
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    name = b"desc\0\0\0\0" + struct.pack(">I", 20) + title.ljust(98, b"\0")
    tags = [(b"desc", name), (b"wtpt", b"XYZ \0\0\0\0" + numbers(d50))]
    if primaries:
        matrix = np.array([xyz(*place) for place in primaries]).T
        matrix = matrix * np.linalg.solve(matrix, white)
        bradford = np.array(
            [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
        )
        scale = np.diag((bradford @ d50) / (bradford @ white))
        matrix = np.linalg.inv(bradford) @ scale @ bradford @ matrix
        for key, column in zip(b"rgb", matrix.T):
            tags.append((bytes([key]) + b"XYZ", b"XYZ \0\0\0\0" + numbers(column)))
            tags.append((bytes([key]) + b"TRC", curve))
    else:
        tags.append((b"kTRC", curve))
    place, table, body = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for key, value in tags:
        table += key + struct.pack(">II", place + len(body), len(value))
        body += value
    space = b"RGB " if primaries else b"GRAY"
    head = struct.pack(
        ">I4sI4s4s4s", place + len(body), b"\0" * 4, 0x02400000, b"mntr", space, b"XYZ "
    )
    head += b"\x07\xe8\0\1\0\1" + b"\0" * 6 + b"acsp" + b"\0" * 28 + numbers(d50)
    return head.ljust(128, b"\0") + table + body


@pytest.mark.parametrize("primaries", [P3, ADOBE])
@pytest.mark.parametrize(("name", "mode"), [("a.png", "RGB"), ("a.png", "RGBA"), ("a.jpg", "RGB")])
def test_colour_profiles_are_applied(tmp_path, photo, primaries, name, mode):
    icc = profile(primaries)
    stored = ImageCms.profileToProfile(
        Image.fromarray(photo), SRGB, io.BytesIO(icc), outputMode="RGB"
    )
    assert np.abs(np.asarray(stored).astype(float) - photo).mean() > 4
    stored.convert(mode).save(tmp_path / name, quality=97, subsampling=0, icc_profile=icc)
    assert np.abs(read_picture(tmp_path / name).astype(float) - photo).mean() < 2


def test_a_profile_of_srgb_or_a_broken_one_changes_nothing(tmp_path, photo):
    srgb = ImageCms.ImageCmsProfile(SRGB).tobytes()
    for icc in (srgb, b"\0" * (2 << 20), b"no profile"):
        Image.fromarray(photo).save(tmp_path / "a.png", icc_profile=icc)
        np.testing.assert_array_equal(read_picture(tmp_path / "a.png"), photo)


def test_a_profile_counts_by_what_it_says_not_by_its_name(tmp_path, photo):
    icc = profile(REC709, gamma=1.0, title=b"sRGB, linear light")
    stored = ImageCms.profileToProfile(
        Image.fromarray(photo), SRGB, io.BytesIO(icc), outputMode="RGB"
    )
    stored.save(tmp_path / "a.png", icc_profile=icc)
    assert np.abs(read_picture(tmp_path / "a.png").astype(float) - photo).mean() < 2


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_profiles_of_grey_are_applied(tmp_path, photo, mode):
    grey = np.asarray(Image.fromarray(photo).convert("L"))
    stored = np.rint(255 * (grey / 255) ** (2.2 / 1.2)).astype(np.uint8)
    picture = Image.fromarray(stored).convert(mode)
    picture.save(tmp_path / "a.png", icc_profile=profile((), gamma=1.2))
    assert np.abs(stored.astype(float) - grey).mean() > 20
    assert np.abs(read_picture(tmp_path / "a.png").astype(float) - grey[..., None]).mean() < 4


@pytest.mark.parametrize("name", ["a.hdr", "a.tif", "a.pfm"])
def test_floats_are_linear_light(tmp_path, photo, name):
    x = photo / 255
    light = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4).astype(np.float32)
    light[:8, :8] = 7
    cv2.imwrite(str(tmp_path / name), light[..., ::-1])
    found = read_picture(tmp_path / name).astype(float)
    assert np.abs(found - photo)[8:].mean() < 1 and found[:8, :8].min() == 255


@pytest.mark.parametrize("packed", [True, False])
def test_text_of_any_length_is_passed_over(tmp_path, photo, packed):
    info = PngImagePlugin.PngInfo()
    info.add_text("prompt", "a man " * 500_000, zip=packed)
    Image.fromarray(photo).save(tmp_path / "a.png", pnginfo=info)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png"), photo)


def test_heic_in_tiles_is_named_and_never_read_as_one_tile(tmp_path, photo):
    # To a reader of video the tiles of a HEIC are so many tracks of pictures.
    with av.open(str(tmp_path / "tiles.mp4"), "w") as output:
        for _ in range(4):
            stream = output.add_stream("libx264", rate=25)
            stream.height, stream.width, stream.pix_fmt = 96, 128, "yuv420p"
        for stream in output.streams:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(photo, format="rgb24")))
            output.mux(stream.encode())
    data = (tmp_path / "tiles.mp4").read_bytes()
    (tmp_path / "a.heic").write_bytes(data[:8] + b"heic" + data[12:])
    with pytest.raises(InputError, match=r"a\.heic: HEIC.*export it as JPEG"):
        read_picture(tmp_path / "a.heic")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", [2, 5, 6, 7, 8])
def test_each_turn_and_mirror_of_exif(tmp_path, photo, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = {
        2: photo[:, ::-1], 5: photo.swapaxes(0, 1), 6: np.rot90(photo),
        7: photo[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(photo, -1),
    }[orientation]  # fmt: skip
    options = {"lossless": True} if suffix == ".webp" else {"quality": 97, "subsampling": 0}
    path = tmp_path / f"a{suffix}"
    Image.fromarray(np.ascontiguousarray(stored)).save(
        path, exif=exif, **({} if suffix in (".png", ".tif") else options)
    )
    assert np.abs(read_picture(path).astype(float) - photo).mean() < 3


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0MM\0*\0\0\0\x08" + b"\xff" * 40,
        b"Exif\0\0" + b"\0" * 10,
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x02\0\0\x006\0\0\0\0\0\0\0",
    ],
)
def test_a_broken_exif_is_passed_over_in_silence(tmp_path, photo, exif, recwarn):
    Image.fromarray(photo).save(tmp_path / "a.jpg", exif=exif, quality=97)
    assert np.abs(read_picture(tmp_path / "a.jpg").astype(float) - photo).mean() < 3
    assert not recwarn.list


def test_text_under_the_key_of_xmp_is_passed_over(tmp_path, photo):
    info = PngImagePlugin.PngInfo()
    info.add_itxt("xmp", "<x:xmpmeta/>")
    Image.fromarray(photo).save(tmp_path / "a.png", pnginfo=info)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png"), photo)


def test_grey_of_32_bits_keeps_its_range(tmp_path, photo):
    for high in (1, 257):
        grey = photo[..., 1].astype(np.int32)
        Image.fromarray(grey * high).save(tmp_path / "a.tif")
        np.testing.assert_array_equal(read_picture(tmp_path / "a.tif")[..., 0], photo[..., 1])


@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [("a.tif", "TIFF", {"tiffinfo": {254: 1}}), ("a.CR2", "TIFF", {}), ("a.raf", "JPEG", {})],
)
def test_a_raw_photo_is_never_read_as_its_preview(tmp_path, photo, name, kind, options):
    Image.fromarray(photo).save(tmp_path / name, format=kind, **options)
    with pytest.raises(InputError, match=f"{name}: a raw photo.*export it as JPEG"):
        read_picture(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"hello" * 100, "neither a readable picture"),
        (b"\xff\xd8\xff" + b"\0" * 20, "neither a readable picture"),
    ],
)
def test_what_is_no_picture_is_named(tmp_path, content, message):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_picture(tmp_path / "a.jpg")
