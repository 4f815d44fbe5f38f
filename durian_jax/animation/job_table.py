"""The table of a batch: a CSV file, a video for each row. A bad row spoils no other."""

import os
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from durian_jax.animation.job import Job, parse_alphas, parse_attribute
from input_pipeline.errors import InputError, in_one_line
from input_pipeline.media import booleans, files, tables
from input_pipeline.motion.driver import ALIGNMENTS

REQUIRED = ("portrait", "attributes", "driving")
OPTIONAL = (
    "name", "seed", "portrait_mask", "towards", "alpha", "motion", "smooth", "frames", "framed",
    "align", "best_frame", "references",
)  # fmt: skip
_LONGEST_NAME = 200


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
    """The rows of a table, see `tables.read`, in their order, at least one; prints its notes.

    The first line names the columns: those of REQUIRED and any of OPTIONAL, in any order.
    `attributes` are IMAGE:KIND or IMAGE:KIND:MASK, joined by ";"; `towards` likewise, what they
    become at alpha = 1. `references` are photos, joined by ";". `alpha` is a number, or several
    joined by ";" for one that changes over the clip. `framed` is yes or no, see `booleans.parse`.
    Paths are relative to the folder of the file; backslashes in them may stand for slashes. A cell
    left empty, or marked as missing (nan, N/A), is as if there were no such column. A name may end
    in the suffix of the output. Rows without a name are job-0001 and so on, by their number.

    Args:
      defaults: a job that gives what the rows leave open.

    Raises:
      InputError: no such file, no table, no rows, or columns that are missing, unknown or there
        twice.
    """
    path = Path(path)
    table = tables.read(path, REQUIRED, OPTIONAL)
    known = (*REQUIRED, *OPTIONAL)
    for column in table.columns:
        if column not in known:
            raise InputError(
                f"{path}: unknown column {column!r}{tables.resembling(column, known)}: choose from "
                f"{', '.join(known)}"
            )
    if not table.rows:
        raise InputError(f"{path}: 0 jobs; write one on each line below the names of the columns")
    for note in table.notes:
        print(f"note: {note}")
    rows, taken = [], set()
    for number, (line, cells) in enumerate(table.rows, 1):
        name, job, given = f"job-{number:04d}", None, cells.get("name", "")
        if given and given.isprintable():
            name = given
        try:
            if line in table.surplus:
                raise InputError(
                    f"{table.surplus[line]} cells too many: quote cells that hold a "
                    f"{'comma' if table.separator == ',' else repr(table.separator)}"
                )
            job = _job(cells, path.parent, defaults, table.separator)
            name = _without_suffix(name, job)
            _take(name, taken)
            rows.append(Row(name, job))
        # A row may hold anything, and may not spoil the others.
        except Exception as error:
            rows.append(Row(name, error=InputError(f"line {line}: {in_one_line(error)}")))
    return rows


def _without_suffix(name: str, job: Job) -> str:
    """The name of an output without its suffix, where that is the one it will get."""
    suffix = job.motion_options.suffix(job.driving)
    return name[: -len(suffix)] if name.lower().endswith(suffix) and name != suffix else name


def _take(name: str, taken: set[str]) -> None:
    """Adds the names of a row's files. InputError: they cannot be, or another row has them."""
    if set(name) & set("/\\:") or name.startswith(".") or len(name.encode()) > _LONGEST_NAME:
        raise InputError(
            f"name {name!r}: must be that of a file: no folder, no leading dot, at most "
            f"{_LONGEST_NAME} bytes"
        )
    written = {name.casefold(), f"{name}_grid".casefold()}
    if written & taken:
        raise InputError(f"name {name!r}: an earlier row writes such a file: choose another")
    taken |= written


def _job(cells: dict[str, str], folder: Path, defaults: Job, separator: str) -> Job:
    given = {
        name: text
        for name, text in cells.items()
        if text and (name == "name" or text.lower() not in tables.MISSING - _SAID.get(name, set()))
    }
    for name, text in given.items():
        if not text.isprintable():
            raise InputError(f"{name} {text!r}: cannot be; look for a quote that is not closed")
    for name in ("portrait", "driving"):
        if name not in given:
            raise InputError(f"{name} is empty: give a file")
    fields = {
        name: _path(given[name], folder)
        for name in ("portrait", "driving", "portrait_mask")
        if name in given
    }
    for name in ("attributes", "towards"):
        if name in given:
            fields[name] = [
                tuple(part if i == 1 else _path(str(part), folder) for i, part in enumerate(one))
                for one in _parsed(name, given[name], _attributes)
            ]
    if "references" in given:
        photos = given["references"].split(";")
        fields["references"] = [_path(one.strip(), folder) for one in photos if one.strip()]
    if "alpha" in given:
        text = given["alpha"]
        if separator != "," or ";" in text:
            # Spreadsheets that separate by semicolons write 0,5.
            text = text.replace(",", ".")
        fields["alpha"] = _parsed("alpha", text.replace(";", ","), parse_alphas)
    if "seed" in given:
        fields["seed"] = _parsed("seed", given["seed"], _whole)
    if "framed" in given:
        fields["framed"] = _yes_or_no("framed", given["framed"])
    motion_options = {
        name: _parsed(name, given[name], kind)
        for name, kind in _MOTION_OPTIONS.items()
        if name in given
    }
    return replace(
        defaults, **fields, motion_options=replace(defaults.motion_options, **motion_options)
    )


def _path(text: str, folder: Path) -> Path:
    """A path as it is written, as Windows writes it, or with its accents in the other Unicode form,
    whichever is there. InputError: a link."""
    slashed = text.replace("\\", "/")
    others = [unicodedata.normalize(form, x) for form in ("NFC", "NFD") for x in (text, slashed)]
    paths = [folder / files.local(spelling) for spelling in (text, *others, slashed)]
    return next(filter(os.path.exists, paths), paths[-1])


def _parsed(name: str, text: str, parse: Callable):
    try:
        return parse(text)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    except ValueError:
        kind = "whole number" if parse is _whole else "number"
        raise InputError(f"{name} {text!r}: write a {kind}") from None


def _yes_or_no(name: str, text: str) -> bool:
    try:
        said = booleans.parse(text)
    except ValueError:
        said = None
    if said is None:
        raise InputError(f"{name} {text!r}: write yes or no")
    return said


def _number(text: str) -> float:
    return float(text.replace(",", "."))


def _whole(text: str) -> int:
    """pandas writes whole numbers as 3.0 where a column has empty cells."""
    try:
        return int(text)
    except ValueError:
        if not _number(text).is_integer():
            raise
        return int(_number(text))


# Columns of `MotionOptions`.
_MOTION_OPTIONS = {
    "motion": str, "smooth": _number, "frames": _whole, "align": str.lower, "best_frame": _whole,
}  # fmt: skip
# What looks as if it were missing, but is a value of the column.
_SAID = {"align": set(ALIGNMENTS)}


def _attributes(text: str) -> list[tuple]:
    return [parse_attribute(part.strip()) for part in text.split(";") if part.strip()]
