"""The files of weights in a model folder: variants, shards, either format."""

import re
from pathlib import Path
from typing import NoReturn

from durian_jax.convert.sources.files import open_weights
from durian_jax.weights.storage import Stored
from input_pipeline.errors import InputError

# pytorch_model.bin, model.fp16.safetensors, diffusion_pytorch_model.non_ema-00001-of-00003.bin,
# model.safetensors.index.json, model.safetensors.index.fp16.json, ...
_FILE = re.compile(
    r"(?P<stem>diffusion_pytorch_model|model|pytorch_model)"
    r"(\.(?P<variant>\w+))?(-(?P<shard>\d+)-of-(?P<count>\d+))?(\.(?P<variant_2>\w+))?"
    r"\.(?P<kind>safetensors|bin)"
    r"(?P<index>\.index(\.(?P<variant_3>\w+))?\.json)?"
)
# What is taken if there are several.
_VARIANTS = ("", "fp32", "ema", "fp16", "bf16")
_MOST_LISTED = 6


def open_folder(folder: Path) -> dict[str, Stored]:
    """Tensors of the weights beside a config.json, as diffusers and transformers save them.

    The plain file comes before its variants (fp16, bf16, non_ema, ...; taken with a printed note),
    safetensors before pickles, whole files before shards.

    Raises:
      InputError: none is there, a shard is missing, or see `files.open_weights`.
    """
    found: dict[tuple, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()):
        if parts := _FILE.fullmatch(path.name):
            variant = parts["variant"] or parts["variant_2"] or parts["variant_3"] or ""
            part = "index" if parts["index"] else parts["shard"] or "whole"
            key = variant, parts["kind"], parts["stem"], int(parts["count"] or 0)
            if part in ("index", "whole"):
                key = (*key[:3], 0)
            found.setdefault(key, {})[part] = path
    if not found:
        raise InputError(
            f"{folder}: no weights: expected diffusion_pytorch_model.safetensors, "
            f"model.safetensors or the like, there is {listed(folder)}"
        )
    variant, *_, count = chosen = min(found, key=_rank)
    files = found[chosen]
    first = files.get("whole") or files.get("index") or next(iter(files.values()))
    if variant:
        others = sorted({variant for variant, *_ in found} - {variant})
        rest = f", not {', '.join(others)}" if others else ""
        print(f"note: {first}: the variant {variant}{rest}; the plain file is not there")
    if not count:
        return open_weights(first)
    if missing := [n for n in range(1, count + 1) if n not in map(int, files)]:
        raise InputError(
            f"{first}: shard {missing[0]} of {count} is not beside it: download all of them"
        )
    return open_weights(*files.values())


def listed(folder: Path) -> str:
    """Names of what is in a folder but its config.json, for messages."""
    names = sorted(entry.name for entry in folder.iterdir() if entry.name != "config.json")
    more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
    return (", ".join(names[:_MOST_LISTED]) or "nothing") + more


def refuse(path: Path) -> NoReturn:
    """InputError: a file or folder that is no model folder, and what it is."""
    if not path.exists():
        raise InputError(f"{path}: no such folder: give a model folder with a config.json")
    files = [path] if path.is_file() else sorted(path.iterdir())
    for file in files:
        # A LoRA or a pointer says so itself.
        if file.suffix in (".safetensors", ".bin", ".ckpt", ".pt", ".pth") and file.is_file():
            keys = open_weights(file)
            if any("diffusion_model." in key or "first_stage_model." in key for key in keys):
                raise InputError(
                    f"{file}: a single file as of the first Stable Diffusion: that is of the kind "
                    "ldm"
                )
    if path.is_file():
        raise InputError(f"{path}: a file: give a model folder with a config.json")
    raise InputError(
        f"{path}: no model here: no config.json in it or one level below, there is {listed(path)}"
    )


def _rank(key: tuple[str, str, str, int]) -> tuple:
    variant, kind, stem, count = key
    rank = _VARIANTS.index(variant) if variant in _VARIANTS else len(_VARIANTS)
    return rank, kind == "bin", variant, stem, count
