"""HEIC, as phones save their photos: a grid of tiles, each an HEVC picture (ISO/IEC 23008-12)."""

import io
import struct

import av
import numpy as np
import pytest

from input_pipeline.errors import InputError
from input_pipeline.media.pictures import read_picture
from tests.input_pipeline.media.hdr_test import as_hlg

pytest.importorskip("pi_heif")
BT709, HLG = (1, 13, 6), (9, 18, 9)  # primaries, transfer, matrix


def box(kind, *parts):
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def full(kind, *parts, version=0, flags=0):
    return box(kind, struct.pack(">I", version << 24 | flags), *parts)


def encoded(image, matrix):
    """hvcC and data of an HEVC picture, by way of an mp4."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        options = {"x265-params": "log-level=none:bframes=0", "crf": "10"}
        stream = output.add_stream("libx265", rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = *image.shape[:2], "yuv420p"
        stream.codec_context.color_range = 1
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        output.mux(stream.encode(frame.reformat(format="yuv420p", dst_colorspace=matrix)))
        output.mux(stream.encode())
    data = file.getvalue()

    def found(kind):
        at = data.index(kind) - 4
        return data[at : at + struct.unpack_from(">I", data, at)[0]]

    return found(b"hvcC"), found(b"mdat")[8:]


def write(path, image, codes=BT709, turn=0):
    """Two tiles beside each other. turn: quarters, against the clock, that a reader has to add."""
    height, width = image.shape[:2]
    tiles = [encoded(part, codes[2]) for part in np.hsplit(image, 2)]
    grid = struct.pack(">BBBBHH", 0, 0, 0, 1, width, height)
    items = [
        full(b"infe", struct.pack(">HH4sx", number, 0, kind), version=2, flags=int(number > 1))
        for number, kind in ((1, b"grid"), (2, b"hvc1"), (3, b"hvc1"))
    ]
    properties = box(
        b"ipco", tiles[0][0],
        full(b"ispe", struct.pack(">II", width // 2, height)),
        full(b"ispe", struct.pack(">II", width, height)),
        full(b"pixi", bytes([3, 8, 8, 8])),
        box(b"colr", b"nclx", struct.pack(">HHHB", *codes, 0)),
        box(b"irot", bytes([turn])),
    )  # fmt: skip
    owned = [struct.pack(">HB4B", 1, 4, 3, 4, 5, 0x86)]
    owned += [struct.pack(">HB4B", number, 4, 0x81, 2, 4, 5) for number in (2, 3)]

    def meta(start):
        places = struct.pack(">HHHHII", 1, 1, 0, 1, 0, len(grid))  # that of the grid is in idat
        for number, (_, data) in enumerate(tiles, 2):
            places += struct.pack(">HHHHII", number, 0, 0, 1, start, len(data))
            start += len(data)
        return full(
            b"meta",
            full(b"hdlr", struct.pack(">4x4s12xx", b"pict")),
            full(b"pitm", struct.pack(">H", 1)),
            full(b"iinf", struct.pack(">H", len(items)), *items),
            full(b"iref", box(b"dimg", struct.pack(">HHHH", 1, 2, 2, 3))),
            box(b"iprp", properties, full(b"ipma", struct.pack(">I", len(owned)), *owned)),
            box(b"idat", grid),
            full(b"iloc", struct.pack(">HH", 0x4400, len(items)), places, version=1),
        )

    kind = box(b"ftyp", b"heic\0\0\0\0mif1heic")
    start = len(kind) + len(meta(0)) + 8
    path.write_bytes(kind + meta(start) + box(b"mdat", *(data for _, data in tiles)))


@pytest.mark.parametrize("turn", range(4))
def test_tiles_are_one_picture_upright(tmp_path, photo, turn):
    write(tmp_path / "a.heic", np.rot90(photo, -turn), turn=turn)
    found = read_picture(tmp_path / "a.heic")
    assert found.shape == photo.shape and np.abs(found.astype(float) - photo).mean() < 4


def test_hdr_gets_the_colours_of_a_usual_screen(tmp_path, photo):
    dim = photo * (200 / 255)
    stored = np.rint(as_hlg(dim) * 255).astype(np.uint8)
    write(tmp_path / "a.heic", stored, HLG)
    assert np.abs(stored - dim).mean() > 12
    assert np.abs(read_picture(tmp_path / "a.heic") - dim).mean() < 6


def test_a_damaged_one_is_named(tmp_path, photo):
    write(tmp_path / "a.heic", photo)
    data = (tmp_path / "a.heic").read_bytes()
    (tmp_path / "a.heic").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"a\.heic: damaged picture"):
        read_picture(tmp_path / "a.heic")
