"""Folders and files as diffusers, transformers and Animate Anyone write them, without torch.

Key names, shapes and config.json are those of the real libraries, from the fixtures; `write_torch`
writes the zip archive of `torch.save` (a test reads one that torch itself wrote, too).
"""

import json
import re
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from durian_jax.convert.archive import write_torch
from durian_jax.models.temporal import frame_positions
from tests.parity import drawn

FIXTURES = Path(__file__).parent / "fixtures"
KEYS = json.loads((FIXTURES / "keys.json").read_text())
# The networks of the two-reference model and where an export has them.
EXPORT = {
    "denoiser": "denoiser", "portrait_encoder": "portrait_encoder",
    "attribute_encoder": "attribute_encoder", "autoencoder": "vae", "clip": "image_encoder",
    "keypoint_encoder": "keypoint_encoder", "face_projection": "face_projection",
    "arcface": "arcface",
}  # fmt: skip


def tensors(network: str, seed: str = "") -> dict[str, np.ndarray]:
    """Torch key -> weights of a network of the fixtures, as PyTorch drew them."""
    found = {}
    for key, shape in KEYS[network].items():
        if key.endswith("pos_embed.pe"):
            found[key] = frame_positions(shape[1], shape[2])[None]
        elif key.endswith("num_batches_tracked"):
            found[key] = np.array(0, np.int64)
        else:
            found[key] = drawn.tensor(f"{seed or network}/{key}", tuple(shape))
    return found


def animatediff(weights: dict[str, np.ndarray], frames: int) -> dict[str, np.ndarray]:
    """Motion modules under the names of AnimateDiff and Animate Anyone, each attention with its
    table of positions; other keys stay."""
    found = {}
    for key, array in weights.items():
        if "motion_modules" not in key:
            found[key] = array
            continue
        if key.endswith(".pe"):
            continue
        key = re.sub(r"(motion_modules\.\d+)\.", r"\1.temporal_transformer.", key)
        for number in (1, 2):
            ours, theirs = f".attn{number}.", f".attention_blocks.{number - 1}."
            if f"{ours}to_q" in key:
                table = f"{key.split(ours)[0]}{theirs}pos_encoder.pe"
                found[table] = frame_positions(frames, len(array))[None]
            key = key.replace(ours, theirs).replace(f".norm{number}.", f".norms.{number - 1}.")
        found[key.replace(".norm3.", ".ff_norm.")] = array
    return found


def write_moore(root: Path) -> Path:
    """The single-reference model of the fixtures as Animate Anyone's folder."""
    root.mkdir(parents=True)
    (root / "config.json").write_text(json.dumps(config("denoiser") | {"_class_name": None}))
    denoiser = {k: v for k, v in tensors("denoiser").items() if not k.endswith(".pe")}
    reference = {
        key: drawn.tensor(f"moore_reference/{key}", tuple(shape))
        for key, shape in KEYS["unet"].items()
        if not key.startswith(("conv_norm_out.", "conv_out."))
    }
    write_torch(root / "denoising_unet.pth", animatediff(denoiser, 8))
    write_torch(root / "reference_unet.pth", reference)
    write_torch(root / "pose_guider.pth", tensors("keypoint_encoder"))
    return root


def config(network: str) -> dict:
    """The config.json that goes with it; {} where no library has one."""
    path = FIXTURES / f"{network}.config.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def write_model(folder: Path, network: str, weights: dict[str, np.ndarray] | None = None) -> Path:
    """A model folder: config.json and safetensors."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config(network)))
    name = "model" if network == "clip" else "diffusion_pytorch_model"
    save_file(tensors(network) if weights is None else weights, folder / f"{name}.safetensors")
    return folder
