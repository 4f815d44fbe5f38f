"""Sources at a width of their own, which no config of the project has."""

import json
import re
from pathlib import Path

import jax
import numpy as np
from flax import serialization
from flax.traverse_util import unflatten_dict
from safetensors.numpy import save_file

from durian_jax.convert.names import to_torch, torch_key
from durian_jax.convert.shapes import network_shapes
from durian_jax.systems.system import build
from tests.parity import drawn, folders

WIDTHS, HEADS, CONTEXT, GROUPS = [16, 24, 40], 2, 14, 8
UNET_JSON = {
    "_class_name": "UNet2DConditionModel", "block_out_channels": WIDTHS, "layers_per_block": 1,
    "attention_head_dim": HEADS, "cross_attention_dim": CONTEXT, "norm_num_groups": GROUPS,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "in_channels": 4, "out_channels": 4, "sample_size": 8, "act_fn": "silu", "norm_eps": 1e-05,
}  # fmt: skip
VAE_JSON = {
    "_class_name": "AutoencoderKL", "block_out_channels": [12, 18], "layers_per_block": 1,
    "latent_channels": 4, "norm_num_groups": 6,
}  # fmt: skip
CLIP_JSON = {
    "architectures": ["CLIPVisionModelWithProjection"], "hidden_size": 12, "intermediate_size": 20,
    "num_hidden_layers": 1, "num_attention_heads": 3, "image_size": 8, "patch_size": 4,
    "projection_dim": CONTEXT,
}  # fmt: skip
MODEL = {
    "resolution": 16, "channels": WIDTHS, "layers_per_block": 1, "attention_levels": [1, 2],
    "heads": HEADS, "context_dim": CONTEXT, "norm_groups": GROUPS, "temporal": True,
    "temporal_heads": 8, "max_frames": 6, "keypoint_channels": [6, 10],
    "kl": {"block_out_channels": [12, 18], "layers_per_block": 1, "norm_groups": 6},
    "clip": {"hidden_size": 12, "intermediate_size": 20, "layers": 1, "heads": 3, "image_size": 8,
             "patch_size": 4, "projection_dim": CONTEXT},
    "arcface": {"layers": [1, 2], "widths": [4, 6], "image_size": 8, "embedding": 10},
}  # fmt: skip


def parameter_shapes(config: dict) -> dict:
    """Parameter shapes of all networks of a config, by name."""
    system = build(config)
    return {name: network_shapes(system, name) for name in system.networks}


SHAPES = parameter_shapes({"model": MODEL})


def linen(network: str, pattern: str = "") -> dict[str, np.ndarray]:
    """Parameter path -> drawn weights of a network of MODEL; those whose path has a pattern."""
    return {
        path: drawn.tensor(f"{network}/{path}", shape)
        for path, shape in SHAPES[network].items()
        if re.search(pattern, path)
    }


def torch(network: str, pattern: str = "") -> dict[str, np.ndarray]:
    """The same by torch key, in torch's layout."""
    weights = linen(network, pattern)
    return {torch_key(path): to_torch(array, path) for path, array in weights.items()}


def unet() -> dict[str, np.ndarray]:
    """A plain UNet2DConditionModel."""
    return torch("denoiser", "^(?!.*motion_modules)")


def motion() -> dict[str, np.ndarray]:
    """Motion modules under AnimateDiff's names, with their tables of positions."""
    return folders.animatediff(torch("denoiser", "motion_modules"), 6)


def write_diffusers(root: Path) -> Path:
    """A pipeline folder with unet, vae, image_encoder and parts that are of no use here."""
    models = {
        "unet": (UNET_JSON, unet()),
        "vae": (VAE_JSON, torch("autoencoder")),
        "image_encoder": (CLIP_JSON, torch("clip")),
        "text_encoder": ({"architectures": ["CLIPTextModel"]}, {"a": np.zeros(1, np.float32)}),
    }
    for name, (values, weights) in models.items():
        file = "model" if "encoder" in name else "diffusion_pytorch_model"
        (root / name).mkdir(parents=True)
        (root / name / "config.json").write_text(json.dumps(values))
        contiguous = {key: np.ascontiguousarray(array) for key, array in weights.items()}
        save_file(contiguous, root / name / f"{file}.safetensors")
    (root / "scheduler").mkdir()
    (root / "model_index.json").write_text("{}")
    return root


def write_flax(root: Path) -> Path:
    """The same models as diffusers' and transformers' Flax classes saved them."""

    def attention(path):
        names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out_0": "proj_attn"}
        for new, old in names.items():
            path = path.replace(f"attentions_0/{new}/", f"attentions_0/{old}/")
        return path

    spatial = linen("denoiser", "^(?!.*motion_modules)")
    models = {
        "unet": (UNET_JSON, spatial, "diffusion_flax_model"),
        "vae": (
            VAE_JSON,
            {attention(path): array for path, array in linen("autoencoder").items()},
            "diffusion_flax_model",
        ),
        "image_encoder": (
            CLIP_JSON,
            {re.sub(r"layers_(\d+)", r"layers/\1", p): a for p, a in linen("clip").items()},
            "flax_model",
        ),
    }
    for name, (values, weights, file) in models.items():
        (root / name).mkdir(parents=True)
        (root / name / "config.json").write_text(json.dumps(values))
        tree = unflatten_dict(weights, sep="/")
        (root / name / f"{file}.msgpack").write_bytes(serialization.to_bytes(tree))
    return root


def write_moore(root: Path, motion_in: str | None = "motion_module.pth") -> Path:
    """Animate Anyone's folder; motion modules in a file of their own, or with the denoiser."""
    root.mkdir(parents=True)
    values = {name: value for name, value in UNET_JSON.items() if name != "_class_name"}
    (root / "config.json").write_text(json.dumps(values | {"motion_num_attention_heads": 4}))
    files = {
        "denoising_unet.pth": unet(),
        "reference_unet.pth": moore_reference(),
        "pose_guider.pth": torch("keypoint_encoder"),
    }
    if motion_in:
        files.setdefault(motion_in, {}).update(motion())
    for name, weights in files.items():
        folders.write_torch(root / name, weights)
    return root


def moore_reference() -> dict[str, np.ndarray]:
    """Its reference_unet: four channels in, no output head."""
    head = ("conv_norm_out.", "conv_out.")
    weights = {key: array for key, array in torch("attribute_encoder").items()}
    assert not any(key.startswith(head) for key in weights)
    return weights | {"conv_in.weight": weights["conv_in.weight"][:, :4]}


def leaves(params: dict) -> dict[str, np.ndarray]:
    """ "denoiser/conv_in/kernel" -> array."""
    flat = jax.tree_util.tree_leaves_with_path(params)
    return {"/".join(key.key for key in path): leaf for path, leaf in flat}
