"""Labels: which attributes each clip shows, and whom, and what it is for; from a CSV file."""

import csv
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import fsspec

from input_pipeline.errors import InputError
from input_pipeline.kinds import KINDS

SPLITS = ("train", "val", "test")
_ABSENT = frozenset({"", "no", "0", "false", "none"})


@dataclass(frozen=True)
class Label:
    """Attribute kinds that a clip shows, who it shows, and the split it was put in, or ""."""

    present: frozenset[str]
    identity: str
    split: str = ""


def read(path: str | Path | None, root: str, clips: list[str]) -> tuple[dict[str, Label], list]:
    """One label for each clip, and remarks on rows and clips that found no partner.

    The CSV needs the column `file`; `hair`, `glasses`, `beard`, `hat`, `identity` and `split` are
    used, others are not. no, 0, false, none and an empty cell mean absent, anything else ("yes",
    "balding", "tied back") present. A row belongs to the clip with which its `file` shares the
    file name and the most folders above it. Where there is no CSV, no row or no column, hair is
    taken as present, the other kinds as absent, and the clip's name as identity.

    Args:
      root: folder of the clips. clips: their paths relative to it.

    Raises:
      InputError: unreadable CSV, no column `file`, an unknown split, a row that fits two clips
        equally well, or two rows that say different things about one clip.
    """
    find = _finder(root, clips)
    chosen = {}
    unused = []
    for number, row in _rows(path) if path is not None else ():
        where = f"{path}: line {number}"
        clip = find(row["file"], where)
        if clip is None:
            unused.append(row["file"])
            continue
        identity, split = (row.get(name, "").strip() for name in ("identity", "split"))
        if split and split not in SPLITS:
            raise InputError(f"{where}: split '{split}' must be one of {', '.join(SPLITS)}")
        label = Label(_present(row), identity or _name(clip), split)
        if chosen.setdefault(clip, label) != label:
            raise InputError(f"{where}: {clip} was labelled otherwise in an earlier line; keep one")
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
        with fsspec.open(str(path), "r", encoding="utf-8-sig", newline="") as file:
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


def _finder(root: str, clips: list[str]) -> Callable[[str, str], str | None]:
    """A function from a row's `file`, and where that stands, to the clip it means."""
    above = Path(root).parts
    by_name = {}
    for clip in clips:
        by_name.setdefault(Path(clip).name, []).append(clip)

    def find(file: str, where: str) -> str | None:
        named = Path(file.strip().replace("\\", "/")).parts

        def shared(clip: str) -> int:
            """Parts in common, from the file name upwards."""
            parts = (*above, *Path(clip).parts)
            pairs = zip(reversed(named), reversed(parts))
            return next(
                (n for n, (a, b) in enumerate(pairs) if a != b), min(len(named), len(parts))
            )

        candidates = by_name.get(named[-1], []) if named else []
        best = max(map(shared, candidates), default=0)
        fitting = [clip for clip in candidates if shared(clip) == best]
        if len(fitting) > 1:
            raise InputError(
                f"{where}: '{file}' fits {fitting[0]} and {fitting[1]}; write more of its folders"
            )
        return fitting[0] if fitting else None

    return find


def assign_splits(labels: dict[str, Label], holdout: float) -> dict[str, str]:
    """The split of each clip, so that nobody is in two.

    Who has a row with a split is there with all clips; of the others a share of about `holdout`
    is for validation, chosen by a hash of the name: more clips move nobody.

    Raises:
      InputError: a share outside [0, 1), or somebody with rows in two splits.
    """
    if not 0 <= holdout < 1:
        raise InputError(f"--holdout {holdout}: must be at least 0 and below 1, such as 0.05")
    chosen = {}
    for clip, label in labels.items():
        if label.split and chosen.setdefault(label.identity, label.split) != label.split:
            raise InputError(
                f"{clip}: {label.identity} is in {label.split} here and in "
                f"{chosen[label.identity]} with another clip; put all clips of a person in one"
            )

    def drawn(identity: str) -> str:
        digest = hashlib.sha256(identity.encode()).digest()
        return "val" if int.from_bytes(digest[:8]) < holdout * 2**64 else "train"

    return {
        clip: chosen.get(label.identity) or drawn(label.identity) for clip, label in labels.items()
    }


def _name(clip: str) -> str:
    return Path(clip).with_suffix("").as_posix()
