"""Weights that packages on the index carry.

Only the file is read, and only if it is the one that was tried, to the last bit; the package itself
is never imported, so its age and what it imports do not matter. Install: `durian_jax[eval]`.
"""

import dataclasses
import hashlib
import importlib.metadata
from pathlib import Path

from input_pipeline.errors import InputError


@dataclasses.dataclass(frozen=True)
class PackagedFile:
    """A file in an installed package.

    package: its name on the index. version: the one that was tried. path: of the file, from the
    folder that packages are installed in.
    """

    package: str
    version: str
    path: str
    sha256: str

    def find(self) -> Path:
        """Where the file is. Raises InputError: not installed, or another file under its name."""
        try:
            path = Path(importlib.metadata.distribution(self.package).locate_file(self.path))
            found = hashlib.sha256(path.read_bytes()).hexdigest()
        except importlib.metadata.PackageNotFoundError:
            raise InputError(
                f"{self.package} is not installed: pip install 'durian_jax[eval]'"
            ) from None
        except OSError as error:
            found = error.strerror
        if found != self.sha256:
            raise InputError(
                f"{self.package}: {self.path} is not the file of version {self.version} (sha256 "
                f"{found}): pip install --force-reinstall {self.package}=={self.version}"
            )
        return path
