"""The model card of an export: README.md for the hub."""

from pathlib import Path

from durian_jax.convert.importer import Joined

_CARD = """---
library_name: durian_jax
pipeline_tag: image-to-video
tags: [portrait-animation, diffusion, jax]
---

# Durian weights

Portrait animation with attribute transfer: *Durian*, ICLR 2026, arXiv 2509.04434, in the public
implementation durian_jax. Exported from `{source}`, {weights} weights, float32.

| | |
|---|---|
| picture size | {size} px |
| references | {references} |
| motion modules | {motion} |
| prediction | {prediction} |

## Files

{files}

`durian.json` holds the whole config, the SHA-256 of every file, and which tensors were added so
that diffusers' classes load; durian_jax drops those again.

## Use

In durian_jax:

    durian convert --from diffusers --source THIS_FOLDER --out CKPT
    durian animate --portrait me.jpg{attribute} --driving talk.mp4 \\
        --checkpoint CKPT --out out.mp4

In PyTorch, network by network:

    from diffusers import AutoencoderKL, {unets}
    denoiser = {denoiser}.from_pretrained("THIS_FOLDER/denoiser")
    portrait_encoder = UNet2DConditionModel.from_pretrained("THIS_FOLDER/portrait_encoder")

The reference encoders run once at time step 0; the tokens that enter each of their self-attentions
are read by the denoiser's self-attention at the same place, beside its own. `tests/parity` of
durian_jax has the whole forward pass in diffusers and attention processors.
{norm}
## Training data

{data}

## Scores

Not measured by this export. `durian evaluate` measures them.

## Licence

That of the weights it was made from and of the data it was trained on; name them here before you
share. Animate only people who agreed to it, and say that the result is generated.
"""

_NORM = """
Motion modules normalise every frame by itself, as the code does that AnimateDiff's weights come
from. diffusers' UNetMotionModel pools the statistics over the frames; wrap
`motion_modules.*.norm` to see one frame at a time for the same numbers.
"""


def text(joined: Joined, source: Path, ema: bool, files: list[str]) -> str:
    """The card. `files` are those of the export."""
    model, diffusion = joined.config["model"], joined.config["diffusion"]
    temporal, single = model["temporal"], "attribute_encoder" not in joined.networks
    denoiser = "UNetMotionModel" if temporal else "UNet2DConditionModel"
    zero = ", zero terminal SNR" if diffusion["zero_terminal_snr"] else ""
    data = Path(joined.config.get("data", {}).get("path", "")).name
    return _CARD.format(
        source=source,
        weights="averaged" if ema else "raw",
        size=model["resolution"],
        references="one, whole" if single else "portrait and attributes, masked",
        motion=f"up to {model['max_frames']} frames" if temporal else "none: single frames",
        prediction=diffusion["prediction"] + zero,
        files="\n".join(f"    {file}" for file in files),
        attribute="" if single else " --attribute her.jpg:hair",
        unets="UNet2DConditionModel" + (", UNetMotionModel" if temporal else ""),
        denoiser=denoiser,
        norm=_NORM if temporal and model["temporal_norm"] == "frame" else "",
        data=f"Data set `{data}`." if data else "Not recorded: these weights were converted.",
    )
