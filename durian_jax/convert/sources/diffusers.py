"""Folders of diffusers and transformers, each with config.json and weights; and our own exports.

A folder is one model or a pipeline of them. config.json is read as plain JSON: neither library is
needed. What each model becomes:

    UNet2DConditionModel, UNetMotionModel   denoiser, reference encoders, ControlNets: UNETS
    AutoencoderKL                           autoencoder
    CLIPVisionModelWithProjection           clip
    MotionAdapter                           motion modules of the denoiser
    SD3Transformer2DModel                   denoiser of svp, see `sd3.py`
"""

import contextlib
from collections.abc import Callable
from pathlib import Path

from durian_jax.convert.names import Table, rename
from durian_jax.convert.source import UNETS, Source
from durian_jax.convert.sources import sd3
from durian_jax.convert.sources.animatediff import motion_fields
from durian_jax.convert.sources.files import read_json
from durian_jax.convert.sources.folders import open_folder, refuse
from durian_jax.systems.system import system_name
from durian_jax.weights.storage import EXPORT, MANIFEST, Stored, read_manifest
from input_pipeline.errors import InputError

_OTHERS = (
    "CLIPTextModel", "CLIPTextModelWithProjection", "T5EncoderModel",
    "StableDiffusionSafetyChecker",
)  # fmt: skip
# The autoencoder's attention had other names before diffusers 0.14; many files still do.
_VAE: Table = (
    (r"\.query\.", ".to_q."), (r"\.key\.", ".to_k."), (r"\.value\.", ".to_v."),
    (r"\.proj_attn\.", ".to_out.0."),
)  # fmt: skip
# A whole CLIP holds the text half too.
_CLIP: Table = (
    (r"^text_model\.", None), (r"^text_projection\.", None), (r"^logit_scale$", None),
    (r"\.position_ids$", None),
)  # fmt: skip

# Values of config.json that the modules take for granted; absent ones are fine.
_UNET_FIXED = {
    "act_fn": "silu", "norm_eps": 1e-5, "flip_sin_to_cos": True, "freq_shift": 0,
    "downsample_padding": 1, "center_input_sample": False, "class_embed_type": None,
    "addition_embed_type": None, "encoder_hid_dim_type": None, "time_embedding_type": "positional",
    "resnet_time_scale_shift": "default", "only_cross_attention": False,
    "dual_cross_attention": False, "transformer_layers_per_block": 1, "conv_in_kernel": 3,
    "conv_out_kernel": 3, "mid_block_scale_factor": 1, "time_cond_proj_dim": None,
}  # fmt: skip
_VAE_FIXED = {
    "act_fn": "silu", "in_channels": 3, "out_channels": 3, "mid_block_add_attention": True,
}  # fmt: skip
_CLIP_FIXED = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}


def read(path: Path) -> Source:
    """A model folder, a pipeline folder, or what `durian convert --to diffusers` wrote.

    Raises:
      InputError: no folder, none of its models is known, or a config that our modules cannot be.
    """
    path = Path(path)
    if (path / MANIFEST).is_file() and EXPORT in read_manifest(path):
        return _read_export(path)
    return read_folder(path, open_folder)


def read_folder(path: Path, open_weights: Callable[[Path], dict[str, Stored]]) -> Source:
    """`read` for any file format: `open_weights` opens the weights beside a config.json."""
    if not path.is_dir():
        refuse(path)
    folders = [path] if (path / "config.json").is_file() else sorted(path.iterdir())
    fields, weights = {}, {}
    for folder in folders:
        if not (folder / "config.json").is_file():
            continue
        values = read_json(folder / "config.json")
        family = (
            values.get("_class_name")
            or (values.get("architectures") or ["model without a name"])[0]
        )
        # A pipeline has parts that are of no use here; a folder given by itself has none.
        if family in _OTHERS and folder != path:
            continue
        if family == "ControlNetModel":
            raise InputError(
                f"{folder / 'config.json'}: a ControlNetModel: only x_portrait has such networks, "
                "and its checkpoint brings them along"
            )
        if family not in _READERS:
            raise InputError(
                f"{folder / 'config.json'}: a {family} is none of the models known here: "
                f"{', '.join(_READERS)}"
            )
        with plain_values(folder / "config.json"):
            new_fields, new_weights = _READERS[family](values, open_weights(folder), folder)
        for name, value in new_fields.items():
            if fields.setdefault(name, value) != value:
                raise InputError(
                    f"{folder / 'config.json'}: {name} {value}, but {fields[name]} beside it: "
                    "these models do not belong together"
                )
        for network, tensors in new_weights.items():
            known = weights.setdefault(network, {})
            twice = sorted(known.keys() & tensors.keys())
            if twice:
                raise InputError(f"{folder}: {network} {twice[0]} is in two models: keep one")
            known.update(tensors)
    if not weights:
        refuse(path)
    if "transformer" in fields:
        return Source(str(path), fields, weights, sd3.SETTINGS, sd3.SYSTEM)
    return Source(str(path), fields, weights)


@contextlib.contextmanager
def plain_values(path: Path):
    """Values of a config.json that are of another type than they should be, as InputError."""
    try:
        yield
    except (TypeError, AttributeError, KeyError) as error:
        raise InputError(f"{path}: unusable values ({error}): download it again") from error


def unet_fields(values: dict, where: str) -> dict:
    """Fields of `config.model` from a UNet's config.json; what is absent is Stable Diffusion 1.5's.

    Raises:
      InputError: a value that our UNet cannot have.
    """
    _check_fixed(values, _UNET_FIXED, where)
    channels = tuple(values.get("block_out_channels", (320, 640, 1280, 1280)))
    down = values.get("down_block_types", ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"])
    up = values.get("up_block_types", [kind.replace("Down", "Up") for kind in reversed(down)])
    attention = ["CrossAttn" in kind for kind in down]
    if len(down) != len(channels) or attention[::-1] != ["CrossAttn" in kind for kind in up]:
        raise InputError(
            f"{where}: down_block_types {down} and up_block_types {up} do not mirror each other"
        )
    inputs, outputs = values.get("in_channels", 4), values.get("out_channels", 4)
    if inputs != outputs:
        raise InputError(
            f"{where}: in_channels {inputs}, out_channels {outputs}: only plain denoisers fit, not "
            "those for inpainting or depth"
        )
    # Each layer's number of heads is called attention_head_dim for historical reasons.
    heads = values.get("num_attention_heads") or values.get("attention_head_dim") or 8
    fields = {
        "channels": channels,
        "layers_per_block": _one(values, "layers_per_block", 2, where),
        "attention_levels": tuple(level for level, has in enumerate(attention) if has),
        "heads": _one({"attention_head_dim": heads}, "attention_head_dim", 8, where),
        "context_dim": _one(values, "cross_attention_dim", 768, where),
        "norm_groups": values.get("norm_num_groups", 32),
        "latent_channels": inputs,
    }
    if values.get("sample_size"):
        fields["latent_size"] = _one(values, "sample_size", 64, where)
    return fields


def _unet(values: dict, weights: dict[str, Stored], folder: Path) -> tuple[dict, dict]:
    fields = unet_fields(values, f"{folder / 'config.json'}")
    return fields, {network: dict(weights) for network in UNETS}


def _motion_unet(values: dict, weights: dict[str, Stored], folder: Path) -> tuple[dict, dict]:
    fields, networks = _unet(values, weights, folder)
    fields |= motion_fields(_motion(weights), values.get("motion_num_attention_heads", 8))
    for other in UNETS[1:]:
        networks[other] = rename(weights, [(r"motion_modules", None)])
    return fields, networks


def _motion_adapter(values: dict, weights: dict[str, Stored], folder: Path) -> tuple[dict, dict]:
    fields = motion_fields(_motion(weights), values.get("motion_num_attention_heads", 8))
    if "motion_norm_num_groups" in values:
        fields["norm_groups"] = values["motion_norm_num_groups"]
    return fields, {"denoiser": weights}


def _motion(weights: dict[str, Stored]) -> dict[str, Stored]:
    return {key: stored for key, stored in weights.items() if "motion_modules" in key}


def _vae(values: dict, weights: dict[str, Stored], folder: Path) -> tuple[dict, dict]:
    where, quant = f"{folder / 'config.json'}", values.get("use_quant_conv", True)
    # Both convolutions or none.
    _check_fixed(values, _VAE_FIXED | {"use_post_quant_conv": quant}, where)
    shape = {
        "block_out_channels": tuple(values.get("block_out_channels", (128, 256, 512, 512))),
        "layers_per_block": values.get("layers_per_block", 2),
        "latent_channels": values.get("latent_channels", 4),
        "norm_groups": values.get("norm_num_groups", 32),
        "scaling": values.get("scaling_factor", 0.18215),
        "shift": values.get("shift_factor") or 0.0,
        "quant_convs": quant,
    }
    return {"kl": shape}, {"autoencoder": rename(weights, _VAE)}


def _clip(values: dict, weights: dict[str, Stored], folder: Path) -> tuple[dict, dict]:
    # A whole CLIP nests it, but for the size of the projection that both halves share.
    # transformers leaves out what has the default of CLIPVisionConfig.
    projection = {"projection_dim": values.get("projection_dim", 512)}
    values = values.get("vision_config", values) | projection
    _check_fixed(values, _CLIP_FIXED, f"{folder / 'config.json'}")
    shape = {
        "hidden_size": values.get("hidden_size", 768),
        "intermediate_size": values.get("intermediate_size", 3072),
        "layers": values.get("num_hidden_layers", 12),
        "heads": values.get("num_attention_heads", 12),
        "image_size": values.get("image_size", 224),
        "patch_size": values.get("patch_size", 32),
        "projection_dim": values["projection_dim"],
    }
    return {"clip": shape}, {"clip": rename(weights, _CLIP)}


_READERS = {
    "UNet2DConditionModel": _unet,
    "UNetMotionModel": _motion_unet,
    "AutoencoderKL": _vae,
    "CLIPVisionModelWithProjection": _clip,
    "CLIPModel": _clip,
    "MotionAdapter": _motion_adapter,
    "SD3Transformer2DModel": sd3.read,
}


def _read_export(path: Path) -> Source:
    """Every network of an export, under its own name; the keys added for diffusers go."""
    manifest = read_manifest(path)
    weights = {}
    for network, entry in manifest[EXPORT].items():
        tensors = open_folder(path / entry["folder"])
        added = set(entry["added"])
        if not added <= tensors.keys():
            key = sorted(added - tensors.keys())[0]
            raise InputError(f"{path / entry['folder']}: {key} is missing: export it again")
        weights[network] = {key: tensors[key] for key in tensors.keys() - added}
    config = manifest["config"]
    settings = {name: value for name, value in config.items() if name != "model"}
    fields = {name: value for name, value in config["model"].items() if name != "references"}
    return Source(str(path), fields, weights, settings, system_name(config))


def _check_fixed(values: dict, fixed: dict, where: str) -> None:
    for name, value in fixed.items():
        if values.get(name, value) not in (
            value,
            [value] * len(values.get("block_out_channels", [])),
        ):
            raise InputError(f"{where}: {name} is {values[name]!r}; only {value!r} is supported")


def _one(values: dict, name: str, default: int, where: str) -> int:
    """A value that may be given per level, but must be the same for all."""
    value = values.get(name, default)
    several = set(value) if isinstance(value, list | tuple) else {value}
    if len(several) != 1 or not isinstance(one := several.pop(), int):
        raise InputError(f"{where}: {name} is {value!r}; only one whole number for all levels fits")
    return one
