"""Who may open the page."""

import dataclasses
import hmac
import ipaddress
from collections.abc import Callable
from pathlib import Path

from input_pipeline.errors import InputError

_LOOPBACK = "127.0.0.1"
_SHORTEST_PASSWORD = 8


@dataclasses.dataclass(frozen=True)
class Access:
    """Where the page is served, and to whom.

    Attributes:
      port: of this machine, 1 to 65535.
      listen: address of this machine, 0.0.0.0 for all that it has; where others can open the page
        it needs a password.
      password: that the page asks for, at least 8 characters, with any user name.

    Raises:
      InputError: a value that cannot be, or an open door.
    """

    port: int = 7860
    listen: str = _LOOPBACK
    password: str | None = None

    def __post_init__(self):
        if not 0 < self.port < 65536:
            raise InputError(f"{self.port}: use 1 to 65535", option="port")
        if self.password is not None and len(self.password) < _SHORTEST_PASSWORD:
            raise InputError(
                f"has {len(self.password)} characters: use {_SHORTEST_PASSWORD} or more",
                option="password",
            )
        if not self.is_local and self.password is None:
            raise InputError(
                f"{self.listen}: others could use this machine: give a password, too",
                option="listen",
            )

    @property
    def is_local(self) -> bool:
        """Whether nobody but this machine can reach the page. InputError: no address."""
        if self.listen == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.listen).is_loopback
        except ValueError:
            raise InputError(
                f"{self.listen!r}: give an address such as 0.0.0.0", option="listen"
            ) from None

    @property
    def host(self) -> str:
        """The address as a browser is given it."""
        return f"[{self.listen}]" if ":" in self.listen else self.listen

    @property
    def hosts(self) -> list[str]:
        """Names that a browser may call the machine by. On loopback a page of somebody else's name
        that points here is none."""
        return [_LOOPBACK, "localhost", "[::1]", self.host] if self.is_local else ["*"]

    @property
    def admits(self) -> Callable[[str, str], bool] | None:
        """A function of user name and password; None lets everybody in."""
        if self.password is None:
            return None
        secret = self.password.encode()
        return lambda user, word: hmac.compare_digest(word.encode(), secret)


# What may be shown, by the file that says what a folder is.
_KINDS = {"report": "report.json", "cases": "cases.json", "dataset": "metadata.json"}


def kind_of(folder: str | Path) -> str:
    """What a folder is: report, cases or dataset. Raises InputError for anything else."""
    for kind, file in _KINDS.items():
        if (Path(folder) / file).is_file():
            return kind
    raise InputError(
        f"{folder}: neither a report, nor cases, nor a data set: give such a folder", option="show"
    )
