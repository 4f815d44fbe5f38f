"""Labels: which attributes each clip shows, and whom, and what it is for; from a CSV file."""

import hashlib
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from input_pipeline.errors import InputError
from input_pipeline.kinds import KINDS
from input_pipeline.media import booleans, tables

SPLITS = ("train", "val", "test")
_OPTIONAL = (*KINDS, "identity", "split")


@dataclass(frozen=True)
class Label:
    """Attribute kinds that a clip shows, who it shows, and the split it was put in, or ""."""

    present: frozenset[str]
    identity: str
    split: str = ""


def read(path: str | Path | None, root: str, clips: list[str]) -> tuple[dict[str, Label], list]:
    """One label for each clip, and remarks on rows, columns and clips that found no partner.

    The table, see `tables.read`, needs the column `file`; `hair`, `glasses`, `beard`, `hat`,
    `identity` and `split` are used, others are not. Cells that say no, see `booleans.parse`, and
    empty ones mean absent; what says neither yes nor no ("balding", "tied back") means present,
    unless, of other kinds than hair, it could be yes and no in words that are not known.

    A row belongs to the clip with which its `file` shares the file name and the most folders above
    it. Where there is no table, no row or no column, hair is taken as present, the other kinds as
    absent, and the clip's name as identity.

    Args:
      root: folder of the clips. clips: their paths relative to it.

    Raises:
      InputError: unreadable table, no column `file`, a cell that may mean yes or no, more cells
        than columns, an unknown split, a row that fits two clips equally well, or two rows that say
        different things about one clip.
    """
    find = _finder(root, clips)
    chosen, unused, described, said, notes = {}, [], [], {}, []
    rows = []
    if path is not None:
        table = tables.read(path, ("file",), _OPTIONAL)
        rows, notes = table.rows, table.notes + _unused_columns(path, table)
        for line, count in table.surplus.items():
            raise InputError(
                f"{path}: line {line}: {count} cells too many: quote cells that hold a separator"
            )
    for line, row in rows:
        where = f"{path}: line {line}"
        clip = find(row["file"], where)
        if clip is None:
            unused.append(row["file"])
            continue
        identity, split = (row.get(name, "") for name in ("identity", "split"))
        identity, split = ("" if x.lower() in tables.MISSING else x for x in (identity, split))
        if split and split.lower() not in SPLITS:
            raise InputError(f"{where}: split '{split}' must be one of {', '.join(SPLITS)}")
        present = _present(row, where, described, said)
        label = Label(present, identity or _name(clip), split.lower())
        if chosen.setdefault(clip, label) != label:
            raise InputError(f"{where}: {clip} was labelled otherwise in an earlier line; keep one")
    # Of hair everybody may have some, and "long" and "short" are all that there is to say.
    doubtful = [cell for cell in described if cell[1] != "hair"]
    if doubtful and len(said) <= 2 and False not in said.values():
        where, kind, cell = doubtful[0]
        raise InputError(
            f"{where}: {kind} {cell!r} may mean yes or no, as nothing in the table says no in a "
            "known word: write yes or no"
        )
    if described:
        shown = ", ".join(f"{kind} {cell!r}" for _, kind, cell in described[:5])
        notes.append(
            f"{path}: {len(described)} cells say neither yes nor no and are taken as present: "
            f"{shown}{', ...' if len(described) > 5 else ''}"
        )
    if unused:
        notes.append(f"{path}: {len(unused)} rows name no clip, the first is {unused[0]}")
    missing = [clip for clip in clips if clip not in chosen]
    if missing and path is not None:
        notes.append(
            f"{path}: {len(missing)} clips have no row and are taken to show hair only, the first "
            f"is {missing[0]}"
        )
    labels = chosen | {clip: Label(frozenset({"hair"}), _name(clip)) for clip in missing}
    if not any(label.present for label in labels.values()):
        notes.append(
            f"{path}: no clip shows {', '.join(KINDS)}: a model trained on them learns to animate, "
            "but no attribute"
        )
    return labels, notes


def _unused_columns(path: str | Path, table: tables.Table) -> list[str]:
    unused = [name for name in table.columns if name not in ("file", *_OPTIONAL)]
    missing = [name for name in _OPTIONAL if name not in table.columns]
    shown = ", ".join(name + tables.resembling(name, missing) for name in unused)
    return [f"{path}: columns that are not used: {shown}"] if unused else []


def _present(
    row: dict[str, str],
    where: str,
    described: list[tuple[str, str, str]],
    said: dict[str, bool | None],
) -> frozenset[str]:
    """Kinds that a row says are there. Added are (where, kind, cell) of those that are described,
    and what each word says."""
    present = set()
    for kind in KINDS:
        cell = row.get(kind, "yes" if kind == "hair" else "no")
        try:
            says = booleans.parse(cell)
        except ValueError:
            raise InputError(
                f"{where}: {kind} {cell!r} may mean yes or no: write yes or no"
            ) from None
        if kind in row:
            said[cell.casefold()] = says
        if says is None:
            described.append((where, kind, cell))
        if says is not False:
            present.add(kind)
    return frozenset(present)


def _finder(root: str, clips: list[str]) -> Callable[[str, str], str | None]:
    """A function from a row's `file`, and where that stands, to the clip it means."""
    above = Path(root).parts
    by_name = {}
    for clip in clips:
        by_name.setdefault(Path(_composed(clip)).name, []).append(clip)

    def find(file: str, where: str) -> str | None:
        named = Path(_composed(file.replace("\\", "/"))).parts

        def shared(clip: str) -> int:
            """Parts in common, from the file name upwards."""
            parts = (*above, *Path(_composed(clip)).parts)
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
        raise InputError(
            f"{holdout}: must be at least 0 and below 1, such as 0.05", option="holdout"
        )
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


def _composed(name: str) -> str:
    """A letter and its accent as one character: file systems differ in that."""
    return unicodedata.normalize("NFC", name)


def _name(clip: str) -> str:
    return Path(clip).with_suffix("").as_posix()
