"""Files and folders that appear whole or not at all."""

import pytest

from input_pipeline.errors import InputError
from input_pipeline.media import files


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


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    for writing in (files.written_beside, files.folder_beside):
        with (
            pytest.raises(InputError, match=r"out.json: cannot be written"),
            writing(tmp_path / "file" / "out.json"),
        ):
            pass
