"""Pictures come as players show them."""

import io
import struct
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import Colorspace
from PIL import Image

from input_pipeline.errors import InputError
from input_pipeline.media import video


def with_matrix(plain, path, matrix):
    """A copy whose track header asks for this matrix (a b; c d) of ISO/IEC 14496-12."""
    data, one = bytearray(plain.read_bytes()), 1 << 16
    start = data.index(b"tkhd") + 44
    a, b, c, d = (x * one for x in matrix)
    data[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


MATRICES = [
    (sign_x * (1 - swap), sign_x * swap, sign_y * swap, sign_y * (1 - swap))
    for swap in (0, 1)
    for sign_x in (1, -1)
    for sign_y in (1, -1)
]


@pytest.mark.parametrize("matrix", MATRICES)
def test_each_turn_and_mirror_of_the_header(tmp_path, photo, matrix):
    plain, path = tmp_path / "plain.mp4", tmp_path / "turned.mp4"
    video.write_video(plain, [photo], Fraction(25), crf=8)
    with_matrix(plain, path, matrix)
    (frame,) = video.read_frames(path)
    # Each pixel goes to (x, y) @ matrix, then all of it back into view.
    height, width = photo.shape[:2]
    y, x = np.mgrid[:height, :width]
    places = np.stack([x, y], -1) @ np.array(matrix).reshape(2, 2)
    places -= places.reshape(-1, 2).min(0)
    wanted = np.zeros(frame.shape, np.uint8)
    wanted[places[..., 1], places[..., 0]] = photo
    assert np.abs(frame.astype(float) - wanted).mean() < 3.5
    info = video.probe(path)
    assert (info.height, info.width) == frame.shape[:2]


@pytest.mark.parametrize(
    ("aspect", "matrix", "shape"),
    [
        (Fraction(4, 3), (1, 0, 0, 1), (96, 128)),
        (Fraction(3, 4), (1, 0, 0, 1), (128, 96)),
        (Fraction(4, 3), (0, 1, -1, 0), (128, 96)),
    ],
)
def test_pixels_become_square_before_the_picture_is_turned(
    tmp_path, film, photo, aspect, matrix, shape
):
    plain, path = tmp_path / "plain.mp4", tmp_path / "a.mp4"
    narrow = cv2.resize(photo, (96, 96), interpolation=cv2.INTER_AREA)

    def adjust(context):
        context.sample_aspect_ratio = aspect

    film(plain, [narrow] * 3, codec_options={"crf": "8"}, adjust=adjust)
    with_matrix(plain, path, matrix)
    info, frame = video.probe(path), next(video.read_frames(path))
    assert frame.shape[:2] == shape == (info.height, info.width)
    wanted = cv2.resize(narrow, (128, 96) if aspect > 1 else (96, 128))
    turned = np.rot90(wanted, -1) if matrix[0] == 0 else wanted
    assert np.abs(frame.astype(float) - turned).mean() < 6
    assert info.notes == (f"pixels of {aspect.numerator}:{aspect.denominator}, made square",)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("tape.mpg", {"codec": "mpeg2video", "codec_options": {"flags": "+ildct+ilme", "b": "4M"}}),
        ("hd.mp4", {"codec_options": {"x264-params": "tff=1", "crf": "8"}}),
    ],
)
def test_interlaced_clips_are_deinterlaced_and_noted(tmp_path, film, photo, name, how):
    frames = [np.roll(photo, 6 * i, axis=1) for i in range(9)]
    woven = [frame.copy() for frame in frames[:-1]]
    for frame, later in zip(woven, frames[1:]):
        frame[1::2] = later[1::2]
    film(tmp_path / name, woven, **how)
    read = list(video.read_frames(tmp_path / name))
    assert len(read) == len(woven)
    assert video.probe(tmp_path / name).notes == ("interlaced, deinterlaced",)

    def combed(image):
        rows = image.astype(float)
        return np.abs(rows[1:-1:2] - (rows[:-2:2] + rows[2::2]) / 2).mean()

    assert combed(read[4]) < 0.5 * combed(woven[4])


@pytest.mark.parametrize(("size", "matrix"), [((128, 96), 5), ((1280, 96), 1)])
def test_a_clip_that_does_not_say_its_matrix_is_as_usual_for_its_size(
    tmp_path, photo, size, matrix
):
    path, wide = tmp_path / "a.mkv", cv2.resize(photo, size, interpolation=cv2.INTER_NEAREST)
    with av.open(str(path), "w") as output:
        stream = output.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv444p"
        frame = av.VideoFrame.from_ndarray(wide, format="rgb24")
        frame = frame.reformat(format="yuv444p", dst_colorspace=Colorspace(matrix))
        output.mux([*stream.encode(frame), *stream.encode()])
    (read,) = video.read_frames(path)
    assert np.abs(read.astype(float) - wide).mean() < 1


def test_turns_are_read_beside_data_that_nobody_knows(tmp_path, photo):
    exif = Image.Exif()
    exif[0x0110] = "camera"
    frame = io.BytesIO()
    Image.fromarray(photo).save(frame, "JPEG", quality=95, exif=exif)
    (tmp_path / "camera.mjpeg").write_bytes(frame.getvalue() * 3)
    read = list(video.read_frames(tmp_path / "camera.mjpeg"))
    assert len(read) == 3 and np.abs(read[1].astype(float) - photo).mean() < 3.5


def joined(path, pictures):
    """A transport stream of one picture after the other, each of a size of its own."""
    data = b""
    for number, picture in enumerate(pictures):
        part = io.BytesIO()
        with av.open(part, "w", format="mpegts") as output:
            stream = output.add_stream("libx264", rate=25, options={"crf": "8"})
            stream.height, stream.width = picture.shape[:2]
            stream.pix_fmt = "yuv420p"
            for i in range(5):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = 5 * number + i, Fraction(1, 25)
                output.mux(stream.encode(frame))
            output.mux(stream.encode())
        data += part.getvalue()
    path.write_bytes(data)


def test_pictures_that_change_their_size_keep_that_of_the_first(tmp_path, photo):
    path = tmp_path / "call.ts"
    small = cv2.resize(photo, (64, 48), interpolation=cv2.INTER_AREA)
    joined(path, [photo, small, photo])
    frames = list(video.read_frames(path))
    assert [frame.shape for frame in frames] == [photo.shape] * 15
    assert np.abs(frames[2].astype(float) - photo).mean() < 3.5
    assert np.abs(frames[7].astype(float) - cv2.resize(small, (128, 96))).mean() < 3.5


def test_a_clip_that_becomes_another_shape_is_refused_with_the_frame(tmp_path, photo):
    path = tmp_path / "turned.ts"
    joined(path, [photo, np.ascontiguousarray(np.rot90(photo))])
    with pytest.raises(InputError, match=r"frame 5: 96x128 pixels from here on, 128x96 before"):
        list(video.read_frames(path))


def test_transparent_clips_lie_on_white(tmp_path, photo):
    alpha = np.zeros((96, 128, 1), np.uint8)
    alpha[:48], alpha[48:72] = 255, 128
    with av.open(str(tmp_path / "a.mov"), "w") as output:
        stream = output.add_stream("qtrle", rate=25)
        stream.height, stream.width, stream.pix_fmt = 96, 128, "argb"
        for _ in range(2):
            frame = av.VideoFrame.from_ndarray(np.dstack([photo, alpha]), format="rgba")
            output.mux(stream.encode(frame.reformat(format="argb")))
        output.mux(stream.encode())
    frame = next(video.read_frames(tmp_path / "a.mov"))
    np.testing.assert_array_equal(frame[:48], photo[:48])
    half = 255 - (255 - photo[48:72].astype(float)) * 128 / 255
    assert np.abs(frame[48:72] - half).max() <= 1
    assert (frame[72:] == 255).all()


def test_transparency_that_is_not_read_is_noted(tmp_path, photo):
    with av.open(str(tmp_path / "a.webm"), "w") as output:
        stream = output.add_stream("libvpx-vp9", rate=25)
        stream.height, stream.width, stream.pix_fmt = 96, 128, "yuva420p"
        rgba = np.dstack([photo, np.full((96, 128), 90, np.uint8)])
        output.mux(stream.encode(av.VideoFrame.from_ndarray(rgba, format="rgba")))
        output.mux(stream.encode())
    assert video.probe(tmp_path / "a.webm").notes == (
        "its transparency is not read: what lies under it is seen",
    )
