"""What a browser hands in is bounded and decoded; what it leaves behind goes."""

import os
import time
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from durian_jax.app import visits
from durian_jax.app.visits import Visits, check_driver, check_photo
from input_pipeline.errors import InputError
from input_pipeline.media import video
from input_pipeline.media.pictures import read_picture, write_picture

GREY = np.full((64, 64, 3), 128, np.uint8)
PLAYLIST = b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n"


def _file(folder, name, data):
    (folder / name).write_bytes(data)
    return str(folder / name)


def _clip(path, frames, fps=25):
    video.write_video(path, (GREY for _ in range(frames)), Fraction(fps))
    return str(path)


@pytest.mark.parametrize("name", ["me.png", "me.jpg"])
@pytest.mark.parametrize(
    "data", [b"", b"hello", PLAYLIST, POSTSCRIPT, b"PK\x03\x04zip", b"<svg></svg>"]
)
def test_what_is_no_photo_is_not_opened_whatever_its_name(tmp_path, name, data):
    with pytest.raises(InputError, match=f"{name}: not a photo: give a PNG"):
        check_photo(_file(tmp_path, name, data))


def test_a_photo_is_decoded(tmp_path):
    write_picture(tmp_path / "me.png", GREY)
    check_photo(str(tmp_path / "me.png"))
    whole = (tmp_path / "me.png").read_bytes()
    with pytest.raises(InputError, match=r"cut.png: damaged picture"):
        check_photo(_file(tmp_path, "cut.png", whole[: len(whole) // 2]))
    check_photo(_file(tmp_path, "renamed.jpg", whole))


@pytest.mark.parametrize("data", [b"hello", PLAYLIST, b"ffconcat version 1.0\nfile /etc/passwd"])
def test_a_playlist_is_no_clip(tmp_path, data):
    with pytest.raises(InputError, match=r"a.mp4: not a clip: give an MP4"):
        check_driver(_file(tmp_path, "a.mp4", data))


def test_a_clip_is_decoded_and_bounded(tmp_path, monkeypatch):
    check_driver(_clip(tmp_path / "short.mp4", 5))
    check_driver(_clip(tmp_path / "short.gif", 5))
    whole = (tmp_path / "short.mp4").read_bytes()
    with pytest.raises(InputError, match=r"cut.mp4: "):
        check_driver(_file(tmp_path, "cut.mp4", whole[: len(whole) // 2]))
    with pytest.raises(InputError, match=r"slow.mp4: 65 s, 65 frames: the page takes 60 s"):
        check_driver(_clip(tmp_path / "slow.mp4", 65, fps=1))
    monkeypatch.setattr(visits, "MOST_MEGABYTES", {"photo": 0.0001, "clip": 0.0001})
    with pytest.raises(InputError, match=r"short.mp4: 0 MB: a clip may have"):
        check_driver(str(tmp_path / "short.mp4"))


def test_a_photo_may_drive(tmp_path):
    write_picture(tmp_path / "pose.png", GREY)
    check_driver(str(tmp_path / "pose.png"))
    with pytest.raises(InputError, match="not a photo"):
        check_driver(_file(tmp_path, "pose.jpg", PLAYLIST))


@pytest.fixture
def tabs(tmp_path):
    return Visits(tmp_path)


def _tab(name):
    return SimpleNamespace(session_hash=name)


def test_a_closed_tab_leaves_nothing_and_takes_nothing_of_others(tabs, tmp_path):
    shared, own = _file(tmp_path, "shared.png", b"x"), _file(tmp_path, "own.png", b"x")
    one, other = tabs.of(_tab("one")), tabs.of(_tab("other"))
    assert tabs.of(_tab("one")) is one and one is not other
    one.uploads |= {shared, own}
    other.uploads.add(shared)
    result = one.new_folder() / "out.mp4"
    result.write_bytes(b"x")
    tabs.close(_tab("one"))
    assert not one.folder.exists() and not os.path.exists(own)
    assert os.path.exists(shared) and other.folder.exists()
    tabs.close(_tab("nobody"))


def test_pictures_are_shown_as_files_of_their_tab(tabs):
    paint = np.zeros((64, 64, 4), np.uint8)
    paint[8:, :, 3] = 150
    shown = (None, [(GREY, "driver")], {"background": GREY, "layers": [paint]}, "text", 3)
    handler = tabs.answering(lambda *values: (*shown, *values))
    *same, gallery, editor, text, number, given = handler(_tab("one"), "given")
    assert (same, text, number, given) == (["", None], "text", 3, "given")
    folder = tabs.of(_tab("one")).folder
    (path, caption), layers = gallery[0], editor["layers"]
    assert folder in Path(path).parents and caption == "driver"
    np.testing.assert_array_equal(read_picture(path), GREY)
    np.testing.assert_array_equal(np.asarray(Image.open(layers[0])), paint)
    tabs.close(_tab("one"))
    assert not Path(path).exists()


def test_a_line_says_what_is_wrong_in_place_of_an_answer(tabs, capsys):
    def fail(error):
        raise error

    handler = tabs.answering(fail, None, 1)
    line, *failed = handler(_tab("one"), InputError("/a/b: damaged"))
    assert "b: damaged" in line and "/a" not in line and failed == [None, 1]
    line, *_ = handler(_tab("one"), KeyError("secret"))
    assert "the program failed" in line and "secret" not in line
    assert "secret" in capsys.readouterr().err


def test_files_of_a_tab_in_use_stay(tabs, tmp_path):
    one = tabs.of(_tab("one"))
    mine, others = _file(tmp_path, "mine.png", b"x"), _file(tmp_path, "others.png", b"x")
    one.uploads.add(mine)
    result = one.new_folder() / "out.mp4"
    result.write_bytes(b"x")
    for path in (mine, others, result):
        os.utime(path, (0, 0))
    tabs.sweep()
    assert os.path.exists(mine) and result.exists() and not os.path.exists(others)
    one.used -= 3700
    tabs.sweep()
    assert not os.path.exists(mine) and not result.exists()
    with pytest.raises(InputError, match="was uploaded too long ago: upload it again"):
        check_photo(mine)


def test_an_animated_webp_may_drive(tmp_path):
    path = tmp_path / "a.webp"
    frames = [Image.fromarray(np.full((64, 64, 3), 40 * i, np.uint8)) for i in range(3)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=40)
    check_driver(str(path))


def test_files_go_after_an_hour(tabs, tmp_path):
    result = tabs.of(_tab("one")).new_folder() / "out.mp4"
    result.write_bytes(b"x")
    tabs.sweep(time.time() + 3500)
    assert result.exists()
    tabs.sweep(time.time() + 3700)
    assert not result.exists()
