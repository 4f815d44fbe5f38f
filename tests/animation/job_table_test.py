"""What a table of jobs says, and what becomes of rows that say nothing sensible."""

import unicodedata
from pathlib import Path

import pytest

from durian_jax.animation import job_table
from durian_jax.animation.job import Job
from input_pipeline.errors import InputError
from input_pipeline.motion.driver import MotionOptions

HEADER = "portrait,attributes,driving"
DEFAULTS = Job("", [], "", grow_mask=0.1, seed=7)


@pytest.fixture
def read(tmp_path):
    """A function of the lines of a table to its rows."""

    def write_and_read(*lines, encoding="utf-8"):
        path = tmp_path / "jobs.csv"
        path.write_text("".join(f"{line}\n" for line in lines), encoding)
        return job_table.read(path, DEFAULTS)

    return write_and_read


def test_a_short_table_leaves_the_rest_to_the_defaults(read, tmp_path):
    first, second = read(HEADER, "me.jpg,her.jpg:hair,talk.mp4", "", "/you.jpg,,/talk.npz")
    assert first.job == Job(
        tmp_path / "me.jpg", [(tmp_path / "her.jpg", "hair")], tmp_path / "talk.mp4",
        grow_mask=0.1, seed=7,
    )  # fmt: skip
    assert (first.name, second.name) == ("job-0001", "job-0002")
    assert (first.error, second.error) == (None, None)
    assert second.job.portrait == Path("/you.jpg") and second.job.attributes == []


def test_every_column_has_its_say(read, tmp_path):
    (row,) = read(
        "framed,frames,smooth,motion,alpha,towards,portrait_mask,seed,name," + HEADER,
        'yes,5,0.5,absolute,0; 0.5;1,c.png:hair;d.png:hat,m.png,3,"a, b",'
        "p.png,a.png:hair:am.png; b.png:hat,d.png",
        encoding="utf-8-sig",
    )
    photo = tmp_path.joinpath
    assert row.name == "a, b"
    assert row.job == Job(
        photo("p.png"),
        [(photo("a.png"), "hair", photo("am.png")), (photo("b.png"), "hat")],
        photo("d.png"),
        portrait_mask=photo("m.png"),
        grow_mask=0.1,
        framed=True,
        motion_options=MotionOptions("absolute", 0.5, 5),
        seed=3,
        towards=[(photo("c.png"), "hair"), (photo("d.png"), "hat")],
        alpha=(0.0, 0.5, 1.0),
    )


def test_a_job_is_the_same_wherever_its_row_stands(read):
    row = "me.jpg,her.jpg:hair,talk.mp4"
    first, second = read(HEADER + ",name", row + ",a", row + ",b")
    assert first.job == second.job


@pytest.mark.parametrize(
    ("column", "cell", "reason"),
    [
        ("portrait", "", "portrait is empty"),
        ("driving", "", "driving is empty"),
        ("attributes", "her.jpg", "attributes: 'her.jpg' has no kind"),
        ("attributes", "her.jpg:hair;his.jpg:wig", "unknown kind 'wig'"),
        ("seed", "x", "seed 'x': write a whole number"),
        ("seed", "1.5", "seed '1.5': write a whole number"),
        ("seed", "-1", "seed -1: use 0 to 4294967295"),
        ("smooth", "much", "smooth 'much': write a number"),
        ("smooth", "-1", "smooth -1: must be 0 (off) to 100"),
        ("frames", "0", "frames 0: must be 1 to 100000"),
        ("motion", "mirrored", "motion 'mirrored': unknown"),
        ("framed", "perhaps", "framed 'perhaps': write yes or no"),
        ("alpha", "0.5", "an interpolation needs attributes to go to, and alpha"),
        ("towards", "his.jpg:hair", "an interpolation needs attributes to go to, and alpha"),
        ("alpha", "x", "alpha: 'x': write numbers from 0 to 1"),
        ("alpha", "2", "alpha 2: use 0 "),
        ("name", "../out", "name '../out': must be that of a file"),
        ("name", ".hidden", "name '.hidden': must be that of a file"),
        ("name", "x" * 201, "at most 200 bytes"),
        ("name", "first", "name 'first': an earlier row writes such a file"),
        ("name", "first_grid", "name 'first_grid': an earlier row writes such a file"),
        ("portrait", "me\0.jpg", "portrait 'me\\x00.jpg': cannot be"),
    ],
)
def test_a_bad_cell_is_an_error_of_its_row_alone(read, column, cell, reason):
    columns = {"portrait": "me.jpg", "attributes": "her.jpg:hair", "driving": "talk.mp4"}
    columns |= {"name": ""} | ({column: ""} if column not in columns else {})
    bad = columns | {column: cell}
    lines = [columns | {"name": "first"}, bad, columns]
    rows = read(",".join(columns), *(",".join(line.values()) for line in lines))
    assert [bool(row.error) for row in rows] == [False, True, False]
    assert str(rows[1].error).startswith("line 3: ") and reason in str(rows[1].error)


def test_a_path_that_no_disk_can_hold_spoils_no_other_row(read):
    long = "\\".join(["x" * 300] * 20)
    rows = read(HEADER, f"{long},,talk.mp4", f"me.jpg,,{long}.jpg", "me.jpg,,talk.mp4")
    assert rows[2].error is None and len(rows) == 3


def test_a_quote_over_two_lines_is_an_error_of_one(read):
    bad, good = read(HEADER + ",name", 'a.jpg,,b.mp4,"a', 'b"', "a.jpg,,b.mp4,c")
    assert str(bad.error) == (
        "line 3: name 'a\\nb': cannot be; look for a quote that is not closed"
    )
    assert (bad.name, good.name, good.error) == ("job-0001", "c", None)


def test_a_comma_that_is_not_quoted_is_named(read):
    (row,) = read(HEADER, "me.jpg,her.jpg:hair,talk.mp4,9,9")
    assert "line 2: 2 cells too many: quote cells that hold a comma" in str(row.error)


def test_a_table_of_a_spreadsheet_is_read_as_it_is_meant(read, tmp_path, capsys):
    (tmp_path / "odd\\name.png").touch()
    rows = read(
        "Name;Portrait;Attributes;Driving;Portrait Mask;Seed;Smooth;Framed;Alpha;Towards;",
        'one.mp4;photos\\me.png;"photos\\her.png:hair;a.png:hat";talk.mp4;nan;3.0;0,5;WAHR;0,5;'
        '"b.png:hair;c.png:hat";',
        ";;;;;;;;;;",
        "two.PNG;odd\\name.png;;pose.jpg;N/A;;-;nein;;;",
        "three.mp4;me.png;;pose.jpg;;;;;;;",
    )
    first, second, _ = rows
    photo = tmp_path.joinpath
    assert [row.error for row in rows] == [None] * 3
    assert [row.name for row in rows] == ["one", "two", "three.mp4"]
    assert first.job.portrait == photo("photos/me.png") and first.job.portrait_mask is None
    assert first.job.attributes == [(photo("photos/her.png"), "hair"), (photo("a.png"), "hat")]
    assert (first.job.seed, first.job.framed, first.job.alpha) == (3, True, (0.5,))
    assert first.job.motion_options.smooth == 0.5
    assert second.job.portrait == photo("odd\\name.png") and not second.job.framed
    assert second.job.motion_options == MotionOptions() and second.job.seed == 7
    read(HEADER, "mö.jpg,,b", encoding="cp1252")
    assert "note: " in (said := capsys.readouterr().out) and "Windows-1252" in said


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_accents_may_be_composed_or_not(read, tmp_path, form):
    (tmp_path / unicodedata.normalize(form, "m\u00fcller.png")).touch()
    rows = read(HEADER, "m\u00fcller.png,,a.mp4", ".\\mu\u0308ller.png,,a.mp4")
    assert all(row.job.portrait.is_file() for row in rows)


def test_the_index_that_pandas_writes_is_no_column(read):
    (row,) = read("," + HEADER, "0,me.jpg,,talk.mp4")
    assert row.error is None and row.job.portrait.name == "me.jpg"


@pytest.mark.parametrize("cell", ["?", "0.5", "sometimes", "unknown", "not cropped"])
def test_framed_is_yes_or_no(read, cell):
    (row,) = read(HEADER + ",framed", f"me.jpg,,talk.mp4,{cell}")
    assert f"framed {cell!r}: write yes or no" in str(row.error)


@pytest.mark.parametrize(
    ("cell", "align"), [("none", "none"), ("None", "none"), ("face", "face"), ("n/a", None)]
)
def test_no_alignment_is_none(read, cell, align):
    (row,) = read(HEADER + ",align", f"me.jpg,,talk.mp4,{cell}")
    assert row.job.motion_options.align == align


def test_further_photos_are_files_of_the_job(read, tmp_path):
    (row,) = read(HEADER + ",references,best_frame", "me.jpg,,talk.mp4,a.jpg; b.jpg,3.0")
    assert row.job.references == [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    assert {*row.job.references} <= {*row.job.files}
    assert row.job.motion_options.best_frame == 3


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([], "no column 'portrait': name the columns in the first line"),
        (["me.jpg,her.jpg:hair,talk.mp4"], "no column 'portrait'"),
        (["portrait,driving"], "no column 'attributes'"),
        ([HEADER], "0 jobs; write one on each line"),
        ([HEADER + ",sped", "a,b,c,d"], "unknown column 'sped' (seed?): choose from portrait, "),
        ([HEADER + ",seed,seed", "a,b,c,1,2"], "column 'seed' is there twice"),
        ([HEADER, 'me.jpg,"her.jpg:hair,talk.mp4'], "cannot be read (unexpected end of data)"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_whole(read, lines, reason):
    with pytest.raises(InputError) as caught:
        read(*lines)
    assert reason in str(caught.value) and "jobs.csv: " in str(caught.value)


def test_a_file_that_is_no_table_is_refused(read, tmp_path):
    with pytest.raises(InputError, match=r"nothing\.csv: no such file"):
        job_table.read(tmp_path / "nothing.csv", DEFAULTS)
    with pytest.raises(InputError, match=r"cannot be read as text .*: give a CSV file in UTF-8"):
        read(HEADER, "m\x81.jpg,,b", encoding="latin-1")
    with pytest.raises(InputError, match="cannot be read"):
        job_table.read(tmp_path, DEFAULTS)


def test_a_tilde_in_a_cell_is_the_home_folder_and_a_link_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    table = tmp_path / "jobs.csv"
    table.write_text(
        "portrait,attributes,driving,portrait_mask\n"
        "~/a.png,~/b.png:hair:~/m.png,~/c.mp4,~/p.png\n"
        "a.png,b.png:hair,https://example.com/talk.mp4,\n"
        "a.png,https://example.com/b.png:hair,c.mp4,\n"
    )
    home, *links = job_table.read(table, Job("", [], ""))
    assert {str(path) for path in home.job.files} == {
        f"/home/me/{name}" for name in ("a.png", "b.png", "m.png", "c.mp4", "p.png")
    }
    for row, link in zip(links, ("https://example.com/talk.mp4", "https://example.com/b.png")):
        assert f"{link}: a link is not read: download it first" in str(row.error)
