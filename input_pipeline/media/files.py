"""Files and folders that appear whole or not at all, and paths as people write them."""

import contextlib
import fnmatch
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from input_pipeline.errors import InputError, WriteError

_GATHERED = ".tmp"  # suffix of folders whose files appear together


def local(text: str | Path) -> Path:
    """A path with `~` expanded. InputError: a link, which names no file on this machine."""
    if "://" in str(text):
        raise InputError(f"{text}: a link is not read: download it first and give the file")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise InputError(f"{text}: no such home folder; write the whole path") from None


def as_url(path: Path) -> str:
    """For FFmpeg, to which `take:1.mp4` would name a protocol."""
    return f"file:{path}"


def check_file(path: Path) -> None:
    """Raises InputError if there is no file with something in it."""
    try:
        if path.is_dir():
            raise InputError(f"{path}: is a folder; give a file")
        if not path.is_file() and path.exists():  # reading one would wait, and only once
            raise InputError(f"{path}: a pipe or device; save it as a file and give that")
        size = path.stat().st_size
        with path.open("rb"):
            pass
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    if size == 0:
        raise InputError(f"{path}: 0 bytes; copy or export it again")


def check_output(path: str | Path, *suffixes: str) -> None:
    """Makes the folder of an output. InputError: another suffix, or a file cannot be made there."""
    path = local(path)
    if path.suffix.lower() not in suffixes:
        choice = " or ".join(f"*{suffix}" for suffix in suffixes)
        raise InputError(f"{path}: ends in '{path.suffix}'; name the output {choice}")
    with _refused(path):
        if path.is_dir():
            raise IsADirectoryError(None, "is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # a name that is too long is told here
            _beside(path).lstat()
        with tempfile.TemporaryFile(dir=path.parent):
            pass


class Inputs:
    """Files that no output may replace, known by whatever name."""

    def __init__(self, paths: Iterable[Path] = ()):
        self._known = {key: path for path in paths for key in _identities(path)}

    def check_apart(self, outputs: Iterable[Path]) -> None:
        """InputError: an output is one of the files and would replace it."""
        for output in outputs:
            for key in _identities(output) & self._known.keys():
                raise InputError(
                    f"{output}: would replace the input {self._known[key]}: write to another name "
                    "or folder"
                )


@contextlib.contextmanager
def written_beside(path: Path, shared: bool = False) -> Iterator[Path]:
    """A path to write to, in the same folder; becomes `path` if all goes well, else goes away.

    shared: another process may write the same file now; neither may see the other's half of it.
    Otherwise the name is always the same, so that nothing remains after a killed one's rerun.

    WriteError: not writable, at once; or later: the disk is full, the folder vanished.
    """
    path = Path(path)
    beside = _beside(path, uuid.uuid4().hex[:8] if shared else "tmp")
    check_output(path, path.suffix.lower())
    try:
        with _refused(path):
            yield beside
            os.replace(beside, path)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


@contextlib.contextmanager
def folder_beside(
    path: str | Path, replaces: str | None = None, holds: tuple[str, ...] = ("*",)
) -> Iterator[Path]:
    """An empty folder to fill; becomes `path` if all goes well, else goes away.

    replaces: a full folder is replaced if it has a file of this name; None: never.
    holds: patterns of all other names that may go with it.

    InputError, at once: `path` has something in it that is not replaced. WriteError as in
    `written_beside`.
    """
    path = local(path)
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        if replaces is None:
            raise InputError(f"{path}: already there: name a new folder")
        if not (path / replaces).is_file():
            raise InputError(f"{path}: already there and has no {replaces}: name a new folder")
        for name in sorted(os.listdir(path)):
            if not any(fnmatch.fnmatch(name, pattern) for pattern in (replaces, *holds)):
                raise InputError(f"{path}: would lose {name}, which is in it: name a new folder")
    path = path.resolve()
    beside = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        with _refused(path):
            beside.mkdir(parents=True)
            yield beside
            shutil.rmtree(path, ignore_errors=True)
            os.replace(beside, path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


@contextlib.contextmanager
def gathered(path: Path, last: str) -> Iterator[Path]:
    """A folder to write `path` and its companions to; they appear beside each other or not at all.

    last: suffix of the one that says that all are there: an old one goes before, and it comes after
    the others. WriteError as in `written_beside`.
    """
    folder = path.with_name(f".{path.stem}{_GATHERED}")
    shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
    try:
        with _refused(path):
            folder.mkdir(parents=True)
            yield folder
            path.with_suffix(last).unlink(missing_ok=True)
            for file in sorted(folder.iterdir(), key=lambda file: file.suffix == last):
                os.replace(file, path.with_name(file.name))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _identities(path: Path) -> set:
    """Where the path leads, and which file is there, if any: it may have several places."""
    found = {os.path.realpath(path)}
    with contextlib.suppress(OSError):
        stat = path.stat()
        found.add((stat.st_dev, stat.st_ino))
    return found


def _beside(path: Path, token: str = "tmp") -> Path:
    return path.with_name(f".{path.stem}.{token}{path.suffix}")


@contextlib.contextmanager
def _refused(path: Path) -> Iterator[None]:
    """The system's refusal to write a file as a WriteError, naming the file by its last place."""
    try:
        yield
    except OSError as error:
        folder = path.parent
        if folder.name.startswith(".") and folder.suffix == _GATHERED:
            path = folder.with_name(path.name)
        raise WriteError(
            f"{path}: cannot be written ({error.strerror or error}); choose a writable place "
            "with room"
        ) from error
