"""A run or a folder of weights -> folders that diffusers and transformers load, or our own."""

import contextlib
import functools
import json
from pathlib import Path

import numpy as np

from durian_jax.convert import card
from durian_jax.convert.importer import join, save, with_progress
from durian_jax.convert.names import to_torch, torch_key, transposed
from durian_jax.convert.shapes import unet_shapes
from durian_jax.convert.sources import durian, sd3, x_portrait
from durian_jax.models.temporal import frame_positions
from durian_jax.models.unet import UNet
from durian_jax.systems.system import System, build
from durian_jax.weights import storage
from durian_jax.weights.storage import EXPORT, Stored
from input_pipeline.errors import InputError
from input_pipeline.media.files import folder_beside

# Folder and file of each network.
_DIFFUSERS, _PLAIN = "diffusion_pytorch_model.safetensors", "model.safetensors"
FOLDERS = {
    "denoiser": ("denoiser", _DIFFUSERS),
    "portrait_encoder": ("portrait_encoder", _DIFFUSERS),
    "attribute_encoder": ("attribute_encoder", _DIFFUSERS),
    "autoencoder": ("vae", _DIFFUSERS),
    "clip": ("image_encoder", _PLAIN),
    "keypoint_encoder": ("keypoint_encoder", _DIFFUSERS),
    "face_projection": ("face_projection", _PLAIN),
    "arcface": ("arcface", _PLAIN),
}
# Writers of (source, config, networks, new folder) in the layout of another code.
LAYOUTS = {"x-portrait": x_portrait.write}
_UNETS = ("denoiser", "portrait_encoder", "attribute_encoder")


def to_safetensors(source: Path, out: Path, ema: bool = True, dtype: str = "float32") -> None:
    """Writes a folder of weights from a run (averaged or raw weights) or another such folder.

    Args:
      dtype: "float32" or "float16", which halves the files and rounds to 3 digits.

    Raises:
      InputError: nothing to read there, or `out` is already there.
    """
    sources = [{"from": "durian", "path": str(source)}]
    save(join([durian.read(source, ema)]), sources, out, dtype)


def to_diffusers(source: Path, out: Path, ema: bool = True) -> None:
    """Writes each network as a folder of its own, under torch keys and with a config.json.

    The denoiser loads as UNet2DConditionModel, or UNetMotionModel with motion modules, the
    encoders as UNet2DConditionModel, vae and image_encoder as AutoencoderKL and
    CLIPVisionModelWithProjection. What these classes demand and our networks lack (the encoders'
    output head, cross-attention without a context, tables of positions) is added with values that
    change nothing, and noted in durian.json, so that reading the export drops it again. Of svp
    that is written which Stable Diffusion 3 has, see `sd3.write`.

    Raises:
      InputError: nothing to read there, a network that diffusers has no class for, or `out` is
        already there.
    """
    joined = join([durian.read(source, ema)])
    if joined.config["system"] == sd3.SYSTEM:
        system = build(joined.config)
        with folder_beside(out) as folder:
            vae = functools.partial(_config, "autoencoder", system)
            sd3.write(joined.config, joined.networks, folder, vae)
        return
    if foreign := [network for network in joined.networks if network not in FOLDERS]:
        raise InputError(
            f"{source}: diffusers has no class for its {foreign[0]}: export it as safetensors or "
            f"{', '.join(LAYOUTS)}"
        )
    system = build(joined.config)
    bar = contextlib.closing(with_progress(joined.networks))
    with bar as networks, folder_beside(out) as folder:
        files, entries = {}, {}
        for network, tensors in networks:
            name, file = FOLDERS[network]
            torch = {
                torch_key(path): transposed(stored, path, to_torch, "torch")
                for path, stored in tensors.items()
            }
            added = _added(network, system, tensors)
            (folder / name).mkdir()
            values = json.dumps(_config(network, system), indent=2) + "\n"
            (folder / name / "config.json").write_text(values)
            files[f"{name}/{file}"] = storage.write_safetensors(
                folder / name / file, torch | added, {"format": "pt"}
            )
            entries[network] = {"folder": name, "added": sorted(added)}
        facts = {
            "format": storage.FORMAT, "config": joined.config, "ema": ema, "files": files,
            "drawn": joined.drawn, "absent": joined.absent, EXPORT: entries,
        }  # fmt: skip
        (folder / storage.MANIFEST).write_text(json.dumps(facts, indent=2) + "\n")
        (folder / "README.md").write_text(card.text(joined, source, ema, list(files)))


def to_layout(kind: str, source: Path, out: Path, ema: bool = True) -> None:
    """Writes a run or a folder of weights as another code's checkpoint, a kind of LAYOUTS.

    Raises:
      InputError: nothing to read there, weights of another system, or `out` is already there.
    """
    joined = join([durian.read(source, ema)])
    with folder_beside(out) as folder:
        LAYOUTS[kind](source, joined.config, joined.networks, folder)


def _added(network: str, system: System, tensors: dict[str, Stored]) -> dict[str, Stored]:
    """Tensors that diffusers' class demands besides the network's own."""
    if network not in _UNETS:
        return {}
    added = {}
    for path, shape in unet_shapes(_whole_unet(network, system)).items():
        if path not in tensors:
            value = np.full(shape, float(path.endswith("scale")), np.float32)
            added[torch_key(path)] = _held(torch_key(path), to_torch(value, path))
        elif path.endswith("/attn1/to_q/kernel") and "motion_modules" in path:
            block = torch_key(path).removesuffix("attn1.to_q.weight")
            table = frame_positions(system.max_frames, shape[0])[None]
            added[f"{block}pos_embed.pe"] = _held(f"{block}pos_embed.pe", table)
    return added


def _held(key: str, array: np.ndarray) -> Stored:
    return Stored(Path(), key, array.shape, "float32", lambda: array)


def _whole_unet(network: str, system: System) -> UNet:
    """The UNet with everything that diffusers' class has."""
    model = system.config
    return UNet(
        model.unet(
            in_channels=_inputs(network, system),
            out_channels=model.latent_shape[-1],
            context_dim=_context(model), temporal=network == "denoiser" and model.temporal,
        )
    )  # fmt: skip


def _inputs(network: str, system: System) -> int:
    module, _ = getattr(system.bind({}), network).unbind()
    return module.config.in_channels


def _context(model) -> int:
    """diffusers' blocks with attention have cross-attention always, here to nothing."""
    return max(model.context_dim, 1)


def _config(network: str, system: System) -> dict:
    """config.json of a network; for the last three, which no library has, their shape."""
    model = system.config
    if network in _UNETS:
        return _unet_config(network, system)
    if network == "autoencoder":
        kl, levels = model.kl, len(model.kl.block_out_channels)
        return {
            "_class_name": "AutoencoderKL", "act_fn": "silu", "in_channels": 3, "out_channels": 3,
            "down_block_types": ["DownEncoderBlock2D"] * levels,
            "up_block_types": ["UpDecoderBlock2D"] * levels,
            "block_out_channels": list(kl.block_out_channels),
            "layers_per_block": kl.layers_per_block, "latent_channels": kl.latent_channels,
            "norm_num_groups": kl.norm_groups, "scaling_factor": kl.scaling,
            "shift_factor": kl.shift or None, "use_quant_conv": kl.quant_convs,
            "use_post_quant_conv": kl.quant_convs, "sample_size": model.resolution,
        }  # fmt: skip
    if network == "clip":
        clip = model.clip
        return {
            "architectures": ["CLIPVisionModelWithProjection"], "model_type": "clip_vision_model",
            "hidden_size": clip.hidden_size, "intermediate_size": clip.intermediate_size,
            "num_hidden_layers": clip.layers, "num_attention_heads": clip.heads,
            "image_size": clip.image_size, "patch_size": clip.patch_size,
            "projection_dim": clip.projection_dim, "hidden_act": "quick_gelu",
            "layer_norm_eps": 1e-5, "dtype": "float32",
        }  # fmt: skip
    return {
        "keypoint_encoder": {
            "_class_name": "KeypointEncoder", "width": model.channels[0],
            "channels": list(model.keypoint_channels),
        },
        "face_projection": {"_class_name": "FaceProjection", "width": model.context_dim},
        "arcface": {"_class_name": "IResNet", **({} if model.arcface is None else {
            "layers": list(model.arcface.layers), "widths": list(model.arcface.widths),
            "image_size": model.arcface.image_size, "embedding": model.arcface.embedding,
        })},
    }[network]  # fmt: skip


def _unet_config(network: str, system: System) -> dict:
    model = system.config
    temporal = network == "denoiser" and model.temporal
    kind = "Motion" if temporal else "2D"
    blocks = [
        ("CrossAttn" if level in model.attention_levels else "", kind)
        for level in range(len(model.channels))
    ]
    values = {
        "_class_name": "UNetMotionModel" if temporal else "UNet2DConditionModel",
        "sample_size": model.latent_shape[0],
        "in_channels": _inputs(network, system),
        "out_channels": model.latent_shape[-1],
        "down_block_types": [f"{cross}DownBlock{kind}" for cross, kind in blocks],
        "up_block_types": [f"{cross}UpBlock{kind}" for cross, kind in reversed(blocks)],
        "block_out_channels": list(model.channels),
        "layers_per_block": model.layers_per_block,
        "norm_num_groups": model.norm_groups,
        "norm_eps": 1e-5,
        "act_fn": "silu",
        "cross_attention_dim": _context(model),
    }
    if not temporal:
        return values | {
            "attention_head_dim": model.heads,
            "flip_sin_to_cos": True,
            "freq_shift": 0,
        }
    return values | {
        "num_attention_heads": model.heads,
        "use_motion_mid_block": True,
        "motion_num_attention_heads": model.temporal_heads,
        "motion_max_seq_length": model.max_frames,
    }
