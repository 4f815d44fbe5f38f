"""The table of a batch: a CSV file, a video for each row. A bad row spoils no other."""

import csv
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from durian_jax.animation.job import Job, parse_alphas, parse_attribute
from input_pipeline.errors import InputError

REQUIRED = ("portrait", "attributes", "driving")
OPTIONAL = (
    "name", "seed", "portrait_mask", "towards", "alpha", "motion", "smooth", "frames", "framed"
)  # fmt: skip
_LONGEST_NAME = 200
_TRUTH = {"no": False, "false": False, "0": False, "yes": True, "true": True, "1": True}


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
      name: of the outputs, without folder and suffix.
      job: what the row asks for; None with an error.
      error: why it cannot be used, as far as its text tells.
    """

    name: str
    job: Job | None = None
    error: InputError | None = None


def read(path: str | Path, defaults: Job) -> list[Row]:
    """The rows of a CSV file, in their order; at least one.

    The first line names the columns: those of REQUIRED and any of OPTIONAL, in any order.
    `attributes` are IMAGE:KIND or IMAGE:KIND:MASK, joined by ";"; `towards` likewise, what they
    become at alpha = 1. `alpha` is a number, or several joined by ";" for one that changes over the
    clip. `framed` is yes or no. Paths are relative to the folder of the file. A cell left empty is
    as if there were no such column. Rows without a name are job-0001 and so on, by their number.

    Args:
      defaults: a job that gives what the rows leave open.

    Raises:
      InputError: no such file, no CSV in UTF-8, no rows, or columns that are missing, unknown or
        there twice.
    """
    path = Path(path)
    rows, taken = [], set()
    for number, (line, cells) in enumerate(_read_cells(path), 1):
        name, given = f"job-{number:04d}", cells.get("name")
        if given and given.isprintable():
            name = given
        try:
            job = _job(cells, path.parent, defaults)
            _take(name, taken)
            rows.append(Row(name, job))
        except InputError as error:
            rows.append(Row(name, error=InputError(f"line {line}: {error}")))
    return rows


def _read_cells(path: Path) -> list[tuple[int, dict]]:
    """Line number and cells by column of each row; under None those that have no column."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restval="", strict=True)
            _check_columns(path, [name.strip() for name in reader.fieldnames or ()])
            reader.fieldnames = [name.strip() for name in reader.fieldnames]
            rows = [(reader.line_num, row) for row in reader]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read ({error}): give a CSV file in UTF-8") from None
    if not rows:
        raise InputError(f"{path}: 0 jobs; write one on each line below the names of the columns")
    return [
        (line, {name: x.strip() if name else x for name, x in row.items()}) for line, row in rows
    ]


def _check_columns(path: Path, columns: list[str]) -> None:
    known = ", ".join((*REQUIRED, *OPTIONAL))
    for name in REQUIRED:
        if name not in columns:
            raise InputError(
                f"{path}: no column {name!r}: name the columns in the first line, with commas"
            )
    for name in columns:
        if name not in REQUIRED + OPTIONAL:
            raise InputError(f"{path}: unknown column {name!r}: choose from {known}")
        if columns.count(name) > 1:
            raise InputError(f"{path}: column {name!r} is there twice: keep one")


def _take(name: str, taken: set[str]) -> None:
    """Adds the names of a row's files. InputError: they cannot be, or another row has them."""
    if set(name) & set("/\\:") or name.startswith(".") or len(name.encode()) > _LONGEST_NAME:
        raise InputError(
            f"name {name!r}: must be that of a file: no folder, no leading dot, at most "
            f"{_LONGEST_NAME} bytes"
        )
    files = {name.casefold(), f"{name}_grid".casefold()}
    if files & taken:
        raise InputError(f"name {name!r}: an earlier row writes such a file: choose another")
    taken |= files


def _job(cells: dict, folder: Path, defaults: Job) -> Job:
    if None in cells:
        raise InputError(f"{len(cells[None])} cells too many: quote cells that hold a comma")
    given = {name: text for name, text in cells.items() if text}
    for name, text in given.items():
        if not text.isprintable():
            raise InputError(f"{name} {text!r}: cannot be; look for a quote that is not closed")
    for name in ("portrait", "driving"):
        if name not in given:
            raise InputError(f"{name} is empty: give a file")
    fields = {
        name: folder / given[name]
        for name in ("portrait", "driving", "portrait_mask")
        if name in given
    }
    for name in ("attributes", "towards"):
        if name in given:
            fields[name] = [
                tuple(part if i == 1 else folder / part for i, part in enumerate(attribute))
                for attribute in _parsed(name, given[name], _attributes)
            ]
    if "alpha" in given:
        fields["alpha"] = _parsed("alpha", given["alpha"].replace(";", ","), parse_alphas)
    if "seed" in given:
        fields["seed"] = _parsed("seed", given["seed"], int)
    if "framed" in given:
        if given["framed"].lower() not in _TRUTH:
            raise InputError(f"framed {given['framed']!r}: write yes or no")
        fields["framed"] = _TRUTH[given["framed"].lower()]
    following = {
        name: _parsed(name, given[name], kind)
        for name, kind in (("motion", str), ("smooth", float), ("frames", int))
        if name in given
    }
    return replace(defaults, **fields, following=replace(defaults.following, **following))


def _parsed(name: str, text: str, parse: Callable):
    try:
        return parse(text)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    except ValueError:
        kind = "whole number" if parse is int else "number"
        raise InputError(f"{name} {text!r}: write a {kind}") from None


def _attributes(text: str) -> list[tuple]:
    return [parse_attribute(part.strip()) for part in text.split(";") if part.strip()]
