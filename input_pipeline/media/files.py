"""Files and folders that appear whole or not at all."""

import contextlib
import os
import shutil
import tempfile
import uuid
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
        ) from error


@contextlib.contextmanager
def written_beside(path: Path, shared: bool = False) -> Iterator[Path]:
    """A path to write to, in the same folder; becomes `path` if all goes well, else goes away.

    shared: another process may write the same file now; neither may see the other's half of it.
    Otherwise the name is always the same, so that nothing is left over after a killed one's rerun.

    InputError, at once: not writable.
    """
    token = uuid.uuid4().hex[:8] if shared else "tmp"
    beside = path.with_name(f".{path.stem}.{token}{path.suffix}")
    check_output(path, path.suffix)
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


@contextlib.contextmanager
def folder_beside(path: str | Path, replaces: str | None = None) -> Iterator[Path]:
    """An empty folder to fill; becomes `path` if all goes well, else goes away.

    replaces: a full folder is replaced if it has a file of this name; None: never.

    InputError, at once: `path` has something in it that is not replaced, or is not writable.
    """
    path = Path(path)
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        if replaces is None:
            raise InputError(f"{path}: already there: name a new folder")
        if not (path / replaces).is_file():
            raise InputError(f"{path}: already there and has no {replaces}: name a new folder")
    path = path.resolve()
    beside = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir(parents=True)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); choose a writable place"
        ) from error
    try:
        yield beside
        shutil.rmtree(path, ignore_errors=True)
        os.replace(beside, path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
