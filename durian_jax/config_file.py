"""Configs are Python files; the command line names one and overrides values in it."""

import ast
import functools
import importlib.util
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
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        config = module.get_config(*([stage] if stage else []))
    except ValueError as error:
        raise InputError(f"--config {path}: {error}") from error
    for override in overrides:
        name, equals, value = override.partition("=")
        if not equals or not name.startswith("--config."):
            raise InputError(f"{override}: unknown option: overrides read --config.KEY=VALUE")
        *parents, key = name.removeprefix("--config.").split(".")
        try:
            node = functools.reduce(lambda node, parent: node[parent], parents, config)
            node[key] = value if isinstance(node[key], str) else ast.literal_eval(value)
        except (KeyError, TypeError, ValueError, SyntaxError) as error:
            reason = str(error).strip("'\"").splitlines()[0]
            raise InputError(f"{override}: {reason}: see {file} for names and types") from error
    return config
