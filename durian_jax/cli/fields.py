"""Options made from what a dataclass or a function takes: names, types, defaults and docs."""

import argparse
import inspect
import re
import typing
from collections.abc import Callable
from pathlib import Path

from input_pipeline.errors import InputError
from input_pipeline.media import files


def add(
    verb: argparse.ArgumentParser,
    taker: Callable,
    *names: str,
    default: str | None = None,
    **settings: dict,
) -> None:
    """Adds an option for each parameter: `grow_mask: float = 0.03` becomes --grow-mask.

    The help is what "Attributes:" or "Args:" of the docstring says, and the default unless it is
    None. Without a default an option is required; a bool is a switch.

    Args:
      taker: dataclass or function whose parameters are single numbers, texts, paths or bools.
      names: of the parameters; all of them if none is given.
      default: where the defaults of all come from, for the help. They are None then.
      settings: by parameter, what `add_argument` is told besides, or in place of that.
    """
    entries = re.findall(
        r"^  (\w+): ((?:.|\n(?=    ))+)", inspect.getdoc(taker) or "", re.MULTILINE
    )
    docs = {name: " ".join(text.rstrip(".").split()) for name, text in entries}
    parameters = inspect.signature(taker).parameters
    for name in names or parameters:
        kinds = typing.get_args(parameters[name].annotation) or (parameters[name].annotation,)
        own = None if default else parameters[name].default
        required = own is inspect.Parameter.empty
        options = {"required": required, "default": None if required else own}
        if bool in kinds:
            options["action"] = "store_true"
        else:
            options["type"] = kinds[0]
            if Path in kinds:
                options["type"] = _path_or_url if str in kinds else path
        options |= settings.get(name, {})
        text = options.pop("help", docs.get(name, ""))
        if default or not (required or own is None or own is False):
            text += f" (default: {f'{own:g}' if isinstance(own, float) else default or own})"
        option = f"--{name.replace('_', '-')}"
        verb.add_argument(option, help=text.replace("%", "%%"), **options)


def path(text: str) -> Path:
    """A path on this machine, for `add_argument`."""
    try:
        return files.local(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _path_or_url(text: str) -> str | Path:
    return text if "://" in text else path(text)


def given(taker: Callable, options: argparse.Namespace) -> dict:
    """What the options say of the parameters of a dataclass or a function."""
    return {
        name: getattr(options, name)
        for name in inspect.signature(taker).parameters
        if hasattr(options, name)
    }
