"""Labels: which attributes each clip shows, and whom; from a CSV file."""

import csv
from dataclasses import dataclass
from pathlib import Path

from input_pipeline.errors import InputError
from input_pipeline.records import KINDS

_ABSENT = frozenset({"", "no", "0", "false", "none"})


@dataclass(frozen=True)
class Label:
    """Attribute kinds that a clip shows, and who it shows."""

    present: frozenset[str]
    identity: str


def read(path: str | Path | None, root: Path, clips: list[str]) -> tuple[dict[str, Label], list]:
    """One label for each clip, and remarks on rows and clips that found no partner.

    The CSV needs the column `file`; `hair`, `glasses`, `beard`, `hat` and `identity` are used,
    others are not. no, 0, false, none and an empty cell mean absent, anything else ("yes",
    "balding", "tied back") present. A row belongs to the clip with which its `file` shares the
    file name and the most folders above it. Where there is no CSV, no row or no column, hair is
    taken as present, the other kinds as absent, and the clip's name as identity.

    Args:
      root: folder of the clips. clips: their paths relative to it.

    Raises:
      InputError: unreadable CSV, no column `file`, a row that fits two clips equally well, or two
        rows that say different things about one clip.
    """
    chosen = {}
    unused = []
    for number, row in _rows(path) if path is not None else ():
        clip = _clip_of(row["file"], root, clips, f"{path}: line {number}")
        if clip is None:
            unused.append(row["file"])
            continue
        label = Label(_present(row), (row.get("identity") or "").strip() or _name(clip))
        if chosen.setdefault(clip, label) != label:
            raise InputError(
                f"{path}: line {number}: {clip} was labelled otherwise in an earlier line; keep one"
            )
    notes = []
    if unused:
        notes.append(f"{path}: {len(unused)} rows name no clip, the first is {unused[0]}")
    missing = [clip for clip in clips if clip not in chosen]
    if missing and path is not None:
        notes.append(
            f"{path}: {len(missing)} clips have no row and are taken to show hair only, the first "
            f"is {missing[0]}"
        )
    default = {clip: Label(frozenset({"hair"}), _name(clip)) for clip in missing}
    return chosen | default, notes


def _rows(path: str | Path) -> list[tuple[int, dict[str, str]]]:
    """Line number and cells of each row, by lower-case column name."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restkey="", restval="")
            columns = [name.strip().lower() for name in reader.fieldnames or ()]
            if "file" not in columns:
                raise InputError(f"{path}: no column 'file'; the first line must name the columns")
            reader.fieldnames = columns
            return [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: labels cannot be read ({error}); give a UTF-8 CSV") from None


def _present(row: dict[str, str]) -> frozenset[str]:
    cells = {kind: row.get(kind, "yes" if kind == "hair" else "no") for kind in KINDS}
    return frozenset(kind for kind, cell in cells.items() if cell.strip().lower() not in _ABSENT)


def _clip_of(file: str, root: Path, clips: list[str], where: str) -> str | None:
    named = Path(file.strip().replace("\\", "/")).parts

    def shared(clip: str) -> int:
        """Parts in common, from the file name upwards."""
        parts = (root / clip).resolve().parts
        pairs = zip(reversed(named), reversed(parts))
        return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(named), len(parts)))

    best = max(map(shared, clips), default=0)
    fitting = [clip for clip in clips if shared(clip) == best]
    if best == 0:
        return None
    if len(fitting) > 1:
        raise InputError(
            f"{where}: '{file}' fits {fitting[0]} and {fitting[1]}; write more of its folders"
        )
    return fitting[0]


def _name(clip: str) -> str:
    return Path(clip).with_suffix("").as_posix()
