"""X-Portrait in PyTorch, plainly written: what ours is measured against.

Modules have the names of the published checkpoint, so that `durian convert --to x-portrait` is
loaded as it is; the shape and the order of work are those of the official code
(bytedance/X-Portrait), the writing is our own. Attention is `scaled_dot_product_attention`. Of
every window and step the reference network runs on a copy of the portrait for each frame, and the
denoiser twice, with all conditions and with none.
"""

import math

import torch
from torch import nn
from torch.nn import functional


class Attention(nn.Module):
    def __init__(self, width: int, context: int, heads: int):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context, width, bias=False)
        self.to_v = nn.Linear(context, width, bias=False)
        self.to_out = nn.Sequential(nn.Linear(width, width))

    def forward(self, x, context):
        q, k, v = (
            y.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for y in (self.to_q(x), self.to_k(context), self.to_v(context))
        )
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.to_out(mixed.transpose(1, 2).flatten(2))


class Gated(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.proj = nn.Linear(width, 8 * width)

    def forward(self, x):
        x, gate = self.proj(x).chunk(2, dim=-1)
        return x * functional.gelu(gate)


class FeedForward(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.net = nn.Sequential(Gated(width), nn.Identity(), nn.Linear(4 * width, width))

    def forward(self, x):
        return self.net(x)


class Block(nn.Module):
    """Self-attention that keeps its normalised tokens (`captured`) or reads others' (`bank`)."""

    def __init__(self, width: int, context: int, heads: int):
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.attn1 = Attention(width, width, heads)
        self.attn2 = Attention(width, context, heads)
        self.ff = FeedForward(width)
        self.bank = self.captured = None

    def forward(self, x, context):
        self.captured = tokens = self.norm1(x)
        seen = tokens if self.bank is None else torch.cat([tokens, self.bank], dim=1)
        x = x + self.attn1(tokens, seen)
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class Transformer(nn.Module):
    def __init__(self, width: int, context: int, heads: int, groups: int):
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, eps=1e-6)
        self.proj_in = nn.Conv2d(width, width, 1)
        self.transformer_blocks = nn.ModuleList([Block(width, context, heads)])
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, x, context):
        y = self.proj_in(self.norm(x)).flatten(2).transpose(1, 2)
        y = self.transformer_blocks[0](y, context.expand(len(x), -1, -1))
        return x + self.proj_out(y.transpose(1, 2).unflatten(2, x.shape[2:]))


class Residual(nn.Module):
    def __init__(self, inputs: int, width: int, time: int, groups: int):
        super().__init__()
        self.in_layers = nn.Sequential(
            nn.GroupNorm(groups, inputs), nn.SiLU(), nn.Conv2d(inputs, width, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(time, width))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(groups, width), nn.SiLU(), nn.Identity(),
            nn.Conv2d(width, width, 3, padding=1),
        )  # fmt: skip
        same = inputs == width
        self.skip_connection = nn.Identity() if same else nn.Conv2d(inputs, width, 1)

    def forward(self, x, time):
        y = self.in_layers(x) + self.emb_layers(time)[..., None, None]
        return self.skip_connection(x) + self.out_layers(y)


class Down(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.op = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x):
        return self.op(x)


class Up(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x):
        return self.conv(functional.interpolate(x, scale_factor=2.0))


class TemporalAttention(Attention):
    def __init__(self, width: int, heads: int, longest: int):
        super().__init__(width, width, heads)
        self.pos_encoder = nn.Module()
        self.pos_encoder.register_buffer("pe", torch.zeros(1, longest, width))

    def forward(self, x):
        x = x + self.pos_encoder.pe[:, : x.shape[1]]
        return super().forward(x, x)


class TemporalBlock(nn.Module):
    def __init__(self, width: int, heads: int, longest: int):
        super().__init__()
        self.attention_blocks = nn.ModuleList(
            [TemporalAttention(width, heads, longest) for _ in range(2)]
        )
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(2)])
        self.ff, self.ff_norm = FeedForward(width), nn.LayerNorm(width)

    def forward(self, x):
        for attention, norm in zip(self.attention_blocks, self.norms, strict=True):
            x = x + attention(norm(x))
        return x + self.ff(self.ff_norm(x))


class Motion(nn.Module):
    """Of all frames of one clip, [F, C, h, w]."""

    def __init__(self, width: int, heads: int, groups: int, longest: int):
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, eps=1e-6)
        self.proj_in, self.proj_out = nn.Linear(width, width), nn.Linear(width, width)
        self.transformer_blocks = nn.ModuleList([TemporalBlock(width, heads, longest)])

    def forward(self, x):
        y = self.norm(x).flatten(2).permute(2, 0, 1)
        y = self.proj_out(self.transformer_blocks[0](self.proj_in(y)))
        return x + y.permute(1, 2, 0).unflatten(2, x.shape[2:])


class Unet(nn.Module):
    """One U-Net in its four roles.

    Args of the constructor:
        shape: an XPortraitConfig. role: "denoiser", "reference" or "control".
    """

    def __init__(self, shape, role: str):
        super().__init__()
        widths, layers, groups = shape.channels, shape.layers_per_block, shape.norm_groups
        first, time, last = widths[0], 4 * widths[0], len(widths) - 1
        latents, attention = shape.kl.latent_channels, shape.attention_levels

        def transformer(level: int):
            return Transformer(widths[level], shape.context_dim, shape.heads, groups)

        def motion(width: int):
            whole = nn.Module()
            heads, longest = shape.temporal_heads, shape.max_frames
            whole.temporal_transformer = Motion(width, heads, groups, longest)
            return nn.ModuleList([whole])

        self.first = first
        self.time_embed = nn.Sequential(nn.Linear(first, time), nn.SiLU(), nn.Linear(time, time))
        blocks, skips, moved = (
            [nn.ModuleList([nn.Conv2d(latents, first, 3, padding=1)])],
            [first],
            [],
        )
        for level, width in enumerate(widths):
            for _ in range(layers):
                block = [Residual(skips[-1], width, time, groups)]
                block += [transformer(level)] if level in attention else []
                blocks.append(nn.ModuleList(block))
                skips.append(width)
                moved.append(motion(width) if role == "denoiser" else None)
            if level < last:
                blocks.append(nn.ModuleList([Down(width)]))
                skips.append(width)
        self.input_blocks = nn.ModuleList(blocks)
        width = widths[-1]
        self.middle_block = nn.ModuleList(
            [Residual(width, width, time, groups), transformer(last),
             Residual(width, width, time, groups)]
        )  # fmt: skip
        self.role = role
        if role == "denoiser":
            self.input_blocks_motion_module = nn.ModuleList(moved)
        if role != "denoiser":
            self.input_hint_block = _hint(shape.control_channels, first)
        if role == "control":
            self.zero_convs = nn.ModuleList([nn.Sequential(nn.Conv2d(n, n, 1)) for n in skips])
            self.middle_block_out = nn.Sequential(nn.Conv2d(width, width, 1))
            return
        blocks, moved = [], []
        for level in range(last, -1, -1):
            for i in range(layers + 1):
                block = [Residual(width + skips.pop(), widths[level], time, groups)]
                width = widths[level]
                block += [transformer(level)] if level in attention else []
                block += [Up(width)] if level and i == layers else []
                blocks.append(nn.ModuleList(block))
                moved.append(motion(width))
        self.output_blocks = nn.ModuleList(blocks)
        if role == "denoiser":
            self.output_blocks_motion_module = nn.ModuleList(moved)
            self.out = nn.Sequential(
                nn.GroupNorm(groups, first), nn.SiLU(), nn.Conv2d(first, latents, 3, padding=1)
            )

    def readers(self) -> list[Block]:
        """The blocks that lend or read tokens, in order."""
        return [module for module in self.modules() if isinstance(module, Block)]

    def forward(self, x, t, context, hint=None, residuals=None):
        """[F, c, h, w] at time t: the prediction, or what a control adds."""
        frequencies = torch.exp(
            -math.log(10000) * torch.arange(self.first // 2) / (self.first // 2)
        )
        angles = (torch.tensor([float(t)]) * frequencies).to(x.device)
        time = self.time_embed(torch.cat([angles.cos(), angles.sin()])[None].to(x.dtype))
        time, skips = time.expand(len(x), -1), []
        moved = iter(self.input_blocks_motion_module if self.role == "denoiser" else ())
        for i, block in enumerate(self.input_blocks):
            x = _run(block, x, time, context)
            if i == 0 and self.role == "control":
                x = x + self.input_hint_block(hint)
            if isinstance(block[0], Residual) and self.role == "denoiser":
                x = next(moved)[0].temporal_transformer(x)
            skips.append(x)
        x = _run(self.middle_block, x, time, context)
        if self.role == "control":
            pairs = zip(self.zero_convs, skips, strict=True)
            return [*(zero(skip) for zero, skip in pairs), self.middle_block_out(x)]
        if residuals is not None:
            *residuals, middle = residuals
            x = x + middle
        moved = iter(self.output_blocks_motion_module if self.role == "denoiser" else ())
        for block in self.output_blocks:
            skip = skips.pop()
            if residuals is not None:
                skip = skip + residuals.pop()
            x = _run(block, torch.cat([x, skip], dim=1), time, context)
            if self.role == "denoiser":
                x = next(moved)[0].temporal_transformer(x)
        return self.out(x) if self.role == "denoiser" else x


def _run(block, x, time, context):
    for layer in block:
        if isinstance(layer, Residual):
            x = layer(x, time)
        elif isinstance(layer, Transformer):
            x = layer(x, context)
        else:
            x = layer(x)
    return x


def _hint(channels: tuple[int, ...], width: int) -> nn.Sequential:
    layers, before = [nn.Conv2d(3, channels[0], 3, padding=1), nn.SiLU()], channels[0]
    for after in channels[1:]:
        layers += [nn.Conv2d(before, before, 3, padding=1), nn.SiLU()]
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.SiLU()]
        before = after
    return nn.Sequential(*layers, nn.Conv2d(before, width, 3, padding=1))


class XPortrait(nn.Module):
    """The networks of a step under the names of the checkpoint; no autoencoder, no text tower."""

    def __init__(self, shape):
        super().__init__()
        self.model = nn.Module()
        self.model.diffusion_model = Unet(shape, "denoiser")
        self.appearance_control_model = Unet(shape, "reference")
        self.pose_control_model = Unet(shape, "control")
        self.local_pose_control_model = Unet(shape, "control")

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Every parameter from the state dict of the checkpoint; what is no network's is left."""
        own = self.state_dict()
        self.load_state_dict({key: state[key] for key in own})
        networks = tuple(key.split(".")[0] + "." for key in own)
        extra = [key for key in state if key.startswith(networks) and key not in own]
        assert not extra, extra

    def step(self, noisy, t: int, source, driving, local, context, guidance: float):
        """A guided prediction of one window; all [F, ...] but source [1, c, h, w]."""
        denoiser, reference = self.model.diffusion_model, self.appearance_control_model
        readers = denoiser.readers()
        reference(source.repeat(len(noisy), 1, 1, 1), t, context)
        for reader, source in zip(readers, reference.readers(), strict=True):
            reader.bank = source.captured
        residuals = [
            one + other
            for one, other in zip(
                self.pose_control_model(noisy, t, context, driving),
                self.local_pose_control_model(noisy, t, context, local),
                strict=True,
            )
        ]
        conditional = denoiser(noisy, t, context, residuals=residuals)
        for reader in readers:
            reader.bank = None
        unconditional = denoiser(noisy, t, context)
        return unconditional + guidance * (conditional - unconditional)
