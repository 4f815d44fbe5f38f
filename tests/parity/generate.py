"""Writes tests/parity/fixtures: what PyTorch computes with weights that both sides can draw.

    pip install -e '.[torch]' && python -m tests.parity.generate

Needs torch, diffusers and transformers, at the versions that `fixtures/versions.json` names or
newer ones. Run it again when a network, `drawn.py` or `reference.py` changes; the tests say what
differs. Weights are not stored: `drawn.py` makes them from their names. Stored are, for each model,
the config.json and the key names that `save_pretrained` writes, and the outputs.
"""

import json
import tempfile
from pathlib import Path

import diffusers
import numpy as np
import safetensors
import torch
import transformers
from safetensors.numpy import save_file

from tests.parity import drawn, reference

FIXTURES = Path(__file__).parent / "fixtures"
CHANNELS, HEADS, GROUPS, CONTEXT, LATENT = (12, 24), 3, 4, 10, 4
SIZE, FACTOR, CLIPS, FRAMES, ATTRIBUTES = 16, 2, 2, 3, 2
STEPS, GUIDANCE = 4, 2.0
SCHEDULE = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "rescale_betas_zero_snr": True, "timestep_spacing": "trailing",
    "prediction_type": "v_prediction",
}  # fmt: skip
UNET = {
    "sample_size": SIZE // FACTOR, "block_out_channels": CHANNELS, "layers_per_block": 1,
    "norm_num_groups": GROUPS, "cross_attention_dim": CONTEXT, "in_channels": LATENT,
    "out_channels": LATENT,
}  # fmt: skip
FLAT = {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"), "attention_head_dim": HEADS,
}  # fmt: skip
MOTION = {
    "down_block_types": ("CrossAttnDownBlockMotion", "DownBlockMotion"),
    "up_block_types": ("UpBlockMotion", "CrossAttnUpBlockMotion"), "num_attention_heads": HEADS,
    "motion_num_attention_heads": 2, "motion_max_seq_length": 8,
}  # fmt: skip


def models() -> dict[str, torch.nn.Module]:
    """All networks of the two-reference model, and a ControlNet, with drawn weights."""
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 12), layers_per_block=1, latent_channels=LATENT, norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        scaling_factor=0.3, sample_size=SIZE,
    )  # fmt: skip
    clip = transformers.CLIPVisionModelWithProjection(
        transformers.CLIPVisionConfig(
            hidden_size=16, intermediate_size=24, projection_dim=CONTEXT, num_hidden_layers=2,
            num_attention_heads=2, image_size=SIZE, patch_size=4,
        )
    )  # fmt: skip
    controlnet = diffusers.ControlNetModel(
        block_out_channels=CHANNELS, layers_per_block=1, norm_num_groups=GROUPS,
        cross_attention_dim=CONTEXT, attention_head_dim=HEADS,
        down_block_types=FLAT["down_block_types"], conditioning_embedding_out_channels=(5, 9),
    )  # fmt: skip
    encoder = UNET | FLAT | {"in_channels": LATENT + 1}
    found = {
        "autoencoder": vae,
        "clip": clip,
        "controlnet": controlnet,
        "unet": diffusers.UNet2DConditionModel(**UNET | FLAT),
        "denoiser": diffusers.UNetMotionModel(**UNET | MOTION),
        "portrait_encoder": diffusers.UNet2DConditionModel(**encoder),
        "attribute_encoder": diffusers.UNet2DConditionModel(**encoder),
        "keypoint_encoder": reference.KeypointEncoder((5, 9), CHANNELS[0]),
        "face_projection": reference.FaceProjection(14, CONTEXT),
        "arcface": reference.IResNet([2, 1], [6, 10], SIZE, 14),
    }
    for name, model in found.items():
        fill(name, model)
    return found


def fill(name: str, model: torch.nn.Module) -> None:
    """Gives every parameter and statistic its drawn value."""
    model.eval().requires_grad_(False)
    tensors = dict(model.named_parameters())
    tensors |= {key: value for key, value in model.named_buffers() if "running_" in key}
    for key, tensor in tensors.items():
        tensor.data.copy_(torch.from_numpy(drawn.tensor(f"{name}/{key}", tuple(tensor.shape))))


def describe(name: str, model: torch.nn.Module) -> dict[str, list[int]]:
    """Writes the config.json that the library saves; returns the keys and shapes of its file."""
    if not hasattr(model, "save_pretrained"):
        return {key: list(value.shape) for key, value in model.state_dict().items()}
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        config = json.loads((Path(folder) / "config.json").read_text())
        (FIXTURES / f"{name}.config.json").write_text(json.dumps(config, indent=1) + "\n")
        with safetensors.safe_open(next(Path(folder).glob("*.safetensors")), "np") as file:
            return {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118


def scene() -> dict[str, np.ndarray]:
    """Inputs: the batch contract, keypoint pictures in [0, 1], and noise; channels last."""
    square = (SIZE, SIZE)
    latent = (CLIPS, FRAMES, SIZE // FACTOR, SIZE // FACTOR, LATENT)
    return {
        "portrait": drawn.picture("portrait", (CLIPS, *square, 3)),
        "portrait_mask": drawn.picture("portrait_mask", (CLIPS, *square)) > 128,
        "attribute": drawn.picture("attribute", (CLIPS, ATTRIBUTES, *square, 3)),
        "attribute_mask": drawn.picture("attribute_mask", (CLIPS, ATTRIBUTES, *square)) > 128,
        "face": drawn.picture("face", (CLIPS, *square, 3)),
        "keypoint_pictures": (drawn.numbers("kp", (CLIPS, FRAMES, *square, 3)) + 1) / 2,
        "noise": 1.7 * drawn.numbers("noise", latent),
    }


def first(array: np.ndarray) -> torch.Tensor:
    """Channels-last array -> channels-first float32 tensor."""
    return torch.from_numpy(np.moveaxis(np.asarray(array, np.float32), -1, -3).copy())


def last(tensor: torch.Tensor) -> np.ndarray:
    """Channels-first tensor -> channels-last array."""
    return np.moveaxis(tensor.numpy(), -3, -1).copy()


def signed(pictures: np.ndarray) -> torch.Tensor:
    return first(pictures) / 127.5 - 1


class TwoReferences:
    """The whole of Durian: conditions once, then a denoiser to call at any step."""

    def __init__(self, nets: dict[str, torch.nn.Module], batch: dict[str, np.ndarray]):
        self.nets = nets
        portrait = self.masked(batch["portrait"], batch["portrait_mask"])
        attribute = batch["attribute"].reshape(-1, *batch["attribute"].shape[2:])
        mask = batch["attribute_mask"].reshape(-1, *batch["attribute_mask"].shape[2:])
        identity = nets["face_projection"](nets["arcface"](signed(batch["face"])))
        look = self.look(attribute)
        one = reference.capture(nets["portrait_encoder"], portrait, identity)
        many = reference.capture(
            nets["attribute_encoder"], self.masked(attribute, mask), look[:, None]
        )
        clips = len(portrait)
        self.context = look.unflatten(0, (clips, -1))
        self.banks = [
            torch.cat([a, b.unflatten(0, (clips, -1)).flatten(1, 2)], dim=1)
            for a, b in zip(one, many, strict=True)
        ]
        pictures = first(batch["keypoint_pictures"])
        self.features = nets["keypoint_encoder"](pictures.flatten(0, 1))

    def look(self, pictures: np.ndarray) -> torch.Tensor:
        mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
        std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
        return self.nets["clip"]((first(pictures) / 255 - mean) / std).image_embeds

    def latents(self, pictures: np.ndarray) -> torch.Tensor:
        vae = self.nets["autoencoder"]
        return vae.encode(signed(pictures)).latent_dist.mean * vae.config.scaling_factor

    def masked(self, pictures: np.ndarray, masks: np.ndarray) -> torch.Tensor:
        small = torch.nn.functional.avg_pool2d(torch.from_numpy(masks).float()[:, None], FACTOR)
        return torch.cat([self.latents(pictures), small], dim=1)

    def __call__(self, noisy: torch.Tensor, t: int, guided: bool = True) -> torch.Tensor:
        """One evaluation; noisy [B, F, c, h, w]. Unguided: no references, a zero context."""
        denoiser, frames = self.nets["denoiser"], noisy.shape[1]
        context = self.context if guided else torch.zeros_like(self.context[:, :1])
        banks = self.banks if guided else None
        add = reference.adding(denoiser.conv_in, self.features)
        with add, reference.reading(denoiser, banks):
            if isinstance(denoiser, diffusers.UNetMotionModel):
                context = context.repeat_interleave(frames, 0)
                return denoiser(noisy.transpose(1, 2), t, context).sample.transpose(1, 2)
            folded = noisy.flatten(0, 1)
            context = context.repeat_interleave(frames, 0)
            return denoiser(folded, t, context).sample.unflatten(0, noisy.shape[:2])

    def sample(self, scheduler, noise: torch.Tensor, guidance: float) -> torch.Tensor:
        """Latents after the scheduler's steps."""
        for t in scheduler.timesteps:
            with_, without = self(noise, t), self(noise, t, guided=False)
            prediction = without + guidance * (with_ - without)
            noise = scheduler.step(prediction, t, noise).prev_sample
        return noise


def stand_in(noisy: torch.Tensor, t) -> torch.Tensor:
    """A smooth model for schedulers alone; sampler tests have the same."""
    angle = float(t) / 250
    return 0.7 * torch.sin(noisy + angle) - 0.2 * noisy * np.cos(angle)


def schedulers() -> dict[str, np.ndarray]:
    """End points of trajectories on the stand-in; float64."""
    start = torch.from_numpy(1.7 * drawn.numbers("start", (3, 5)))
    found = {}
    common = dict(SCHEDULE)
    for name, scheduler in {
        "ddim": diffusers.DDIMScheduler(**common, clip_sample=False),
        "dpm": diffusers.DPMSolverMultistepScheduler(**common, final_sigmas_type="zero"),
        "ddim_eps": diffusers.DDIMScheduler(
            **common | {"rescale_betas_zero_snr": False, "prediction_type": "epsilon"},
            clip_sample=False,
        ),
        "dpm_eps": diffusers.DPMSolverMultistepScheduler(
            **common | {"rescale_betas_zero_snr": False, "prediction_type": "epsilon"},
            final_sigmas_type="zero",
        ),
    }.items():
        for steps in (4, 10, 25):
            scheduler.set_timesteps(steps)
            x = start.clone()
            for t in scheduler.timesteps:
                x = scheduler.step(stand_in(x, t), t, x).prev_sample
            found[f"schedulers/{name}_{steps}"] = x.numpy()
            found[f"schedulers/{name}_{steps}_timesteps"] = scheduler.timesteps.numpy()
    return found


def attention(outputs: dict[str, np.ndarray]) -> None:
    """One self-attention with 0 to 3 references."""
    layer = diffusers.models.attention_processor.Attention(12, heads=3, dim_head=4)
    fill("attention", layer)
    tokens = torch.from_numpy(drawn.numbers("tokens", (4, 6, 12))).float()
    bank = torch.from_numpy(drawn.numbers("bank", (2, 18, 12))).float()
    for count in range(4):
        layer.set_processor(reference.Attend(bank[:, : 6 * count] if count else None))
        outputs[f"attention/{count}"] = layer(tokens).numpy()


def single_reference(nets: dict[str, torch.nn.Module], batch: dict, t: int) -> np.ndarray:
    """Animate Anyone: one encoder of the whole portrait, one CLIP token, motion modules."""
    whole = TwoReferences(nets, batch)
    look = whole.look(batch["portrait"])[:, None]
    whole.banks = reference.capture(nets["moore_reference"], whole.latents(batch["portrait"]), look)
    whole.context = look
    return last(whole(first(batch["noise"]), t))


@torch.no_grad()
def main() -> None:
    FIXTURES.mkdir(exist_ok=True)
    nets, batch = models(), scene()
    keys = {name: describe(name, model) for name, model in nets.items()}
    outputs: dict[str, np.ndarray] = {}

    vae = nets["autoencoder"]
    posterior = vae.encode(signed(batch["portrait"])).latent_dist
    outputs["autoencoder/mean"] = last(posterior.mean)
    outputs["autoencoder/logvar"] = last(posterior.logvar)
    latents = first(batch["noise"])
    outputs["autoencoder/decoded"] = last(vae.decode(latents[:, 0] / 0.3).sample)

    noisy = latents.flatten(0, 1)
    times = torch.tensor([40, 40, 40, 900, 900, 900])
    context = torch.from_numpy(drawn.numbers("context", (CLIPS * FRAMES, 2, CONTEXT))).float()
    outputs["unet/sample"] = last(nets["unet"](noisy, times, context).sample)
    for site, tokens in enumerate(reference.capture(nets["unet"], noisy, context)):
        outputs[f"unet/site_{site}"] = tokens.numpy()
    clip_last = latents.transpose(1, 2)
    pooled = nets["denoiser"](clip_last, 500, context).sample.transpose(1, 2)
    outputs["denoiser/pooled"] = last(pooled)
    reference.normalise_per_frame(nets["denoiser"])
    per_frame = nets["denoiser"](clip_last, 500, context).sample.transpose(1, 2)
    outputs["denoiser/per_frame"] = last(per_frame)
    attention(outputs)
    pictures = first(batch["keypoint_pictures"]).flatten(0, 1)
    outputs["keypoint_encoder"] = last(nets["keypoint_encoder"](pictures))
    # A frame of either clip, so that the time steps differ.
    some = noisy[2:4], times[2:4], context[2:4]
    down, middle = nets["controlnet"](*some, pictures[2:4], return_dict=False)
    for site, residual in enumerate([*down, middle]):
        outputs[f"control/residual_{site}"] = last(residual)
    outputs["control/sample"] = last(
        nets["unet"](
            *some,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
        ).sample
    )
    outputs["arcface"] = nets["arcface"](signed(batch["face"])).numpy()

    whole = TwoReferences(nets, batch)
    outputs["clip"] = whole.context.numpy()
    for site, bank in enumerate(whole.banks):
        outputs[f"durian/bank_{site}"] = bank.numpy()
    outputs["durian/denoised"] = last(whole(latents, 500))
    scheduler = diffusers.DDIMScheduler(**SCHEDULE, clip_sample=False)
    scheduler.set_timesteps(STEPS)
    final = whole.sample(scheduler, latents, GUIDANCE)
    outputs["durian/latents"] = last(final)
    decoded = vae.decode(final.flatten(0, 1) / vae.config.scaling_factor).sample
    outputs["durian/video"] = last(decoded.unflatten(0, (CLIPS, FRAMES)))

    nets["moore_reference"] = diffusers.UNet2DConditionModel(**UNET | FLAT)
    fill("moore_reference", nets["moore_reference"])
    outputs["moore/denoised"] = single_reference(nets, batch, 300)
    outputs |= schedulers()

    # Folds normalisations into convolutions, as InsightFace's own exports did.
    torch.onnx.export(
        reference.Unscaled(nets["arcface"]), (torch.zeros(1, 3, SIZE, SIZE),),
        FIXTURES / "arcface.onnx", input_names=["input.1"], opset_version=17, dynamo=False,
    )  # fmt: skip

    # A file of torch's own: types, a view, a parameter, a wrapper, what trainers add.
    numbers = torch.arange(12.0).reshape(3, 4)
    state = {
        "plain": numbers, "turned": numbers.T, "part": numbers[1:, 2:], "half": numbers.half(),
        "bfloat": numbers.bfloat16(), "parameter": torch.nn.Parameter(numbers),
        "count": torch.tensor(7),
    }  # fmt: skip
    torch.save({"state_dict": state, "epoch": 3}, FIXTURES / "torch.pth")

    versions = {p.__name__: p.__version__ for p in (torch, diffusers, transformers)}
    (FIXTURES / "versions.json").write_text(json.dumps(versions, indent=1) + "\n")
    (FIXTURES / "keys.json").write_text(json.dumps(keys, separators=(",", ":")) + "\n")
    save_file(
        {k: np.ascontiguousarray(v) for k, v in outputs.items()}, FIXTURES / "outputs.safetensors"
    )
    print(*(f"{p.name}: {p.stat().st_size}" for p in sorted(FIXTURES.iterdir())), sep="\n")


if __name__ == "__main__":
    main()
