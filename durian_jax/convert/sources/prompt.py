"""The context of the empty prompt: CLIP's text tower, run once; or the tokens themselves.

X-Portrait was trained with it and never sees another, so what runs later needs no text tower.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import safetensors

from durian_jax.convert.source import Source
from durian_jax.convert.sources import sd3
from durian_jax.convert.sources.files import open_weights, read_json
from durian_jax.convert.sources.folders import open_folder
from durian_jax.weights.storage import Stored
from input_pipeline.errors import InputError

_TOWER = "text_model."
_HEAD = 64  # channels of an attention head, as in all of OpenAI's towers


def read(path: Path) -> Source:
    """A file with a text tower (transformers', or any checkpoint with one), or one [M, d] tensor.

    A folder is that of transformers' CLIPTextModel. For svp a file with `prompt_embeds` [M, d] and
    `pooled_prompt_embeds` [P], as diffusers' pipeline of Stable Diffusion 3 calls them.

    Raises:
      InputError: neither of them is in there.
    """
    path = Path(path)
    weights = open_folder(path) if path.is_dir() else open_weights(path)
    if set(sd3.TEXT.values()) == weights.keys():
        tokens, pooled = (weights[name] for name in sd3.TEXT.values())
        found = {"weight": context(tokens), "pooled": _row(pooled)}
        tells, settings = {"prompt_tokens": found["weight"].shape[0]}, {"prompt": str(path)}
        return Source(str(path), tells, {"prompt": found}, settings, sd3.SYSTEM)
    if any(_TOWER in key for key in weights) or "final_layer_norm.weight" in weights:
        stored = tower(weights, _heads(path))
    else:
        tensors = list(weights.values())
        shape = tensors[0].shape
        if len(tensors) > 1 or len(shape) not in (2, 3) or shape[:-2] not in ((), (1,)):
            raise InputError(
                f"{path}: neither a text tower ({_TOWER}*) nor one tensor [tokens, channels]: give "
                "CLIP's text_encoder, or the file of the context alone"
            )
        stored = context(tensors[0])
    return Source(str(path), fields(stored), {"prompt": {"weight": stored}}, {}, "x_portrait")


def fields(stored: Stored) -> dict:
    """Fields of `config.model` that a context tells."""
    return {"prompt_tokens": stored.shape[0], "context_dim": stored.shape[1]}


def context(stored: Stored) -> Stored:
    """Tokens [M, d] or [1, M, d] as a parameter [M, d]."""
    shape = stored.shape[-2:]
    return Stored(
        stored.file, stored.key, shape, stored.dtype, lambda: stored.read().reshape(shape), "linen"
    )


def _row(stored: Stored) -> Stored:
    """A vector [P] or [1, P] as a parameter [P]."""
    return dataclasses.replace(
        stored, shape=stored.shape[-1:], layout="linen", read=lambda: stored.read().reshape(-1)
    )


def tower(weights: dict[str, Stored], heads: int | None = None) -> Stored:
    """What the tower makes of the empty prompt, float32 [77, d]; computed when it is read.

    Args:
      weights: those of the tower under any prefix, and others.
      heads: of attention; None for one for every 64 channels.

    Raises:
      InputError: a key is missing.
    """
    found = {key.rpartition(_TOWER)[2]: stored for key, stored in weights.items()}
    if "final_layer_norm.weight" not in found:
        file = next(iter(weights.values())).file
        raise InputError(f"{file}: {_TOWER}final_layer_norm.weight is missing: download it again")
    last = found["final_layer_norm.weight"]
    try:
        shape = found["embeddings.position_embedding.weight"].shape
    except KeyError as error:
        raise InputError(f"{last.file}: {_TOWER}{error.args[0]} is missing") from None
    heads = heads or max(1, shape[1] // _HEAD)
    return Stored(
        last.file, last.key, shape, "float32", lambda: _encode(found, heads, last.file), "linen"
    )


def _encode(found: dict[str, Stored], heads: int, file: Path) -> np.ndarray:
    """CLIP's text transformer on the start token and, for the rest, the end token."""

    def get(name: str) -> np.ndarray:
        if name not in found:
            raise InputError(f"{file}: {_TOWER}{name} is missing: download it again")
        return np.asarray(found[name].read(), np.float32)

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt(np.square(x).mean(-1, keepdims=True) + 1e-5)
        return x * get(f"{name}.weight") + get(f"{name}.bias")

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ get(f"{name}.weight").T + get(f"{name}.bias")

    positions, words = (
        get(f"embeddings.{name}_embedding.weight") for name in ("position", "token")
    )
    count, width = positions.shape
    # The last two words of the vocabulary are start and end; what is empty is filled with the end.
    x = positions + words[[len(words) - 2] + [len(words) - 1] * (count - 1)]
    hidden = np.triu(np.full((count, count), -np.inf, np.float32), 1)
    layer = 0
    while f"encoder.layers.{layer}.layer_norm1.weight" in found:
        at = f"encoder.layers.{layer}"
        y = norm(x, f"{at}.layer_norm1")
        query, key, value = (
            linear(y, f"{at}.self_attn.{name}_proj").reshape(count, heads, -1).swapaxes(0, 1)
            for name in "qkv"
        )
        logits = query @ key.swapaxes(1, 2) / np.sqrt(np.float32(width // heads)) + hidden
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        x = x + linear((weights @ value).swapaxes(0, 1).reshape(count, width),
                       f"{at}.self_attn.out_proj")  # fmt: skip
        y = linear(norm(x, f"{at}.layer_norm2"), f"{at}.mlp.fc1")
        x = x + linear(y / (1 + np.exp(-1.702 * y)), f"{at}.mlp.fc2")  # the "quick" GELU
        layer += 1
    return norm(x, "final_layer_norm")


def _heads(path: Path) -> int | None:
    """Those that transformers' config in a folder, beside a file or in its header tells."""
    values, folder = {}, path if path.is_dir() else path.parent
    if (folder / "config.json").is_file():
        values = read_json(folder / "config.json")
    if path.suffix == ".safetensors" and path.is_file():
        with safetensors.safe_open(path, "numpy") as opened:
            values = values | json.loads((opened.metadata() or {}).get("config", "{}"))
    heads = values.get("num_attention_heads")
    return heads if isinstance(heads, int) and heads > 0 else None
