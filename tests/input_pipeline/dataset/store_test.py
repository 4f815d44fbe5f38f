import pickle
import uuid

import pytest

from input_pipeline.dataset.store import Store
from input_pipeline.errors import InputError


@pytest.fixture(params=["disk", "object store"])
def store(request, tmp_path):
    if request.param == "disk":
        return Store.at(tmp_path / "store")
    return Store.at(f"memory://{uuid.uuid4().hex}/store")


def test_files_come_back_from_any_process(store):
    store.write("a/b.txt", b"one")
    store.write("c.txt", b"two")
    other = pickle.loads(pickle.dumps(store))
    assert other.read("a/b.txt") == b"one"
    assert list(other.files()) == ["a/b.txt", "c.txt"] and list(other.files("a")) == ["b.txt"]
    assert other.list() == ["c.txt"] and other.list("absent") == []
    assert other.exists("c.txt") and not other.exists("b.txt")


def test_a_changed_file_has_another_version(store):
    store.write("a", b"one")
    before = store.files()
    assert store.files() == before
    store.write("a", b"three")
    assert store.files()["a"] != before["a"]


def test_files_move_over_others_and_go(store):
    store.write("new", b"new")
    store.write("old", b"old")
    store.move("new", "old")
    assert store.list() == ["old"] and store.read("old") == b"new"
    store.remove(["old", "never there"])
    assert store.list() == []
    store.write("a/b/c", b"")
    store.remove_folder("a")
    assert not store.exists("a/b/c")


def test_a_library_that_wants_a_file_on_disk_gets_one(store):
    store.write("a/b.mp4", b"film")
    with store.reading("a/b.mp4") as root:
        assert (root / "a/b.mp4").read_bytes() == b"film"
    with store.writing("c/d.bin") as path:
        path.write_bytes(b"made")
    assert store.read("c/d.bin") == b"made"


def test_a_write_that_fails_leaves_what_was_there(store):
    store.write("a", b"old")
    with pytest.raises(ZeroDivisionError), store.writing("a") as path:
        path.write_bytes(b"half")
        raise ZeroDivisionError
    assert store.read("a") == b"old" and list(store.files()) == ["a"]


def test_unknown_schemes_and_unwritable_folders_are_refused(tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        Store.at("nowhere://bucket/folder")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot be written"):
        Store.at(tmp_path / "file" / "out").make()


def test_folders_behind_links_are_searched_each_once(tmp_path):
    clips, other = Store.at(tmp_path / "clips"), Store.at(tmp_path / "other")
    other.write("b.txt", b"two")
    clips.write("a.txt", b"one")
    (tmp_path / "clips/more").symlink_to(tmp_path / "other")
    (tmp_path / "clips/c.txt").symlink_to(tmp_path / "other/b.txt")
    (tmp_path / "clips/lost.txt").symlink_to(tmp_path / "nowhere")
    (tmp_path / "other/round").symlink_to(tmp_path / "clips")
    assert list(clips.files()) == ["a.txt", "c.txt", "lost.txt", "more/b.txt"]
    before = clips.files()
    other.write("b.txt", b"four")
    after = clips.files()
    assert {name for name in after if after[name] != before[name]} == {"c.txt", "more/b.txt"}
