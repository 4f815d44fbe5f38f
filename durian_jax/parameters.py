"""What a dataclass or a function takes, as its signature and its docstring say it."""

import dataclasses
import inspect
import re
import typing
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One that may be given.

    Attributes:
      kinds: the types that it may have.
      choices: the values that it may have, if they are listed: `Literal["a", "b"]`.
      default: `inspect.Parameter.empty` if it must be given.
      doc: meaning and unit, on one line without a full stop; "" if nothing is said.
    """

    name: str
    kinds: tuple
    choices: tuple
    default: object
    doc: str

    @property
    def required(self) -> bool:
        """Whether it must be given."""
        return self.default is inspect.Parameter.empty


def of(taker: Callable, *names: str) -> list[Parameter]:
    """The parameters of these names, or all; docs are what "Attributes:" or "Args:" says."""
    entries = re.findall(
        r"^  (\w+): ((?:.|\n(?=    ))+)", inspect.getdoc(taker) or "", re.MULTILINE
    )
    docs = {name: " ".join(text.rstrip(".").split()) for name, text in entries}
    found = inspect.signature(taker).parameters
    return [
        Parameter(name, *_kinds(found[name].annotation), found[name].default, docs.get(name, ""))
        for name in names or found
    ]


def _kinds(annotation) -> tuple[tuple, tuple]:
    """(types, choices) of an annotation: a type, a Literal of texts, or a union with either."""
    if typing.get_origin(annotation) is typing.Literal:
        return (str,), typing.get_args(annotation)
    if typing.get_origin(annotation) is tuple or not typing.get_args(annotation):
        return (annotation,), ()
    parts = [_kinds(part) for part in typing.get_args(annotation)]
    return tuple(k for kinds, _ in parts for k in kinds), tuple(c for _, cs in parts for c in cs)
