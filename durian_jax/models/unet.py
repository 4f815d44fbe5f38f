"""One Stable Diffusion U-Net, used as denoiser, as reference encoder and as control trunk.

Which of them it is follows from its config: the denoiser has an output head and may have motion
modules; a reference encoder has neither, and its reference features are captured: the tokens that
enter its self-attention layers (`UNet.capture`); a control trunk ends in the middle and gives what
is added to the denoiser's skip tensors (`UNet.control`). Parameters are named as in diffusers'
UNet2DConditionModel, UNetMotionModel and ControlNetModel, with tree levels for dots and `_i` for
list indices.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from durian_jax.models.attention import KeyValue, References
from durian_jax.models.blocks import (
    REMAT_POLICIES,
    Downsample,
    ResnetBlock,
    SpatialTransformer,
    TimestepEmbedding,
    Upsample,
    remat,
    timestep_features,
)
from durian_jax.models.conditions import KeypointEncoder
from durian_jax.models.conv import Conv
from durian_jax.models.norm import GroupNorm
from durian_jax.models.temporal import MotionModule


@dataclasses.dataclass(frozen=True)
class UNetConfig:
    """Shape of a U-Net; the defaults are Stable Diffusion 1.5.

    Attributes:
        in_channels, out_channels: of the latents; out_channels 0 leaves out the output head.
        block_out_channels: width of each level, finest first.
        layers_per_block: residual blocks per level on the way down (one more on the way up).
        attention_levels: indices of the levels with attention; the middle block always has it.
        heads: attention heads, the same number at every level.
        context_dim: size of cross-attention tokens; 0 leaves out cross-attention.
        norm_groups: groups of every GroupNorm.
        control_channels: of the encoder of control pictures, see KeypointEncoder; they make it a
            control trunk (ControlNet, arXiv 2302.05543), without a way up. () for the others.
        temporal: whether there are motion modules, after every layer and in the middle block.
        temporal_mid: whether there is one in the middle block (AnimateDiff v2) or not (v1, v3).
        temporal_after_upsampler: whether the last motion module of a level on the way up comes
            behind its up-sampler, on the doubled grid (X-Portrait), or before it.
        temporal_heads, max_frames, temporal_norm: of the motion modules, see MotionModule.
        dtype: compute dtype, "bfloat16" or "float32"; parameters are float32 either way.
        remat: for each level what is recomputed in the backward pass, see `blocks.remat`; () for
            nothing anywhere. The middle block goes with the last level.

    Raises:
        ValueError: values that do not fit together.
    """

    in_channels: int = 4
    out_channels: int = 4
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers_per_block: int = 2
    attention_levels: tuple[int, ...] = (0, 1, 2)
    heads: int = 8
    context_dim: int = 768
    norm_groups: int = 32
    control_channels: tuple[int, ...] = ()
    temporal: bool = False
    temporal_mid: bool = True
    temporal_after_upsampler: bool = False
    temporal_heads: int = 8
    max_frames: int = 32
    temporal_norm: str = "frame"
    dtype: str = "bfloat16"
    remat: tuple[str, ...] = ()

    def __post_init__(self):
        levels = len(self.block_out_channels)
        for level in self.attention_levels:
            if level not in range(levels):
                raise ValueError(
                    f"attention_levels names level {level}, but there are levels 0..{levels - 1}"
                )
        if len(self.remat) not in (0, levels) or set(self.remat) - set(REMAT_POLICIES):
            known = ", ".join(REMAT_POLICIES)
            raise ValueError(f"remat={self.remat}: name one of {known} for each of {levels} levels")
        divisors = {"norm_groups": self.norm_groups, "heads": self.heads}
        if self.temporal:
            divisors["temporal_heads"] = self.temporal_heads
        for width in self.block_out_channels:
            for name, divisor in divisors.items():
                if divisor < 1 or width % divisor:
                    raise ValueError(f"{name}={divisor} does not divide the width {width}")
        if self.control_channels and self.out_channels:
            raise ValueError(f"a control trunk has no output: out_channels={self.out_channels}")
        if self.temporal_norm not in ("frame", "clip"):
            raise ValueError(f"temporal_norm must be 'frame' or 'clip', not {self.temporal_norm!r}")
        if self.dtype not in ("bfloat16", "float32"):
            raise ValueError(f"dtype must be 'bfloat16' or 'float32', not {self.dtype!r}")


class _Level(nn.Module):
    """Layers of one level: a residual block, a transformer, a motion module, each.

    Attributes:
        level: index into the config's levels.
        in_widths: input channels of each residual block.
        layers: number of transformers and motion modules.
        attention: whether there are transformers.
        resample: whether the level ends in a down- or up-sampler.
        motion: whether there are motion modules.
    """

    config: UNetConfig
    level: int
    in_widths: tuple[int, ...]
    layers: int
    attention: bool
    resample: bool = False
    motion: bool = False

    def setup(self):
        config, width = self.config, self.config.block_out_channels[self.level]
        shared = {"groups": config.norm_groups, "dtype": jnp.dtype(config.dtype)}
        policy = config.remat[self.level] if config.remat else "none"
        self.resnets = [remat(ResnetBlock, policy)(n, width, **shared) for n in self.in_widths]
        self.attentions = [
            remat(SpatialTransformer, policy)(
                width, config.heads, cross=config.context_dim > 0, **shared
            )
            for _ in range(self.layers if self.attention else 0)
        ]
        self.motion_modules = [
            remat(MotionModule, policy)(
                width,
                config.temporal_heads,
                max_frames=config.max_frames,
                statistics=config.temporal_norm,
                **shared,
            )
            for _ in range(self.layers if self.motion else 0)
        ]

    def _attend(self, i, x, context, references):
        """Transformer i, if there is one: new x, captured tokens."""
        if not self.attentions:
            return x, ()
        x, tokens = self.attentions[i](x, context, references[i])
        return x, (tokens,)

    def _move(self, i, x, time):
        """Motion module i, if there is one."""
        if not self.motion_modules:
            return x
        clip = x.reshape(len(time), -1, *x.shape[1:])
        return self.motion_modules[i](clip).reshape(x.shape)


class DownBlock(_Level):
    """A level on the way down; the motion module comes before the down-sampler."""

    def setup(self):
        super().setup()
        if self.resample:
            width = self.config.block_out_channels[self.level]
            self.downsamplers = [Downsample(width, dtype=jnp.dtype(self.config.dtype))]

    def __call__(self, x, time, context, references):
        """Returns the new x, the list of skip tensors and the tuple of captured tokens."""
        skips, captured = [], ()
        for i, resnet in enumerate(self.resnets):
            x, tokens = self._attend(i, resnet(x, time), context, references)
            x = self._move(i, x, time)
            skips.append(x)
            captured += tokens
        if self.resample:
            x = self.downsamplers[0](x)
            skips.append(x)
        return x, skips, captured


class MidBlock(_Level):
    """The coarsest block: residual block, attention, motion module, residual block."""

    def __call__(self, x, time, context, references):
        """Returns the new x and the tuple of captured tokens."""
        x = self.resnets[0](x, time)
        x, captured = self._attend(0, x, context, references)
        return self.resnets[1](self._move(0, x, time), time), captured


class UpBlock(_Level):
    """A level on the way up; every residual block first takes in a skip tensor."""

    def setup(self):
        super().setup()
        if self.resample:
            width = self.config.block_out_channels[self.level]
            self.upsamplers = [Upsample(width, dtype=jnp.dtype(self.config.dtype))]

    def __call__(self, x, skips, time, context, references):
        """Takes skip tensors in order of use; returns the new x and the captured tokens."""
        captured, behind = (), self.resample and self.config.temporal_after_upsampler
        for i, (resnet, skip) in enumerate(zip(self.resnets, skips, strict=True)):
            x = resnet(jnp.concatenate([x, skip], axis=-1), time)
            x, tokens = self._attend(i, x, context, references)
            captured += tokens
            if i < len(self.resnets) - 1 or not behind:
                x = self._move(i, x, time)
        if self.resample:
            x = self.upsamplers[0](x)
        return (self._move(-1, x, time) if behind else x), captured


class UNet(nn.Module):
    """The U-Net. Pictures have frames folded into the batch, b = B * F; time steps are per clip."""

    config: UNetConfig

    def setup(self):
        config = self.config
        widths, dtype = config.block_out_channels, jnp.dtype(config.dtype)
        zero = {"kernel_init": nn.initializers.zeros}
        last, layers = len(widths) - 1, config.layers_per_block
        self.conv_in = Conv(widths[0], (3, 3), padding=1, dtype=dtype)
        self.time_embedding = TimestepEmbedding(4 * widths[0], dtype=dtype)

        skips, down_blocks = [widths[0]], []
        for level, width in enumerate(widths):
            in_widths = (skips[-1],) + (width,) * (layers - 1)
            attention, resample = level in config.attention_levels, level < last
            down_blocks.append(
                DownBlock(config, level, in_widths, layers, attention, resample, config.temporal)
            )
            skips += [width] * (layers + resample)
        self.down_blocks = down_blocks

        in_middle = config.temporal and config.temporal_mid
        self.mid_block = MidBlock(
            config, last, (widths[last],) * 2, 1, attention=True, motion=in_middle
        )

        if config.control_channels:
            channels = config.control_channels
            self.controlnet_cond_embedding = KeypointEncoder(channels, widths[0], dtype=dtype)
            zeros = [Conv(n, (1, 1), dtype=dtype, **zero) for n in [*skips, widths[last]]]
            *self.controlnet_down_blocks, self.controlnet_mid_block = zeros
            self.up_blocks = []
            return

        up_blocks, width = [], widths[last]
        for level in range(last, -1, -1):
            in_widths = ()
            for _ in range(layers + 1):
                in_widths += (width + skips.pop(),)
                width = widths[level]
            attention, resample = level in config.attention_levels, level > 0
            up_blocks.append(
                UpBlock(config, level, in_widths, layers + 1, attention, resample, config.temporal)
            )
        self.up_blocks = up_blocks

        if config.out_channels:
            self.conv_norm_out = GroupNorm(config.norm_groups, epsilon=1e-5, dtype=dtype)
            self.conv_out = Conv(config.out_channels, (3, 3), padding=1, dtype=dtype, **zero)

    def __call__(
        self,
        x: jax.Array,
        timesteps: jax.Array,
        context: jax.Array | None = None,
        references: tuple[References, ...] | None = None,
        features: jax.Array | None = None,
        residuals: tuple[jax.Array, ...] | None = None,
    ) -> jax.Array:
        """Predicts the noise, velocity or image, whatever it was trained for.

        Args:
            x: noisy latents [B * F, h, w, in_channels].
            timesteps: [B].
            context: cross-attention tokens [B, M, d] or [B * F, M, d].
            references: one entry per site.
            features: [B * F, h, w, C0], added after the first convolution.
            residuals: of `control`, possibly scaled.

        Returns:
            float32 [B * F, h, w, out_channels].

        Raises:
            ValueError: residuals of a trunk of another shape.
        """
        x, _, _ = self._blocks(x, timesteps, context, references, features, residuals)
        return self.conv_out(nn.silu(self.conv_norm_out(x))).astype(jnp.float32)

    def capture(
        self,
        x: jax.Array,
        timesteps: jax.Array,
        context: jax.Array | None = None,
        features: jax.Array | None = None,
    ) -> tuple[jax.Array, ...]:
        """The norm1 tokens [b, L, C] entering every self-attention, in site order.

        Arguments as of `__call__`.

        What follows the last site does not reach the result: under jit it is never run, and its
        parameters get no gradient.
        """
        return self._blocks(x, timesteps, context, None, features)[1]

    def encode_pictures(self, pictures: jax.Array) -> jax.Array:
        """What a control trunk is told to follow -> `features` of `control`, whatever the time.

        Args:
            pictures: [b, H, W, 3], H / h the shrink factor of `control_channels`; in [0, 1] for
                ControlNets of diffusers, in [-1, 1] for X-Portrait's.
        """
        return self.controlnet_cond_embedding(pictures)

    def control(
        self,
        x: jax.Array,
        timesteps: jax.Array,
        features: jax.Array,
        context: jax.Array | None = None,
    ) -> tuple[jax.Array, ...]:
        """What a control trunk adds to a denoiser of its shape; zero before it is trained.

        Args:
            x, timesteps, context: as the denoiser gets them.
            features: of `encode_pictures`, [B * F, h, w, C0].

        Returns:
            `residuals` of the denoiser: one for every skip tensor, from fine to coarse, and one
            for the output of the middle block.
        """
        x, _, skips = self._blocks(x, timesteps, context, None, features)
        zeros = (*self.controlnet_down_blocks, self.controlnet_mid_block)
        return tuple(zero(tensor) for zero, tensor in zip(zeros, [*skips, x], strict=True))

    def project_references(self, banks: tuple[jax.Array, ...]) -> tuple[KeyValue, ...]:
        """Reference tokens [B, J, C] per site -> keys and values [B, J, heads, D] per site.

        They go through this network's own self-attention projections (Durian Eq. 7) and depend
        on neither frame nor time step: one call serves a whole clip.
        """
        blocks = [*self.down_blocks, self.mid_block, *self.up_blocks]
        sites = [transformer for block in blocks for transformer in block.attentions]
        return tuple(site.keys_values(tokens) for site, tokens in zip(sites, banks, strict=True))

    def _blocks(self, x, timesteps, context, references, features, residuals=None):
        """Everything but the head: new x, captured tokens of all sites, skip tensors not used."""
        dtype = jnp.dtype(self.config.dtype)
        time = timestep_features(timesteps, self.config.block_out_channels[0])
        time = self.time_embedding(time.astype(dtype))
        x = self.conv_in(x)
        if features is not None:
            x = x + features.astype(dtype)
        captured = ()

        def seen(block):
            """The references of a block's own sites."""
            if references is None:
                return (None,) * len(block.attentions)
            return references[len(captured) : len(captured) + len(block.attentions)]

        skips = [x]
        for block in self.down_blocks:
            x, new_skips, tokens = block(x, time, context, seen(block))
            skips += new_skips
            captured += tokens
        x, tokens = self.mid_block(x, time, context, seen(self.mid_block))
        captured += tokens
        if residuals is not None:
            if len(residuals) != len(skips) + 1:
                raise ValueError(f"{len(residuals)} residuals, but {len(skips) + 1} fit")
            *down, middle = (residual.astype(dtype) for residual in residuals)
            skips = [skip + residual for skip, residual in zip(skips, down, strict=True)]
            x = x + middle
        for block in self.up_blocks:
            used = [skips.pop() for _ in block.resnets]
            x, tokens = block(x, used, time, context, seen(block))
            captured += tokens
        return x, captured, skips
