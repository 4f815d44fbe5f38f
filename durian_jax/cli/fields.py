"""Options made from what a dataclass or a function takes: names, types, defaults and docs."""

import argparse
import inspect
from collections.abc import Callable
from pathlib import Path

from durian_jax import parameters
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
    for one in parameters.of(taker, *names):
        own = None if default else one.default
        required = one.required and not default
        options = {"required": required, "default": None if required else own}
        if bool in one.kinds:
            options["action"] = "store_true"
        else:
            options["type"] = one.kinds[0]
            if Path in one.kinds:
                options["type"] = _path_or_url if str in one.kinds else path
            if one.choices:
                options["choices"] = one.choices
        options |= settings.get(one.name, {})
        text = options.pop("help", one.doc)
        if default or not (required or own is None or own is False):
            text += f" (default: {f'{own:g}' if isinstance(own, float) else default or own})"
        option = f"--{one.name.replace('_', '-')}"
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
