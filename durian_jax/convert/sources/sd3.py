"""Stable Diffusion 3's transformer as diffusers' folders hold it, and its inverse.

What a folder of 3.5 Medium, or of any other of the class `SD3Transformer2DModel`, becomes:

    transformer    denoiser, but for its video attention, which is ours
    vae            autoencoder
    text encoders  nothing: the text is the empty prompt, a file of the kind `prompt`, or zeros
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from durian_jax.convert.names import to_torch, torch_key, transposed
from durian_jax.models.mmdit import MMDiTConfig
from durian_jax.systems.svp.config import SVPConfig
from durian_jax.systems.system import build
from durian_jax.weights.storage import Stored, write_safetensors
from input_pipeline.errors import InputError

SYSTEM = "svp"
SETTINGS = {
    "diffusion": {"process": "flow", "shift": 3.0},
    "sample": {
        "steps": 40, "solver": "ddim", "guidance": [2.0, 2.5, 1.0], "window": 16, "overlap": 0,
        "windows": "chained",
    },
}  # fmt: skip
OURS = "/video_attn/"  # in the paths of parameters that Stable Diffusion does not have
TEXT = {"embedding": "prompt_embeds", "pooled": "pooled_prompt_embeds"}  # as diffusers calls them
PROMPT = "prompt.safetensors"
_TABLE = "pos_embed.pos_embed"
_WEIGHTS = "diffusion_pytorch_model.safetensors"


def read(values: dict, weights: dict[str, Stored], folder: Path) -> tuple[dict, dict]:
    """Fields of `config.model` and tensors by network, from config.json and weights.

    Raises:
      InputError: a config that our transformer cannot be, or a table of other positions.
    """
    where = folder / "config.json"
    shape = {
        "layers": values.get("num_layers", 18),
        "heads": values.get("num_attention_heads", 18),
        "head_dim": values.get("attention_head_dim", 64),
        "patch": values.get("patch_size", 2),
        "dual_layers": tuple(values.get("dual_attention_layers", ())),
        "qk_norm": values.get("qk_norm") is not None,
        "context_dim": values.get("joint_attention_dim", 4096),
        "pooled_dim": values.get("pooled_projection_dim", 2048),
        "positions": values.get("pos_embed_max_size", 96),
        "position_base": values.get("sample_size", 128) // values.get("patch_size", 2),
    }
    shape["video_layers"] = tuple(range(shape["layers"]))
    channels = values.get("in_channels", 16)
    fixed = {
        "qk_norm": (values.get("qk_norm"), (None, "rms_norm")),
        "out_channels": (values.get("out_channels", channels), (channels, None)),
        "caption_projection_dim": (
            values.get("caption_projection_dim", 1152), (shape["heads"] * shape["head_dim"],),
        ),
    }  # fmt: skip
    for name, (found, known) in fixed.items():
        if found not in known:
            raise InputError(f"{where}: {name} is {found!r}; only {known[-1]!r} is supported")
    weights = dict(weights)
    if (table := weights.pop(_TABLE, None)) is not None:
        _check_table(table, MMDiTConfig(**shape))
    # Pictures are half as large as Stable Diffusion's own.
    size = min(values.get("sample_size", 128), SVPConfig().latent_shape[0])
    fields = {"transformer": shape, "latent_channels": channels, "latent_size": size}
    return fields, {"denoiser": weights}


def _check_table(stored: Stored, config: MMDiTConfig) -> None:
    """InputError: a table [1, side * side, C] whose middle row and column are not ours."""
    table, side = config.table, config.positions
    if stored.shape == (1, side**2, config.width):
        found = stored.read()[0].reshape(side, side, -1)
        middle = (side - 1) // 2
        pairs = (found[:, middle], table.window(side, 1)), (found[middle], table.window(1, side))
        # Half precision keeps three digits.
        if all(np.allclose(one.astype(np.float32), other, 0, 4e-3) for one, other in pairs):
            return
    raise InputError(
        f"{stored.file}: {stored.key} {stored.shape} holds other positions than sines and cosines "
        f"of {side} x {side} tokens, {config.position_base} to the unit"
    )


def write(
    config: dict, networks: dict[str, dict[str, Stored]], folder: Path, vae: Callable[[], dict]
) -> None:
    """The part that diffusers has classes for: transformer/, vae/, and the text as a file.

    Args:
      vae: gives the config.json of the autoencoder.
    """
    system, own = build(config), 0
    shape = system.config.transformer
    tensors = {}
    for path, stored in networks["denoiser"].items():
        if OURS in f"/{path}":
            own += 1
        else:
            tensors[torch_key(path)] = transposed(stored, path, to_torch, "torch")
    side = shape.positions
    table = Stored(
        Path(), _TABLE, (1, side**2, shape.width), "float32",
        lambda: shape.table.window(side, side)[None],
    )  # fmt: skip
    _write(
        folder / "transformer", _config(shape, system.latent_shape[-1]), tensors | {_TABLE: table}
    )
    if "autoencoder" in networks:
        found = networks["autoencoder"].items()
        tensors = {torch_key(p): transposed(stored, p, to_torch, "torch") for p, stored in found}
        _write(folder / "vae", vae(), tensors)
    if "prompt" in networks:
        text = {TEXT[path]: stored for path, stored in networks["prompt"].items()}
        write_safetensors(folder / PROMPT, text, {"format": "pt"})
    print(f"note: left out are the {own} tensors of video attention, which diffusers does not have")


def _config(shape: MMDiTConfig, channels: int) -> dict:
    return {
        "_class_name": "SD3Transformer2DModel", "sample_size": shape.position_base * shape.patch,
        "patch_size": shape.patch, "in_channels": channels, "out_channels": channels,
        "num_layers": shape.layers, "attention_head_dim": shape.head_dim,
        "num_attention_heads": shape.heads, "joint_attention_dim": shape.context_dim,
        "caption_projection_dim": shape.width, "pooled_projection_dim": shape.pooled_dim,
        "pos_embed_max_size": shape.positions, "dual_attention_layers": list(shape.dual_layers),
        "qk_norm": "rms_norm" if shape.qk_norm else None,
    }  # fmt: skip


def _write(folder: Path, values: dict, tensors: dict[str, Stored]) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n")
    write_safetensors(folder / _WEIGHTS, tensors, {"format": "pt"})
