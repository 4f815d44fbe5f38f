"""HDR, wide gamut and other gammas look as on a usual screen."""

import struct
import zlib

import av
import numpy as np
import pytest
from PIL import Image

from input_pipeline.media import hdr, video
from input_pipeline.media.pictures import read_picture

WIDE = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
P3 = np.array([[0.8225, 0.1774, 0], [0.0332, 0.9669, 0], [0.0171, 0.0724, 0.9108]])


def light(picture):
    x = picture / 255
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def as_hlg(picture):
    e = np.clip(light(picture) @ WIDE.T * 0.265, 0, 1)
    high = 0.17883277 * np.log(np.maximum(12 * e - 0.28466892, 1e-9)) + 0.55991073
    return np.where(e <= 1 / 12, np.sqrt(3 * e), high)


def as_pq(picture):
    y = (np.clip(light(picture) @ WIDE.T, 0, 1) * 203 / 10000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375


def as_p3(picture):
    e = np.clip(light(picture) @ P3.T, 0, 1)
    return np.where(e <= 0.0031308, 12.92 * e, 1.055 * e ** (1 / 2.4) - 0.055)


KINDS = [(as_hlg, 9, 18), (as_pq, 9, 16), (as_p3, 12, 13)]


@pytest.mark.parametrize(("encode", "primaries", "transfer"), KINDS)
def test_colours_come_back(photo, encode, primaries, transfer):
    dim = photo * (200 / 255)  # below the knee
    signal = np.rint(encode(dim) * 65535).astype(np.uint16)
    back = hdr.to_sdr(signal, primaries, transfer)
    assert np.abs(back - dim).mean() < 1.5 and np.abs(back - dim).max() < 9


@pytest.mark.parametrize("transfer", [16, 18])
def test_light_above_white_is_compressed_and_never_turns_over(transfer):
    signal = np.repeat(np.arange(0, 65536, 64, dtype=np.uint16)[:, None, None], 3, 2)
    grey = hdr.to_sdr(signal, 9, transfer)[:, 0].astype(int)
    assert (np.diff(grey[:, 0]) >= 0).all() and np.ptp(grey, axis=1).max() <= 1
    assert grey[0, 0] == 0 and grey[-1, 0] == 255
    assert 235 < grey[round(1024 * (0.75 if transfer == 18 else 0.58)), 0] < 250


@pytest.mark.parametrize(
    ("encode", "primaries", "transfer"), [*KINDS, (as_hlg, 2, 18), (as_pq, 2, 16)]
)
def test_clips_are_converted_and_noted(tmp_path, film, photo, encode, primaries, transfer):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as output:
        options = {"x265-params": "log-level=none:bframes=0", "crf": "10"}
        stream = output.add_stream("libx265", rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = 96, 128, "yuv420p10le"
        context = stream.codec_context
        context.color_primaries, context.color_trc = primaries, transfer
        context.colorspace, context.color_range = 9, 1
        signal = np.rint(encode(photo) * 65535).astype(np.uint16)
        for i in range(3):
            frame = av.VideoFrame.from_ndarray(signal, format="rgb48le")
            frame = frame.reformat(format="yuv420p10le", dst_colorspace=9)
            frame.pts = i
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    frame = next(video.read_frames(path))
    assert frame.dtype == np.uint8 and np.abs(frame - photo.astype(float)).mean() < 6
    (note,) = video.probe(path).notes
    assert note.endswith("converted to the colours of a usual screen")


def with_chunk(path, name, body):
    """Puts a chunk after the header of a PNG."""
    data, crc = path.read_bytes(), struct.pack(">I", zlib.crc32(name + body))
    path.write_bytes(data[:33] + struct.pack(">I", len(body)) + name + body + crc + data[33:])


@pytest.mark.parametrize(("encode", "primaries", "transfer"), KINDS)
def test_pictures_of_png_and_animations_are_converted(tmp_path, photo, encode, primaries, transfer):
    dim = photo * (200 / 255)
    stored = Image.fromarray(np.rint(encode(dim) * 255).astype(np.uint8))
    still, moving = tmp_path / "still.png", tmp_path / "moving.png"
    stored.save(still, icc_profile=b"for those who do not know cICP")
    stored.save(moving, save_all=True, append_images=[stored.rotate(180)], duration=40)
    before = np.abs(read_picture(still) - dim).mean()
    for path in (still, moving):
        with_chunk(path, b"cICP", bytes([primaries, transfer, 0, 1]))
        for found in (read_picture(path), next(video.read_frames(path))):
            assert np.abs(found - dim).mean() < before / 2


@pytest.mark.parametrize(("encode", "primaries", "transfer"), KINDS)
def test_pictures_of_avif_are_converted(tmp_path, photo, encode, primaries, transfer):
    dim, path = photo * (200 / 255), tmp_path / "a.avif"
    stored = Image.fromarray(np.rint(encode(dim) * 255).astype(np.uint8))
    stored.save(path, quality=97, subsampling="4:4:4")
    before, data = np.abs(read_picture(path) - dim).mean(), bytearray(path.read_bytes())
    place = data.index(b"colrnclx") + 8
    data[place : place + 4] = struct.pack(">HH", primaries, transfer)
    path.write_bytes(data)
    assert np.abs(read_picture(path) - dim).mean() < before / 2


@pytest.mark.parametrize("gamma", [1, 0.55556, 0.45455])
def test_the_gamma_of_a_png_is_applied(tmp_path, photo, gamma):
    path, body = tmp_path / "a.png", struct.pack(">I", round(gamma * 100_000))
    Image.fromarray(np.rint(255 * light(photo) ** gamma).astype(np.uint8)).save(path)
    with_chunk(path, b"gAMA", body)
    bright = photo > 60  # eight bits of light tell few dark levels apart
    assert np.abs(read_picture(path).astype(float) - photo)[bright].mean() < 3
    # Beside the word sRGB it is for those who do not know that.
    Image.fromarray(photo).save(path)
    with_chunk(path, b"gAMA", body)
    with_chunk(path, b"sRGB", b"\0")
    np.testing.assert_array_equal(read_picture(path), photo)


def test_the_primaries_of_a_png_are_applied(tmp_path, photo):
    path = tmp_path / "a.png"
    Image.fromarray(np.rint(255 * as_p3(photo)).astype(np.uint8)).save(path)
    assert np.abs(read_picture(path).astype(float) - photo).mean() > 3
    places = (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)  # white, red, green, blue
    with_chunk(path, b"cHRM", struct.pack(">8I", *(round(100_000 * x) for x in places)))
    assert np.abs(read_picture(path).astype(float) - photo).mean() < 2
