"""A folder on disk or in an object store, one interface: `gs://`, `s3://`, whatever fsspec knows.

Files appear whole or not at all: on disk they are written beside and renamed, in an object store
the upload does it. Libraries that need a file on disk (PyAV, ArrayRecord) get a temporary copy.
"""

import contextlib
import dataclasses
import functools
import os
import posixpath
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem

from input_pipeline.errors import InputError
from input_pipeline.media.files import written_beside

# What stores tell about a file's content, the surest first.
_VERSIONS = ("etag", "ETag", "generation", "mtime", "LastModified", "last_modified", "created")


@dataclasses.dataclass(frozen=True)
class Store:
    """A folder. Names are paths relative to it, with forward slashes. Cheap to pickle."""

    root: str

    @classmethod
    def at(cls, path: str | Path) -> "Store":
        """Raises InputError: a scheme that is unknown or whose package is not installed."""
        text = str(path)
        try:
            fs, inside = fsspec.core.url_to_fs(text)
        except ImportError as error:
            raise InputError(f"{text}: {error}: pip install 'durian_jax[stores]'") from None
        except ValueError as error:
            raise InputError(f"{text}: {error}: use gs://, s3:// or a local folder") from None
        return cls(inside if isinstance(fs, LocalFileSystem) else text.rstrip("/"))

    @functools.cached_property
    def _fs(self) -> fsspec.AbstractFileSystem:
        return fsspec.core.url_to_fs(self.root)[0]

    @property
    def is_local(self) -> bool:
        return "://" not in self.root

    def __str__(self) -> str:
        return self.root

    def url(self, name: str = "") -> str:
        """The whole path of a file, for messages and for other libraries."""
        return posixpath.join(self.root, name) if name else self.root

    def exists(self, name: str = "") -> bool:
        return self._fs.exists(self.url(name))

    def files(self, folder: str = "") -> dict[str, str]:
        """All files below a folder, sorted, each with a text that changes with its content."""
        base = self._fs._strip_protocol(self.url(folder))
        found = self._walk(base) if self.is_local else self._fs.find(base, detail=True)
        return {
            posixpath.relpath(path, base): f"{info['size']} {_version(info)}"
            for path, info in sorted(found.items())
        }

    def _walk(self, base: str) -> dict[str, dict]:
        """Facts of the files below a folder of this machine, through links, each folder once."""
        found, seen = {}, set()
        for folder, folders, names in os.walk(base, followlinks=True):
            real = os.path.realpath(folder)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            for path in (posixpath.join(folder, name) for name in names):
                # Of a link the file behind it counts; of one that leads nowhere the link.
                facts = os.stat(path) if os.path.exists(path) else os.lstat(path)
                found[path] = {"size": facts.st_size, "mtime": facts.st_mtime}
        return found

    def list(self, folder: str = "") -> list[str]:
        """Names of the files right in a folder, sorted."""
        found = self._fs.ls(self.url(folder), detail=True) if self.exists(folder) else []
        return sorted(posixpath.basename(f["name"]) for f in found if f["type"] == "file")

    def read(self, name: str) -> bytes:
        return self._fs.cat_file(self.url(name))

    def write(self, name: str, data: bytes) -> None:
        with self.writing(name) as path:
            path.write_bytes(data)

    def make(self, folder: str = "") -> None:
        """Makes a folder where the store has such things. InputError: not writable."""
        probe = posixpath.join(folder, f".{uuid.uuid4().hex}")
        try:
            self.write(probe, b"")
            self.remove([probe])
        except (OSError, ValueError) as error:
            reason = getattr(error.__cause__ or error, "strerror", None) or error
            raise InputError(
                f"{self.url()}: cannot be written ({reason}); choose a writable folder"
            ) from None

    def move(self, name: str, target: str) -> None:
        """Renames a file; one that is there already is replaced."""
        if self.is_local:
            os.replace(self.url(name), self.url(target))
        else:
            self._fs.mv(self.url(name), self.url(target))

    def remove(self, names: Iterable[str]) -> None:
        """Removes files; those that are not there are fine."""
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                self._fs.rm_file(self.url(name))

    def remove_folder(self, folder: str) -> None:
        if self.exists(folder):
            self._fs.rm(self.url(folder), recursive=True)

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[Path]:
        """The folder on disk below which the file lies under its own name: this one or a copy."""
        if self.is_local:
            yield Path(self.root)
            return
        with tempfile.TemporaryDirectory(prefix="durian-") as folder:
            copy = Path(folder) / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            self._fs.get_file(self.url(name), str(copy))
            yield Path(folder)

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """A path on disk to write to; becomes the file if all goes well, else goes away."""
        if self.is_local:
            # Two workers may be given one task.
            with written_beside(Path(self.url(name)), shared=True) as beside:
                yield beside
            return
        with tempfile.TemporaryDirectory(prefix="durian-") as folder:
            path = Path(folder) / posixpath.basename(name)
            yield path
            self._fs.put_file(str(path), self.url(name))


def _version(info: dict) -> str:
    return next((str(info[key]) for key in _VERSIONS if info.get(key) is not None), "")
