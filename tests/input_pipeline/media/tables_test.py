"""Tables of every separator and encoding that spreadsheets write; what is none is named."""

import pytest

from input_pipeline.errors import InputError
from input_pipeline.media import tables

TEXT = 'file,hair,name\nmüller.mp4,yes,"a, b; c\td"\n'
ROW = {"file": "müller.mp4", "hair": "yes", "name": "a, b; c\td"}


@pytest.fixture
def read(tmp_path):
    def read(content, encoding="utf-8"):
        data = content if isinstance(content, bytes) else content.encode(encoding)
        (tmp_path / "t.csv").write_bytes(data)
        return tables.read(tmp_path / "t.csv", ("file",), ("hair", "name"))

    return read


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_any_separator_and_any_end_of_line(read, separator, end):
    head = TEXT.split("\n")[0]
    cells = ["müller.mp4", "yes", '"a, b; c\td"']
    found = read(f"{head.replace(',', separator)}{end}{separator.join(cells)}{end}")
    assert (found.rows, found.separator, found.notes) == ([(2, ROW)], separator, [])


@pytest.mark.parametrize("first", ["sep=;", '"sep=;"', "sep=;\r", "SEP = ;"])
def test_the_line_that_tells_the_separator(read, first):
    found = read(f"{first}\nfile;hair\na,b.mp4;yes\n")
    assert found.rows == [(3, {"file": "a,b.mp4", "hair": "yes"})]


@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"],
)
def test_encodings_that_can_be_told(read, encoding):
    found = read(TEXT, encoding)
    assert (found.rows, found.notes) == ([(2, ROW)], [])


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
def test_an_encoding_that_is_a_guess_is_noted(read, encoding):
    found = read(TEXT, encoding)
    assert found.rows == [(2, ROW)]
    assert "not UTF-8; read as Windows-1252" in found.notes[0]


def test_names_of_columns_may_be_written_as_titles(read):
    found = read(' "File",HAIR,Some Note\na.mp4, yes ,\n')
    assert found.columns == ["file", "hair", "some_note"]
    assert found.rows == [(2, {"file": "a.mp4", "hair": "yes", "some_note": ""})]


def test_rows_of_separators_and_lines_before_the_names_are_passed_over(read):
    found = read(",,\n\nfile,hair\n,,\na.mp4\n \nb.mp4,no,,\n")
    assert found.rows == [
        (5, {"file": "a.mp4", "hair": ""}), (7, {"file": "b.mp4", "hair": "no"}),
    ]  # fmt: skip
    assert found.surplus == {}


def test_cells_without_a_column_are_counted(read):
    assert read("file,hair\na.mp4,long, dark,\nb.mp4,no\n").surplus == {2: 1}


@pytest.mark.parametrize("head", ["", "Unnamed: 0"])
def test_columns_without_a_name_are_left_out(read, head):
    found = read(f"{head},file\n0,a.mp4\n1,b.mp4\n")
    assert (found.columns, found.notes) == (["file"], [])
    found = read(f"{head},file\nyes,a.mp4\n,b.mp4\n")
    assert found.columns == ["file"] and "column 1 has no name" in found.notes[0]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "no column 'file': name the columns in the first line; by commas it reads nothing"),
        ("datei;haare\n", "it reads 'datei;haare'"),
        ("flie,hair\n", "it reads 'flie' (file?), 'hair'"),
        ("file,hair,hair\na,b,c\n", "column 'hair' is there twice: keep one"),
        ('file,hair\na.mp4,"yes\nb.mp4,no\n', "look for a quote that is not closed"),
        (b"PK\x03\x04" + bytes(range(99)), "an archive or workbook (zip); a table must be CSV"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document"),
        ("<!DOCTYPE html><html>Log in", "a web page"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a pointer of git-lfs"),
        (b"file\x81\x00\xff", "cannot be read as text"),
    ],
)  # fmt: skip
def test_what_is_no_table_is_named(read, content, reason):
    with pytest.raises(InputError) as caught:
        read(content)
    assert reason in str(caught.value) and "t.csv: " in str(caught.value)


@pytest.mark.parametrize("name", ["", "no.csv", "x://y/z.csv"])
def test_what_cannot_be_opened_is_one_line(tmp_path, name):
    path = name if ":" in name else tmp_path / name
    with pytest.raises(InputError, match=r"no such file|cannot be read"):
        tables.read(path, ("file",), ())
