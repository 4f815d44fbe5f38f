"""Durian's two-reference forward pass in PyTorch: diffusers' networks and attention processors.

What durian_jax is compared with, and how an export of `durian convert --to diffusers` is run
without JAX. Needs the [torch] extra.

    banks = encoder tokens of portrait and attributes, `capture`
    with reading(denoiser, banks), adding(denoiser.conv_in, keypoint_features):
        denoiser(noisy, t, context).sample
"""

import contextlib
import itertools

import torch
from torch import nn
from torch.nn import functional


def sites(unet: nn.Module) -> list[nn.Module]:
    """The self-attention layers over pixels, in the order down, middle, up."""
    blocks = [*unet.down_blocks, unet.mid_block, *unet.up_blocks]
    return [
        layer
        for block in blocks
        for transformer in getattr(block, "attentions", [])
        for name, layer in transformer.named_modules()
        if name.endswith("attn1")
    ]


class Attend:
    """Attention processor: keys and values also from the tokens of `banks` [B, J, C], which all
    frames of a clip share; keeps the tokens that came in."""

    def __init__(self, banks: torch.Tensor | None = None):
        self.banks, self.seen = banks, None

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, *_, **__):
        self.seen = hidden_states
        tokens = hidden_states
        if self.banks is not None:
            frames = len(hidden_states) // len(self.banks)
            tokens = torch.cat([tokens, self.banks.repeat_interleave(frames, 0)], dim=1)
        query, key, value = (
            x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for x in (attn.to_q(hidden_states), attn.to_k(tokens), attn.to_v(tokens))
        )
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return attn.to_out[0](mixed.transpose(1, 2).flatten(2))


@contextlib.contextmanager
def reading(unet: nn.Module, banks: list[torch.Tensor] | None):
    """Inside, each self-attention reads its bank too; yields the processors."""
    layers = sites(unet)
    before = [layer.processor for layer in layers]
    processors = [Attend(bank) for bank in banks or [None] * len(layers)]
    for layer, processor in zip(layers, processors, strict=True):
        layer.set_processor(processor)
    try:
        yield processors
    finally:
        for layer, processor in zip(layers, before):
            layer.set_processor(processor)


@contextlib.contextmanager
def adding(layer: nn.Module, features: torch.Tensor):
    """Inside, `features` are added to the output of a layer."""
    hook = layer.register_forward_hook(lambda module, args, output: output + features)
    try:
        yield
    finally:
        hook.remove()


def capture(encoder: nn.Module, latents: torch.Tensor, context: torch.Tensor) -> list[torch.Tensor]:
    """The normalised tokens that enter each self-attention of a reference encoder, at t = 0."""
    with reading(encoder, None) as processors:
        encoder(latents, torch.zeros(len(latents), device=latents.device), context)
    return [processor.seen for processor in processors]


class PerFrame(nn.Module):
    """GroupNorm of a motion module as AnimateDiff's own code applies it: to one frame at a time."""

    def __init__(self, norm: nn.GroupNorm):
        super().__init__()
        self.norm = norm

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        """[B, C, F, h, w]; diffusers' module would pool its statistics over F."""
        frames = clip.transpose(1, 2)
        return self.norm(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]).transpose(1, 2)


def normalise_per_frame(unet: nn.Module) -> None:
    """Turns every motion module of a UNetMotionModel into AnimateDiff's."""
    for name, module in unet.named_modules():
        if name.split(".")[-2:-1] == ["motion_modules"]:
            module.norm = PerFrame(module.norm)


class KeypointEncoder(nn.Module):
    """Animate Anyone's pose guider; also the conditioning embedding of a ControlNet."""

    def __init__(self, channels: tuple[int, ...], width: int):
        super().__init__()
        self.conv_in = nn.Conv2d(3, channels[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for before, after in itertools.pairwise(channels):
            self.blocks.append(nn.Conv2d(before, before, 3, padding=1))
            self.blocks.append(nn.Conv2d(before, after, 3, stride=2, padding=1))
        self.conv_out = nn.Conv2d(channels[-1], width, 3, padding=1)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        x = functional.silu(self.conv_in(pictures))
        for block in self.blocks:
            x = functional.silu(block(x))
        return self.conv_out(x)


class FaceProjection(nn.Module):
    """ArcFace embedding -> context tokens."""

    def __init__(self, embedding: int, width: int, tokens: int = 4):
        super().__init__()
        self.width = width
        self.proj_0 = nn.Linear(embedding, 2 * embedding)
        self.proj_2 = nn.Linear(2 * embedding, tokens * width)
        self.norm = nn.LayerNorm(width)

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        x = self.proj_2(functional.gelu(self.proj_0(embedding)))
        return self.norm(x.unflatten(-1, (-1, self.width)))


class IBasicBlock(nn.Module):
    """Block of InsightFace's iResNet."""

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, width, 3, padding=1, bias=False)
        self.bn2, self.prelu = nn.BatchNorm2d(width), nn.PReLU(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.downsample = None
        if stride > 1:
            conv = nn.Conv2d(inputs, width, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x))))))
        return h + (x if self.downsample is None else self.downsample(x))


class IResNet(nn.Module):
    """InsightFace's arcface_torch/backbones/iresnet.py; unit output vectors."""

    def __init__(self, layers: list[int], widths: list[int], size: int, embedding: int):
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.bn1, self.prelu = nn.BatchNorm2d(widths[0]), nn.PReLU(widths[0])
        self.stages, inputs = len(layers), widths[0]
        for stage, (count, width) in enumerate(zip(layers, widths), 1):
            blocks = [IBasicBlock(inputs, width, 2)]
            blocks += [IBasicBlock(width, width, 1) for _ in range(count - 1)]
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
            inputs = width
        self.bn2 = nn.BatchNorm2d(inputs)
        self.fc = nn.Linear(inputs * (size >> self.stages) ** 2, embedding)
        self.features = nn.BatchNorm1d(embedding)

    def unscaled(self, faces: torch.Tensor) -> torch.Tensor:
        x = self.prelu(self.bn1(self.conv1(faces)))
        for stage in range(1, self.stages + 1):
            x = getattr(self, f"layer{stage}")(x)
        return self.features(self.fc(self.bn2(x).flatten(1)))

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        return functional.normalize(self.unscaled(faces))


class Unscaled(nn.Module):
    """An iResNet as it is exported: its output is not yet a unit vector."""

    def __init__(self, net: IResNet):
        super().__init__()
        self.net = net

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        return self.net.unscaled(faces)
