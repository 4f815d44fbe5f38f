"""Tables: CSV files as people, pandas and spreadsheets write them."""

import csv
import difflib
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import fsspec

from input_pipeline.errors import InputError
from input_pipeline.media.contents import describe

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
# Byte order marks; those of UTF-32 begin like those of UTF-16.
_MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe\0\0", "utf-32"), (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"),
)  # fmt: skip
_SEPARATOR_LINE = re.compile(r'"?sep *= *(.)"?[,;\t|]*', re.IGNORECASE)
# What marks a missing value.
MISSING = frozenset(
    {"", "nan", "n/a", "na", "#n/a", "<na>", "null", "none", "nat", "-", "--", "–", "—"}
)


@dataclass(frozen=True)
class Table:
    """A table with a line of column names.

    Attributes:
      columns: their names, lower case, with _ for spaces; without those that have none.
      rows: line number in the file and cells by column, stripped. Rows without any text are left
        out.
      surplus: line number -> cells that have no column.
      separator: between cells.
      notes: what a user should know of how it was read.
    """

    columns: list[str]
    rows: list[tuple[int, dict[str, str]]]
    surplus: dict[int, int]
    separator: str
    notes: list[str]


def read(path: str | Path, required: Iterable[str], optional: Iterable[str]) -> Table:
    """Reads a table of any separator and encoding that can be told.

    Separators: the one of , ; tab | that finds the most of the columns asked for, or that of a
    first line `sep=;`. Encodings: by the byte order mark; else UTF-8, UTF-16 by its zero bytes, or
    Windows-1252, with a note. Columns without a name are left out: pandas writes its index so.

    Args:
      path: a file, or a URL as fsspec takes it.
      required, optional: names of columns; all required ones will be there.

    Raises:
      InputError: no such file, no table, a required column missing, or one of those asked for
        there twice.
    """
    required, known = tuple(required), {*required, *optional}
    text, notes = _decode(path, _read_bytes(path))
    lines, given, skipped = text.splitlines(), None, 0
    if lines and (found := _SEPARATOR_LINE.fullmatch(lines[0].strip(" "))):
        given, skipped = found[1], 1
        text = text[len(lines[0]) :].removeprefix("\r").removeprefix("\n")
    head = next((line for line in lines[skipped:] if line.strip(' ,;\t|"')), "")
    separator = given or max(
        _SEPARATORS, key=lambda separator: len(known & set(_names(head, separator)))
    )
    try:
        reader = csv.reader(
            io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=True
        )
        found = [(reader.line_num + skipped, [cell.strip() for cell in row]) for row in reader]
    except csv.Error as error:
        raise InputError(
            f"{path}: cannot be read ({error}) near line {reader.line_num + skipped}: look for a "
            "quote that is not closed"
        ) from None
    found = [(line, cells) for line, cells in found if any(cells)]
    names = [_name(cell) for cell in found[0][1]] if found else []
    _check(path, names, required, known, separator)
    for i in range(len(names)):
        if not names[i] and any(
            "".join(cells[i : i + 1]).strip("0123456789") for _, cells in found[1:]
        ):
            notes.append(f"{path}: column {i + 1} has no name and is not used")
    rows, surplus = [], {}
    for line, cells in found[1:]:
        cells += [""] * (len(names) - len(cells))
        rows.append((line, {name: cell for name, cell in zip(names, cells) if name}))
        if extra := sum(bool(cell) for cell in cells[len(names) :]):
            surplus[line] = extra
    return Table([name for name in names if name], rows, surplus, separator, notes)


def resembling(name: str, known: Iterable[str]) -> str:
    """ " (beard?)" for the name that a misspelt one may stand for, else ""."""
    close = difflib.get_close_matches(name, list(known), 1, 0.6)
    return f" ({close[0]}?)" if close else ""


def _read_bytes(path: str | Path) -> bytes:
    try:
        if Path(path).is_file():
            return Path(path).read_bytes()
        with fsspec.open(str(path), "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    # fsspec: an unknown protocol, or its package is not installed.
    except (OSError, ValueError, ImportError) as error:
        raise InputError(f"{path}: cannot be read ({error}): give a CSV file") from None


def _decode(path: str | Path, data: bytes) -> tuple[str, list[str]]:
    """The text, and a note if its encoding was a guess."""
    if what := describe(data[:512]):
        raise InputError(f"{path}: {what}; a table must be CSV: export it as CSV UTF-8")
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), None)
    odd, even = data[1::2].count(0), data[::2].count(0)
    if encoding is None and max(odd, even) > len(data) / 4:
        # In UTF-16, letters of ASCII have a zero in every other byte.
        encoding = "utf-16-le" if odd > even else "utf-16-be"
    for name in (encoding,) if encoding else ("utf-8", "cp1252"):
        try:
            text = data.decode(name)
        except UnicodeDecodeError:
            continue
        if name != "cp1252":
            return text, []
        if "\0" not in text:
            note = "not UTF-8; read as Windows-1252, as Excel saves it in Western Europe"
            return text, [f"{path}: {note}"]
    raise InputError(
        f"{path}: cannot be read as text (no UTF-8, UTF-16 or Windows-1252): give a CSV file in "
        "UTF-8"
    )


def _names(head: str, separator: str) -> list[str]:
    return [_name(cell) for cell in head.split(separator)]


def _name(cell: str) -> str:
    """A column's name; "" for pandas' name of one that has none."""
    name = re.sub(r"[\s-]+", "_", cell.strip().strip('"').strip().lower())
    return "" if re.fullmatch(r"unnamed:?_?\d+(_level_\d+)?", name) else name


def _check(
    path: str | Path, names: list[str], required: tuple[str, ...], known: set[str], separator: str
) -> None:
    for name in required:
        if name not in names:
            shown = ", ".join(repr(x) + resembling(x, {name}) for x in names[:10] if x) or "nothing"
            raise InputError(
                f"{path}: no column {name!r}: name the columns in the first line; by "
                f"{_SEPARATORS.get(separator, repr(separator))} it reads {shown}"
            )
    for name in names:
        if name in known and names.count(name) > 1:
            raise InputError(f"{path}: column {name!r} is there twice: keep one")
