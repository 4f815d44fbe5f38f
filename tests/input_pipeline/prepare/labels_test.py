import unicodedata

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
    unused, described = notes
    assert unused.endswith("columns that are not used: note")
    assert described.endswith(
        "1 cells say neither yes nor no and are taken as present: hair 'tied back'"
    )


def test_words_of_many_kinds_are_descriptions(read):
    clips = ["a.mp4", "b.mp4", "c.mp4"]
    found, _ = read("file,hair\na.mp4,long\nb.mp4,short\nc.mp4,curly\n", clips)
    assert all(found[clip].present == {"hair"} for clip in clips)


def test_plain_labels_need_no_remark(read):
    assert read("file,hair\na.mp4,yes\n", ["a.mp4"])[1] == []


def test_misspelt_columns_are_named_with_what_they_may_stand_for(read):
    found, notes = read("file,Hair Colour,glases,bread,wig\na.mp4,red,yes,yes,no\n", ["a.mp4"])
    assert found["a.mp4"].present == {"hair"}
    assert notes[0].endswith(
        "columns that are not used: hair_colour, glases (glasses?), bread (beard?), wig"
    )


@pytest.mark.parametrize("cell", ["0.0", "nan", "N/A", "null", "-", "nein", "FAUX", "нет", "✗", ""])
def test_no_in_any_table_is_absent(read, cell):
    found, notes = read(f"file,hair,glasses\na.mp4,yes,{cell}\n", ["a.mp4"])
    assert (found["a.mp4"].present, notes) == ({"hair"}, [])


def test_a_table_where_nobody_shows_anything_is_remarked(read):
    text = "file,hair,glasses\na.mp4,no,no\n"
    _, notes = read(text, ["a.mp4"])
    assert "no clip shows hair, glasses, beard, hat" in notes[-1]
    _, notes = read(text, ["a.mp4", "b.mp4"])
    assert not any("no clip shows" in note for note in notes)


def test_marks_of_missing_values_name_nobody(read):
    rows = "file,identity,split\na.mp4,NaN,N/A\nb.mp4,null,Val\n"
    found, _ = read(rows, ["a.mp4", "b.mp4"])
    assert (found["a.mp4"].identity, found["a.mp4"].split) == ("a", "")
    assert (found["b.mp4"].identity, found["b.mp4"].split) == ("b", "val")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_accents_may_be_composed_or_not(read, form):
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    clip = unicodedata.normalize(form, "müller.mp4")
    found, _ = read(unicodedata.normalize(other, "file,hat\nmüller.mp4,yes\n"), [clip])
    assert found[clip].present == {"hair", "hat"}


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


def test_hair_may_be_described_where_nothing_says_no(read):
    found, notes = read("file,hair\na.mp4,long\nb.mp4,short\n", ["a.mp4", "b.mp4"])
    assert all(label.present == {"hair"} for label in found.values())
    assert any("taken as present: hair 'long', hair 'short'" in note for note in notes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,hair\na.mp4,yes\n", "no column 'file'"),
        ("", "no column 'file'"),
        ("file,hat\na.mp4,yes\n", "line 2: 'a.mp4' fits x/a.mp4 and y/a.mp4"),
        ("file,hat\nx/a.mp4,0.5\n", "line 2: hat '0.5' may mean yes or no"),
        ("file,hat\nx/a.mp4,not visible\n", "line 2: hat 'not visible' may mean yes or no"),
        ("file,hat\nx/a.mp4,tak\ny/a.mp4,qq\n", "line 3: hat 'qq' may mean yes or no, as nothing"),
        ("file,hat\nx/a.mp4,pp\ny/a.mp4,qq\n", "line 2: hat 'pp' may mean yes or no, as nothing"),
        ("file,hat\nx/a.mp4,yes\ny/a.mp4,red, green\n", "line 3: 1 cells too many: quote"),
        ("file,hat,Hat\nx/a.mp4,yes,no\n", "column 'hat' is there twice"),
        ("file,hat\nx/a.mp4,yes\nx/a.mp4,no\n", "line 3: x/a.mp4 was labelled otherwise"),
    ],
)
def test_labels_that_cannot_be_trusted_are_refused(read, text, message):
    with pytest.raises(InputError, match=message):
        read(text, ["x/a.mp4", "y/a.mp4"])


def test_a_missing_label_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"absent\.csv"):
        labels.read(tmp_path / "absent.csv", tmp_path, ["a.mp4"])
