import pytest

from input_pipeline.errors import InputError
from input_pipeline.prepare import labels


@pytest.fixture
def read(tmp_path):
    def read(text, clips):
        (tmp_path / "labels.csv").write_text(text)
        return labels.read(tmp_path / "labels.csv", tmp_path / "videos", clips)

    return read


def test_descriptions_count_as_present_and_negations_as_absent(read):
    cells = "file,note,hair,glasses,hat,beard\na.mp4,x,tied back,No,0,\nb.mp4,x,none,yes,false,1\n"
    found, notes = read(cells, ["a.mp4", "b.mp4"])
    assert found["a.mp4"].present == {"hair"}
    assert found["b.mp4"].present == {"glasses", "beard"}
    assert notes == []


def test_without_labels_hair_is_present_and_the_clip_is_its_own_identity(tmp_path):
    found, notes = labels.read(None, tmp_path, ["x/a.mp4"])
    assert found == {"x/a.mp4": labels.Label(frozenset({"hair"}), "x/a")}
    assert notes == []


def test_a_row_belongs_to_the_clip_with_most_folders_in_common(read):
    rows = "file,hair,identity\nvideos/x/a.mp4,no,Ann\ny/a.mp4,yes,Bob\n"
    found, _ = read(rows, ["x/a.mp4", "y/a.mp4"])
    assert found["x/a.mp4"] == labels.Label(frozenset(), "Ann")
    assert found["y/a.mp4"] == labels.Label(frozenset({"hair"}), "Bob")


def test_rows_and_clips_without_partner_are_reported(read):
    found, notes = read("file,hat\nvideos/a.mp4,yes\nportraits/p.png,yes\n", ["a.mp4", "b.mp4"])
    assert found["a.mp4"].present == {"hair", "hat"} and found["b.mp4"].present == {"hair"}
    assert any("portraits/p.png" in note for note in notes)
    assert any("b.mp4" in note for note in notes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,hair\na.mp4,yes\n", "no column 'file'"),
        ("", "no column 'file'"),
        ("file,hat\na.mp4,yes\n", "line 2: 'a.mp4' fits x/a.mp4 and y/a.mp4"),
        ("file,hat\nx/a.mp4,yes\nx/a.mp4,no\n", "line 3: x/a.mp4 was labelled otherwise"),
    ],
)
def test_labels_that_cannot_be_trusted_are_refused(read, text, message):
    with pytest.raises(InputError, match=message):
        read(text, ["x/a.mp4", "y/a.mp4"])


def test_a_missing_label_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"absent\.csv"):
        labels.read(tmp_path / "absent.csv", tmp_path, ["a.mp4"])
