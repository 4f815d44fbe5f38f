"""Moore-AnimateAnyone: a folder of denoising_unet.pth, reference_unet.pth and pose_guider.pth.

With motion_module.pth, or motion modules inside denoising_unet.pth, it animates clips. The result
is of the system animate_anyone. config.json, if there, gives other sizes than those of Stable
Diffusion 1.5, with the field names of diffusers. Its autoencoder and CLIP lie elsewhere: they come
with `--from diffusers`.
"""

from pathlib import Path

from durian_jax.convert.names import rename
from durian_jax.convert.source import Source
from durian_jax.convert.sources.animatediff import MOTION, motion_fields
from durian_jax.convert.sources.diffusers import plain_values, unet_fields
from durian_jax.convert.sources.files import open_weights, read_json
from durian_jax.weights.storage import Stored
from input_pipeline.errors import InputError

# What its trainer samples with: rescaled to zero terminal SNR, v-prediction, trailing steps.
DIFFUSION = {"prediction": "v", "zero_terminal_snr": True}


def read(path: Path) -> Source:
    """A folder as above. Raises InputError: a file is missing or damaged, or a bad config.json."""
    path = Path(path)
    if not path.is_dir():
        raise InputError(f"{path}: no such folder: give the one with denoising_unet.pth")
    config, values = path / "config.json", {}
    if config.is_file():
        values = read_json(config)
    family = values.get("_class_name", "UNet3DConditionModel")
    if not (path / "denoising_unet.pth").is_file() and "_class_name" in values:
        raise InputError(f"{config}: a {family} folder, not Moore's: it has no denoising_unet.pth")
    with plain_values(config):
        fields = unet_fields(values, str(config)) | {"arcface": None}
    denoiser = rename(open_weights(path / "denoising_unet.pth"), MOTION)
    reference = open_weights(path / "reference_unet.pth")
    guider = open_weights(path / "pose_guider.pth")
    inside = {key for key in denoiser if "motion_modules" in key}
    if (path / "motion_module.pth").is_file():
        beside = rename(open_weights(path / "motion_module.pth"), MOTION)
        if inside:
            # Animate Anyone's scripts load motion_module.pth first and let the other overwrite it.
            print(f"note: {path}: motion modules of denoising_unet.pth, not of motion_module.pth")
        else:
            denoiser = beside | denoiser
    motion = {key: stored for key, stored in denoiser.items() if "motion_modules" in key}
    if motion:
        inferred = motion_fields(motion, values.get("motion_num_attention_heads", 8))
        # The UNet's own keys say how wide it is; those of a misfit are named one by one later.
        fields |= {
            name: inferred[name]
            for name in inferred
            if name not in ("channels", "layers_per_block")
        }
    fields["keypoint_channels"] = _guider_channels(guider, path)
    weights = {"denoiser": denoiser, "portrait_encoder": reference, "keypoint_encoder": guider}
    return Source(str(path), fields, weights, {"diffusion": DIFFUSION}, "animate_anyone")


def _guider_channels(guider: dict[str, Stored], path: Path) -> tuple[int, ...]:
    """Channels of the stem and after each stride-2 convolution, every other block."""
    try:
        channels = [guider["conv_in.weight"].shape[0]]
        while (key := f"blocks.{2 * len(channels) - 1}.weight") in guider:
            channels.append(guider[key].shape[0])
    except (KeyError, IndexError):
        raise InputError(f"{path / 'pose_guider.pth'}: conv_in.weight is missing") from None
    return tuple(channels)
