"""Files that appear whole or not at all."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from input_pipeline.errors import InputError


def check_file(path: Path) -> None:
    """Raises InputError if there is no file with something in it."""
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give a file")
    if not path.exists():
        raise InputError(f"{path}: no such file; check the path")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: 0 bytes; copy or export it again")


def check_output(path: str | Path, suffix: str) -> None:
    """Makes the folder of an output. InputError: another suffix, or a file cannot be made there."""
    path = Path(path)
    if path.suffix.lower() != suffix.lower():
        raise InputError(f"{path}: ends in '{path.suffix}'; name the output *{suffix}")
    try:
        if path.is_dir():
            raise IsADirectoryError(None, "is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); choose a writable place"
        ) from None


@contextlib.contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """A path to write to, in the same folder; becomes `path` if all goes well, else goes away.

    InputError, at once: not writable.
    """
    beside = path.with_name(f".{path.stem}.tmp{path.suffix}")
    check_output(path, path.suffix)
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
