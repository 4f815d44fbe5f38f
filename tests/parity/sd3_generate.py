"""Writes fixtures/sd3*: what diffusers computes of Stable Diffusion 3's parts, in small.

    pip install -e '.[torch]' && python -m tests.parity.sd3_generate

Weights are drawn by name, see `drawn`; stored are config.json, keys and outputs.
"""

import json

import diffusers
import numpy as np
import torch
from safetensors.numpy import save_file

from tests.parity import drawn
from tests.parity.generate import FIXTURES, describe, fill, first, last, stand_in

SHAPE = {
    "sample_size": 8, "patch_size": 2, "in_channels": 5, "out_channels": 5, "num_layers": 3,
    "attention_head_dim": 8, "num_attention_heads": 3, "joint_attention_dim": 10,
    "caption_projection_dim": 24, "pooled_projection_dim": 6, "pos_embed_max_size": 24,
}  # fmt: skip
STEPS = (4, 10, 40)


def models() -> dict[str, torch.nn.Module]:
    """A transformer as that of 3.5 Medium, one as that of 3 Medium, an autoencoder."""
    found = {
        "sd3_transformer": diffusers.SD3Transformer2DModel(
            **SHAPE, dual_attention_layers=(0, 1), qk_norm="rms_norm"
        ),
        "sd3_plain": diffusers.SD3Transformer2DModel(**SHAPE),
        "sd3_vae": diffusers.AutoencoderKL(
            block_out_channels=(8, 12), layers_per_block=1, latent_channels=5, norm_num_groups=4,
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
            scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False,
            use_post_quant_conv=False, sample_size=16,
        ),
    }  # fmt: skip
    for name, model in found.items():
        fill(name, model)
    return found


@torch.no_grad()
def main() -> None:
    nets = models()
    keys = {name: describe(name, model) for name, model in nets.items()}
    # The table of positions is a buffer: computed, not drawn.
    outputs = {"positions": nets["sd3_transformer"].pos_embed.pos_embed.numpy()}
    noisy = first(1.7 * drawn.numbers("sd3_noise", (4, 6, 8, 5)))
    context = torch.from_numpy(drawn.numbers("sd3_context", (4, 7, 10))).float()
    pooled = torch.from_numpy(drawn.numbers("sd3_pooled", (4, 6))).float()
    times = torch.tensor([12.5, 400.0, 400.0, 1000.0])
    for name in ("sd3_transformer", "sd3_plain"):
        outputs[name] = last(nets[name](noisy, context, pooled, times).sample)
    vae = nets["sd3_vae"]
    pictures = first(drawn.numbers("sd3_pictures", (2, 16, 16, 3)))
    mean = vae.encode(pictures).latent_dist.mean
    latents = (mean - vae.config.shift_factor) * vae.config.scaling_factor
    outputs["sd3_latents"] = last(latents)
    decoded = vae.decode(noisy / vae.config.scaling_factor + vae.config.shift_factor).sample
    outputs["sd3_decoded"] = last(decoded)
    start = torch.from_numpy(1.7 * drawn.numbers("start", (3, 5)))
    for steps in STEPS:
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
        scheduler.set_timesteps(steps)
        x, trace = start.clone(), []
        for t in scheduler.timesteps:
            x = scheduler.step(stand_in(x, t), t, x).prev_sample
            trace.append(x.numpy())
        outputs[f"euler_{steps}"] = np.stack(trace)
        outputs[f"euler_{steps}_timesteps"] = scheduler.timesteps.numpy()
    (FIXTURES / "sd3_keys.json").write_text(json.dumps(keys, separators=(",", ":")) + "\n")
    save_file(
        {k: np.ascontiguousarray(v, np.float32) for k, v in outputs.items()},
        FIXTURES / "sd3.safetensors",
    )
    print(*(f"{p.name}: {p.stat().st_size}" for p in sorted(FIXTURES.glob("sd3*"))), sep="\n")


if __name__ == "__main__":
    main()
