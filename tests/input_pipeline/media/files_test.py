"""Files and folders that appear whole or not at all, and never in place of an input."""

import contextlib
import os
import resource
import signal
from pathlib import Path

import pytest

from input_pipeline.errors import InputError
from input_pipeline.media import files


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    for path in (tmp_path / "pipe.mp4", Path("/dev/null")):
        with pytest.raises(InputError, match="a pipe or device; save it as a file"):
            files.check_file(path)


@pytest.mark.parametrize("shared", [False, True])
def test_a_file_is_replaced_when_the_new_one_is_whole(tmp_path, shared):
    path = tmp_path / "deep" / "a.json"
    for text in ("old", "new"):
        with files.written_beside(path, shared=shared) as beside:
            beside.write_text(text)
    with pytest.raises(ZeroDivisionError), files.written_beside(path, shared=shared) as beside:
        beside.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "new" and list(path.parent.iterdir()) == [path]


def test_two_writers_of_a_shared_file_do_not_meet(tmp_path):
    path = tmp_path / "a.json"
    with files.written_beside(path, shared=True) as one:
        with files.written_beside(path, shared=True) as two:
            one.write_text("one")
            two.write_text("two")
        assert path.read_text() == "two"
    assert path.read_text() == "one"


def test_a_folder_is_whole_or_not_there(tmp_path):
    out = tmp_path / "deep" / "out"
    with pytest.raises(ZeroDivisionError), files.folder_beside(out) as folder:
        (folder / "half").touch()
        raise ZeroDivisionError
    assert not list(out.parent.iterdir())
    with files.folder_beside(out) as folder:
        (folder / "mark").touch()
    assert [path.name for path in out.iterdir()] == ["mark"]


def test_only_a_folder_of_the_same_kind_is_replaced(tmp_path):
    (tmp_path / "mark").touch()
    with files.folder_beside(tmp_path, replaces="mark") as folder:
        (folder / "thesis.tex").touch()
    for replaces, message in ((None, "already there: name"), ("mark", "has no mark: name")):
        with (
            pytest.raises(InputError, match=message),
            files.folder_beside(tmp_path, replaces=replaces),
        ):
            pass
    assert (tmp_path / "thesis.tex").exists()


def test_a_folder_is_not_replaced_with_what_else_is_in_it(tmp_path):
    for name in ("mark", "sheets", "mark.md", "notes.md"):
        (tmp_path / name).touch()
    replacing = {"replaces": "mark", "holds": ("mark.*", "sheets")}
    with (
        pytest.raises(InputError, match=f"^{tmp_path}: would lose notes.md, which is in it: name"),
        files.folder_beside(tmp_path, **replacing),
    ):
        pass
    assert len(list(tmp_path.iterdir())) == 4
    (tmp_path / "notes.md").unlink()
    with files.folder_beside(tmp_path, **replacing) as folder:
        (folder / "mark").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["mark"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    for writing in (files.written_beside, files.folder_beside):
        with (
            pytest.raises(InputError, match=r"out.json: cannot be written"),
            writing(tmp_path / "file" / "out.json"),
        ):
            pass


@contextlib.contextmanager
def _full_disk():
    """Here no file can grow beyond 1000 bytes, not even what the tests say goes into."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def test_a_tilde_is_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.local("~/a.mp4") == tmp_path / "a.mp4"
    assert str(files.local("b~/a.mp4")) == "b~/a.mp4"


@pytest.mark.parametrize("link", ["https://example.com/talk.mp4", "s3://bucket/a.png"])
def test_a_link_is_named_as_it_was_given(link):
    with pytest.raises(InputError, match=f"^{link}: a link is not read: download it first"):
        files.local(link)


def test_an_input_is_known_by_any_name(tmp_path):
    source = tmp_path / "talk.mp4"
    source.write_bytes(b"film")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.mp4").symlink_to(source)
    os.link(source, tmp_path / "hard.mp4")
    for name in ("talk.mp4", "link.mp4", "hard.mp4", "folder/../talk.mp4"):
        with pytest.raises(InputError, match=r"would replace the input .*talk\.mp4"):
            files.Inputs([source]).check_apart([tmp_path / "new.mp4", tmp_path / name])
    files.Inputs([source, tmp_path / "missing.png"]).check_apart([tmp_path / "new.mp4"])


def test_a_name_that_is_too_long_is_found_before_the_work(tmp_path):
    with pytest.raises(InputError, match=r"cannot be written .*too long"):
        files.check_output(tmp_path / ("x" * 248 + ".mp4"), ".mp4")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("old")
    told = pytest.raises(InputError, match=r"a\.csv: cannot be written \(File too large\)")
    with _full_disk(), told, files.written_beside(path) as beside:
        beside.write_bytes(bytes(2000))
    assert [file.name for file in tmp_path.iterdir()] == ["a.csv"] and path.read_text() == "old"


def test_a_folder_that_vanishes_is_one_line(tmp_path):
    path = tmp_path / "folder" / "a.csv"
    told = pytest.raises(InputError, match=r"a\.csv: cannot be written \(No such file")
    with told, files.written_beside(path) as beside:
        beside.write_text("new")
        (tmp_path / "folder").rename(tmp_path / "elsewhere")


def test_files_that_belong_together_appear_together(tmp_path):
    out = tmp_path / "out.mp4"
    with files.gathered(out, last=".json") as folder:
        (folder / "out.mp4").write_text("film")
        (folder / "out.json").write_text("settings")
        assert not out.exists()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out.json", "out.mp4"]


def test_of_files_that_belong_together_none_is_replaced_if_one_fails(tmp_path):
    out = tmp_path / "out.mp4"
    for name in ("out.mp4", "out.json"):
        (tmp_path / name).write_text("old")
    told = pytest.raises(InputError, match=rf"{tmp_path}/out\.csv: cannot be written")
    with _full_disk(), told, files.gathered(out, last=".json") as folder:
        (folder / "out.mp4").write_text("new")
        with files.written_beside(folder / "out.csv") as beside:
            beside.write_bytes(bytes(2000))
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {
        "out.mp4": "old", "out.json": "old"
    }  # fmt: skip
