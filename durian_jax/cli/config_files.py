"""Configs from the command line: a file of configs/, one of its stages, and what overrides it."""

import ast
import importlib.util
import inspect
import os
from pathlib import Path

from input_pipeline.errors import InputError


def load_config(path: str, overrides: list[str]):
    """The config of a file, FILE.py or FILE.py:STAGE, with overrides "--config.x.y=VALUE" in it.

    Values are Python literals, or bare text where the config holds text.

    Raises:
      InputError: no such file, stage or key, or a value of another type.
    """
    file, _, stage = path.partition(":")
    if not Path(file).is_file():
        raise InputError(f"--config {file}: no such file: give a file such as configs/tiny.py")
    spec = importlib.util.spec_from_file_location("durian_config", file)
    module = spec and importlib.util.module_from_spec(spec)
    if module:
        spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise InputError(
            f"--config {file}: has no get_config(): give a file such as configs/tiny.py"
        )
    takes = inspect.signature(module.get_config).parameters
    if stage and not takes:
        raise InputError(f"--config {path}: its get_config() takes no stage: leave out :{stage}")
    try:
        config = module.get_config(*([stage] if stage else []))
    except ValueError as error:
        raise InputError(f"--config {path}: {error}") from error
    for override in overrides:
        name, equals, value = override.partition("=")
        if not equals or not name.startswith("--config."):
            raise InputError(f"{override}: unknown option: overrides read --config.KEY=VALUE")
        node = config
        for key in name.removeprefix("--config.").split("."):
            parent, names = node, getattr(node, "keys", tuple)()
            if key not in names:
                choice = f"choose from {', '.join(names)}" if names else f"see {file}"
                raise InputError(f"{override}: unknown name {key!r}: {choice}")
            node = parent[key]
        try:
            parent[key] = value if isinstance(node, str) else ast.literal_eval(value)
        except (TypeError, ValueError, SyntaxError):
            kind = type(node).__name__
            raise InputError(f"{override}: {value!r} is no {kind}: see {file} for types") from None
    _expand(config)
    return config


def _expand(config) -> None:
    """Expands the `~` of paths in it: no shell sees them."""
    for key, value in config.items():
        if hasattr(value, "items"):
            _expand(value)
        elif isinstance(value, str) and value.startswith("~"):
            config[key] = os.path.expanduser(value)
