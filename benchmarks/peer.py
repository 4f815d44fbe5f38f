"""Durian in PyTorch as such models are usually written: what ours is measured against.

diffusers' networks with our weights, taken through the exporter of `durian convert`. Attention is
`scaled_dot_product_attention`. References are read as Animate Anyone's code reads them: their
features, copied to every frame, join the tokens before the key and value projections, at every step
and layer. Guidance runs both halves as one batch; all of it reads the references, then the
unconditional half is attended once more without them, and what was first computed for it is
dropped.
"""

import copy
import tempfile
from pathlib import Path

import diffusers
import numpy as np
import torch
import transformers
from safetensors.torch import load_file
from torch.nn import functional

from durian_jax.convert import exporter
from durian_jax.systems.durian.config import DurianConfig
from durian_jax.weights import storage
from tests.parity import reference

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class Guided(reference.Attend):
    """Attention processor of a guided batch, its first half unconditional."""

    def __call__(self, attn, hidden_states, *_, **__):
        mixed = super().__call__(attn, hidden_states)
        half = len(hidden_states) // 2
        alone = reference.Attend()(attn, hidden_states[:half])
        return torch.cat([alone, mixed[half:]])


class Peer:
    """All networks, and what is called of them. Tensors are channels first, pictures [0, 255]."""

    def __init__(self, config, params: dict, device: str = "cpu"):
        """config: of `scene.load_config`; params: our tree; device: "cpu" or "cuda"."""
        self.model = DurianConfig.from_dict(config.model.to_dict())
        self.dtype, self.device = getattr(torch, self.model.dtype), device
        with tempfile.TemporaryDirectory() as folder:
            self.nets = _load(config, params, Path(folder), self.model)
        for net in self.nets.values():
            # Masters stay float32 where it computes in bfloat16, as ours; see `autocast`.
            net.to(device).eval().requires_grad_(False)
            if device == "cuda":
                net.to(memory_format=torch.channels_last)
        reference.normalise_per_frame(self.nets["denoiser"])

    def half(self) -> "Peer":
        """Weights in the compute dtype, as one samples."""
        for net in self.nets.values():
            net.to(self.dtype)
        return self

    def compile(self) -> "Peer":
        """The same weights with torch.compile of the denoiser; this one stays as it is."""
        compiled = copy.copy(self)
        compiled.nets = self.nets | {"denoiser": torch.compile(self.nets["denoiser"])}
        return compiled

    def autocast(self):
        """For training; does nothing in float32."""
        kind = self.device.split(":")[0]
        return torch.autocast(kind, self.dtype, enabled=self.dtype != torch.float32)

    def tensor(self, array) -> torch.Tensor:
        """Channels-last array -> float32 tensor, channels first."""
        array = np.moveaxis(np.asarray(array, np.float32), -1, -3)
        return torch.from_numpy(array.copy()).to(self.device)

    def inputs(self, batch: dict, keypoint_pictures) -> dict[str, torch.Tensor]:
        """The batch contract with one attribute a clip, moved over."""
        found = {
            name: self.tensor(batch[name]) for name in ("video", "portrait", "attribute", "face")
        }
        for name in ("portrait_mask", "attribute_mask"):
            found[name] = torch.from_numpy(np.asarray(batch[name], np.float32)).to(self.device)
        return found | {"keypoint_pictures": self.tensor(keypoint_pictures)}

    def latents(self, pictures: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        """[b, 3, H, W] -> [b, c, h, w]: the mean, or a sample by `noise`."""
        vae = self.nets["autoencoder"]
        posterior = vae.encode((pictures / 127.5 - 1).to(vae.dtype)).latent_dist
        latents = posterior.mean if noise is None else posterior.mean + posterior.std * noise
        return latents * vae.config.scaling_factor

    def encode(self, batch: dict) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Features of both references at each site [B, J, C], and the context [B, 1, d]."""
        nets, dtype = self.nets, self.nets["portrait_encoder"].dtype
        attribute = batch["attribute"][:, 0]
        mean, std = (
            torch.tensor(x, device=self.device)[:, None, None] for x in (CLIP_MEAN, CLIP_STD)
        )
        small = functional.interpolate(
            attribute / 255, (self.model.clip.image_size,) * 2, mode="bicubic", antialias=True
        )
        small = small.clamp(0, 1)
        look = nets["clip"](((small - mean) / std).to(nets["clip"].dtype)).image_embeds[:, None]
        weight = nets["face_projection"].proj_0.weight
        identity = nets["arcface"]((batch["face"] / 127.5 - 1).to(weight.dtype))
        context = {"portrait": nets["face_projection"](identity), "attribute": look}
        banks = []
        for name, pictures in (("portrait", batch["portrait"]), ("attribute", attribute)):
            latents = self.latents(pictures)
            mask = batch[f"{name}_mask"].reshape(-1, 1, *pictures.shape[2:])
            small = functional.avg_pool2d(mask, pictures.shape[-1] // latents.shape[-1])
            seen = torch.cat([latents, small.to(latents.dtype)], dim=1).to(dtype)
            banks.append(reference.capture(nets[f"{name}_encoder"], seen, context[name].to(dtype)))
        return [torch.cat(pair, dim=1) for pair in zip(*banks, strict=True)], look.to(dtype)

    def features(self, pictures: torch.Tensor) -> torch.Tensor:
        """Keypoint pictures [B, F, 3, H, W] -> [B * F, C0, h, w]."""
        net = self.nets["keypoint_encoder"]
        return net(pictures.flatten(0, 1).to(net.conv_in.weight.dtype))

    def forward(self, noisy, t, features, banks, context) -> torch.Tensor:
        """One evaluation with references; noisy [B, F, c, h, w], t [] or [B]."""
        return self._denoise(noisy, t, features, context, reference.Attend, banks)

    def step(self, noisy, t, features, banks, context, guidance: float) -> torch.Tensor:
        """The prediction of one guided step, as it is usually made."""
        twice = [bank.repeat(2, 1, 1) for bank in banks]
        context = torch.cat([torch.zeros_like(context), context])
        both = noisy.repeat(2, 1, 1, 1, 1), t, features.repeat(2, 1, 1, 1), context
        without, with_ = self._denoise(*both, Guided, twice).chunk(2)
        return without + guidance * (with_ - without)

    def clip(self, noise, table, inputs, guidance: float) -> torch.Tensor:
        """A whole clip [1, F, 3, H, W]: references, guided DDIM steps, decoding frame by frame.

        Args:
            noise: [1, F, c, h, w].
            table: (t, alpha_bar at t, alpha_bar after it) of each step; the model predicts v.
        """
        banks, context = self.encode(inputs)
        features, z = self.features(inputs["keypoint_pictures"]), noise.float()
        for t, alpha, after in table:
            now = torch.tensor(t, device=self.device)
            v = self.step(z.to(self.dtype), now, features, banks, context, guidance).float()
            clean = alpha**0.5 * z - (1 - alpha) ** 0.5 * v
            eps = (1 - alpha) ** 0.5 * z + alpha**0.5 * v
            z = after**0.5 * clean + (1 - after) ** 0.5 * eps
        vae = self.nets["autoencoder"]
        latents = (z[0] / vae.config.scaling_factor).to(vae.dtype)
        return torch.stack([vae.decode(frame[None]).sample[0] for frame in latents])[None]

    def _denoise(self, noisy, t, features, context, processor, banks):
        denoiser, frames = self.nets["denoiser"], noisy.shape[1]
        for layer, bank in zip(reference.sites(denoiser), banks, strict=True):
            layer.set_processor(processor(bank))
        context = context.repeat_interleave(frames, 0)
        with reference.adding(denoiser.conv_in, features):
            if self.model.temporal:
                return denoiser(noisy.transpose(1, 2), t, context).sample.transpose(1, 2)
            t = t.repeat_interleave(frames)
            return denoiser(noisy.flatten(0, 1), t, context).sample.unflatten(0, noisy.shape[:2])


def _load(config, params: dict, folder: Path, model: DurianConfig) -> dict[str, torch.nn.Module]:
    """The networks, by way of a folder of our weights and its export."""
    networks = ((name, storage.flat(tree)) for name, tree in params.items())
    storage.write(folder / "ours", networks, {"config": config.to_dict()})
    exporter.to_diffusers(folder / "ours", folder / "theirs")
    nets = {
        "denoiser": diffusers.UNetMotionModel if model.temporal else diffusers.UNet2DConditionModel,
        "portrait_encoder": diffusers.UNet2DConditionModel,
        "attribute_encoder": diffusers.UNet2DConditionModel,
        "autoencoder": diffusers.AutoencoderKL,
        "clip": transformers.CLIPVisionModelWithProjection,
    }
    for name, kind in nets.items():
        nets[name] = kind.from_pretrained(folder / "theirs" / exporter.FOLDERS[name][0])
    face = model.arcface
    plain = {
        "keypoint_encoder": reference.KeypointEncoder(model.keypoint_channels, model.channels[0]),
        "face_projection": reference.FaceProjection(face.embedding, model.context_dim),
        "arcface": reference.IResNet(face.layers, face.widths, face.image_size, face.embedding),
    }
    for name, net in plain.items():
        missing, extra = net.load_state_dict(
            load_file(folder / "theirs" / "/".join(exporter.FOLDERS[name])), strict=False
        )
        assert not extra and all(key.endswith("num_batches_tracked") for key in missing), name
    return nets | plain
