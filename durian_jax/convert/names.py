"""Torch keys and layouts <-> parameter paths and layouts, and the strict match between them.

Parameter paths follow diffusers (and transformers, and InsightFace): levels for dots, `_i` for list
indices, Flax's names for the leaves. So one rule gives the torch key of every parameter, and a
source only needs a table where its own names differ from those.
"""

import dataclasses
import re
from collections.abc import Sequence

import numpy as np

from durian_jax.models.temporal import frame_positions
from durian_jax.weights.storage import Stored
from input_pipeline.errors import InputError

# (pattern, replacement) pairs, applied in order; the replacement None drops the key.
Table = Sequence[tuple[str, str | None]]

_LIST = re.compile(
    r"^((?:controlnet_)?down_blocks|up_blocks|resnets|attentions|motion_modules|downsamplers|upsamplers|blocks|"
    r"layers|transformer_blocks|to_out|net|downsample|layer\d)_(\d+)$"
)
_LEAVES = {
    "kernel": "weight", "scale": "weight", "embedding": "weight",
    "mean": "running_mean", "var": "running_var",
}  # fmt: skip
_FLOATS = ("float32", "float16", "bfloat16")
# What torch.compile, FSDP and checkpointing put between the levels of a key.
_WRAPPERS: Table = (
    (r"(?<![^.])_(orig_mod|fsdp_wrapped_module|checkpoint_wrapped_module|forward_module)\.", ""),
)
# First levels of the networks that are known here.
_ROOTS = re.compile(
    r"(conv_in|conv_out|conv_norm_out|time_embedding|(down|mid|up)_blocks?|controlnet_\w+|encoder|"
    r"decoder|(post_)?quant_conv|vision_model|visual_projection|text_model|text_projection|blocks|"
    r"layer\d|conv1|bn\d|prelu|fc|features)$"
)
_SHOWN = 3  # keys of each kind that an error names


def torch_key(path: str) -> str:
    """ "up_blocks_1/attentions_0/norm/scale" -> "up_blocks.1.attentions.0.norm.weight"."""
    *levels, leaf = path.split("/")
    return ".".join([_LIST.sub(r"\1.\2", level) for level in levels] + [_LEAVES.get(leaf, leaf)])


def to_linen(array: np.ndarray, path: str) -> np.ndarray:
    """[O, I, kh, kw] -> [kh, kw, I, O] and [O, I] -> [I, O] for kernels; others stay."""
    if path.endswith("kernel"):
        return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
    return array


def to_torch(array: np.ndarray, path: str) -> np.ndarray:
    """The inverse of `to_linen`."""
    if path.endswith("kernel"):
        return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
    return array


def transposed(stored: Stored, path: str, turn, layout: str) -> Stored:
    """The tensor with `to_linen` or `to_torch` applied when it is read."""
    shape = turn(np.broadcast_to(np.float32(0), stored.shape), path).shape
    return dataclasses.replace(
        stored, shape=shape, layout=layout, read=lambda: turn(stored.read(), path)
    )


def rename(weights: dict[str, Stored], table: Table) -> dict[str, Stored]:
    """Applies a table to all keys. Raises InputError if two keys become one."""
    renamed = {}
    for key, stored in weights.items():
        for pattern, replacement in table:
            if replacement is None and re.search(pattern, key):
                break
            key = re.sub(pattern, replacement or "", key)
        else:
            if key in renamed:
                raise InputError(
                    f"{stored.file}: {stored.key} and {renamed[key].key} both mean {key}: keep one"
                )
            renamed[key] = stored
    return renamed


def unwrapped(weights: dict[str, Stored]) -> dict[str, Stored]:
    """Takes off what wraps a whole network: torch.compile's `_orig_mod.`, `module.`, `unet.`.

    Any first level goes that all keys share, unless it is one that a network of ours begins with,
    or all that some key has in front of its last word; but `module.` wraps such keys, too.
    Raises InputError if two keys become one.
    """
    weights = rename(weights, _WRAPPERS)
    while weights:
        first = next(iter(weights)).partition(".")[0]
        if _ROOTS.match(first) or not all(
            key.startswith(f"{first}.") and (first == "module" or key.count(".") > 1)
            for key in weights
        ):
            break
        weights = {key[len(first) + 1 :]: stored for key, stored in weights.items()}
    return weights


def match(
    network: str, shapes: dict[str, tuple[int, ...]], weights: dict[str, Stored], padded: str = ""
) -> dict[str, Stored]:
    """A tensor for every parameter of a network, and no tensor unused.

    Args:
      network: for messages.
      shapes: parameter path -> shape.
      weights: torch key -> tensor. Tables of temporal positions (".pe") are compared with ours.
      padded: path of the kernel that may have one input channel more than its tensor; it is zero.

    Returns:
      Parameter path -> tensor of its shape and layout.

    Raises:
      InputError: keys missing, unused, of another shape or dtype; one line says which.
    """
    wanted = {torch_key(path): path for path in shapes}
    tables = {key for key in weights if key.endswith(".pe")}
    missing = [key for key in wanted if key not in weights]
    extra = [weights[key].key for key in weights if key not in wanted and key not in tables]
    misfits, found = [], {}
    for key, path in wanted.items():
        if key in weights:
            stored = weights[key]
            fitted = _fit(stored, path, shapes[path], path == padded)
            if stored.dtype not in _FLOATS:
                misfits.append(f"{stored.key} is {stored.dtype}, not {', '.join(_FLOATS)}")
            elif fitted is None:
                asked = _shape_in(stored.layout, shapes[path], path)
                misfits.append(f"{stored.key} is {stored.shape}, the model has {asked}")
            else:
                found[path] = fitted
    for key in tables:
        if not _is_ours(weights[key]):
            misfits.append(f"{weights[key].key} holds other positions than AnimateDiff's sinusoids")
    problems = [
        *_listed("missing", missing), *_listed("without a place in the model", extra),
        *_listed("of another kind", misfits),
    ]  # fmt: skip
    if problems:
        files = sorted({str(stored.file) for stored in weights.values()})
        raise InputError(f"{' and '.join(files)}: do not fit {network}: {'; '.join(problems)}")
    return found


def _fit(stored: Stored, path: str, shape: tuple[int, ...], padded: bool) -> Stored | None:
    """The tensor in the layout and shape of a parameter; None if it cannot be."""
    if stored.layout == "torch":
        stored = transposed(stored, path, to_linen, "linen")
    if stored.shape == shape:
        return stored
    # A 1x1 convolution and a linear layer are the same.
    if (
        path.endswith("kernel")
        and stored.shape[-2:] == shape[-2:]
        and set(stored.shape[:-2] + shape[:-2]) <= {1}
    ):
        return dataclasses.replace(stored, shape=shape, read=lambda: stored.read().reshape(shape))
    if padded and stored.shape == (*shape[:2], shape[2] - 1, shape[3]):
        pad = ((0, 0), (0, 0), (0, 1), (0, 0))
        return dataclasses.replace(stored, shape=shape, read=lambda: np.pad(stored.read(), pad))
    return None


def _shape_in(layout: str, shape: tuple[int, ...], path: str) -> tuple[int, ...]:
    if layout == "linen":
        return shape
    return to_torch(np.broadcast_to(np.float32(0), shape), path).shape


def _is_ours(table: Stored) -> bool:
    """Whether a table [1, F, C] holds the positions that the motion modules compute themselves."""
    if len(table.shape) != 3 or table.shape[0] != 1:
        return False
    # Half precision keeps three digits.
    return np.allclose(
        table.read()[0].astype(np.float32), frame_positions(*table.shape[1:]), 0, 2e-3
    )


def _listed(problem: str, items: list[str]) -> list[str]:
    if not items:
        return []
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return [f"{len(items)} {problem} ({', '.join(items[:_SHOWN])}{more})"]
