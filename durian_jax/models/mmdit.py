"""Stable Diffusion 3.5's transformer (MMDiT-X), for pictures and, with video attention, for clips.

Parameters are named as in diffusers' `SD3Transformer2DModel`, and without what is ours it computes
the same: one stream of tokens for the picture, one for the text, joined in every attention (Esser
et al. 2024, 2403.03206, section 4), a second attention of the picture alone in some blocks.

Ours, for Stable Video-Driven Portraits (2509.17476), which leaves their details open:

- Token groups: further pictures of a frame stand beside its noisy tokens on the sequence axis, each
  with the window of the position table that borders on it: the first to the left, the second to the
  right.
- Video attention: after the joint attention, the noisy tokens of all frames read each other and
  those of history frames. Its gate starts at zero, and the transformer as what it was.
- History frames go through the same blocks as clean pictures at time 0, and read only themselves:
  what they tell is the same at every step (`remember`).
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from durian_jax.models import video_attention
from durian_jax.models.attention import KeyValue
from durian_jax.models.blocks import (
    REMAT_POLICIES,
    TimestepEmbedding,
    fold,
    remat,
    timestep_features,
)  # fmt: skip
from durian_jax.models.joint_attention import JointAttention
from durian_jax.models.norm import plain_layer_norm
from durian_jax.models.patches import Patches, PositionTable, unpatched
from durian_jax.models.video_attention import VideoAttention

_TIME_FEATURES = 256
# Where the groups stand, in widths of the picture to the right of the noisy tokens.
_PLACES = (-1, 1)


@dataclasses.dataclass(frozen=True)
class MMDiTConfig:
    """Shape of the transformer; the defaults are Stable Diffusion 3.5 Medium.

    Attributes:
        layers: number of blocks.
        heads, head_dim: of every attention; the width C is their product.
        patch: side of a token in latent cells.
        dual_layers: blocks with a second attention of the picture alone.
        qk_norm: whether queries and keys are normalised (RMS, each head by itself).
        context_dim, pooled_dim: sizes of a text token and of the pooled text.
        positions: side of the table of positions, in tokens; pictures take its middle.
        position_base: tokens of a picture that the table's unit belongs to: neighbours are
            position_base / positions apart.
        video_layers: blocks with video attention. Ours; () is Stable Diffusion itself.
        video_attention: "full" over all tokens of all frames, or "factorised", over the frames at
            each place by itself.
        remat: what the backward pass computes again, see `blocks.remat`.
        dtype: compute dtype, "bfloat16" or "float32"; parameters are float32 either way.

    Raises:
        ValueError: values that do not fit together.
    """

    layers: int = 24
    heads: int = 24
    head_dim: int = 64
    patch: int = 2
    dual_layers: tuple[int, ...] = tuple(range(13))
    qk_norm: bool = True
    context_dim: int = 4096
    pooled_dim: int = 2048
    positions: int = 384
    position_base: int = 64
    video_layers: tuple[int, ...] = tuple(range(24))
    video_attention: str = "full"
    remat: str = "none"
    dtype: str = "bfloat16"

    def __post_init__(self):
        if self.video_attention not in video_attention.KINDS:
            raise ValueError(
                f"video_attention={self.video_attention!r}: choose "
                f"{' or '.join(video_attention.KINDS)}"
            )
        if self.remat not in REMAT_POLICIES:
            raise ValueError(f"remat={self.remat!r}: choose {', '.join(REMAT_POLICIES)}")
        for name in ("dual_layers", "video_layers"):
            if beyond := [i for i in getattr(self, name) if not 0 <= i < self.layers]:
                raise ValueError(f"{name} has {beyond[0]}: use 0 to {self.layers - 1}")
        if self.width % 4:
            raise ValueError(
                f"heads={self.heads} of head_dim={self.head_dim}: sines and cosines of two "
                "coordinates need a product that 4 divides"
            )

    @property
    def width(self) -> int:
        """Channels C of all tokens."""
        return self.heads * self.head_dim

    @property
    def table(self) -> PositionTable:
        """Where a token is."""
        return PositionTable(self.positions, self.position_base / self.positions, self.width)

    def check_grid(self, height: int, width: int) -> None:
        """ValueError: latents of this size, in cells, do not fit, with a group on either side."""
        if height % self.patch or width % self.patch:
            raise ValueError(f"patch={self.patch} does not divide latents of {height} x {width}")
        rows, columns = height // self.patch, width // self.patch
        pictures = 1 + len(_PLACES)
        if max(rows, columns * pictures) > self.positions:
            raise ValueError(
                f"positions={self.positions} are too few for {pictures} pictures of "
                f"{columns} tokens side by side"
            )


class _TimeText(nn.Module):
    """Time and pooled text -> one embedding."""

    width: int
    dtype: jnp.dtype

    def setup(self):
        self.timestep_embedder = TimestepEmbedding(self.width, dtype=self.dtype)
        self.text_embedder = TimestepEmbedding(self.width, dtype=self.dtype)

    def __call__(self, t: jax.Array, pooled: jax.Array) -> jax.Array:
        """t [n], pooled [1, P] -> [n, C]."""
        features = timestep_features(t, _TIME_FEATURES).astype(self.dtype)
        return self.timestep_embedder(features) + self.text_embedder(pooled.astype(self.dtype))


class _Modulation(nn.Module):
    """The time's shifts, scales and gates of tokens, `count` of them."""

    count: int
    width: int
    dtype: jnp.dtype

    def setup(self):
        # Zero, so that a block starts as the identity (DiT, 2212.09748).
        self.linear = nn.Dense(
            self.count * self.width, kernel_init=nn.initializers.zeros, dtype=self.dtype
        )

    def __call__(self, time: jax.Array) -> list[jax.Array]:
        """[n, C] -> arrays [n, 1, 1, C]."""
        return jnp.split(self.linear(nn.silu(time))[:, None, None], self.count, axis=-1)


class _Gelu(nn.Module):
    """A linear layer and the tanh GELU."""

    width: int
    dtype: jnp.dtype

    def setup(self):
        self.proj = nn.Dense(self.width, dtype=self.dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.gelu(self.proj(x), approximate=True)


class _FeedForward(nn.Module):
    """To four times the width, and back. net_1 is diffusers' dropout."""

    width: int
    dtype: jnp.dtype

    def setup(self):
        self.net_0 = _Gelu(4 * self.width, self.dtype)
        self.net_2 = nn.Dense(self.width, dtype=self.dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.net_2(self.net_0(x))


@struct.dataclass
class Video:
    """What the video attention of a block takes part in.

    Attributes:
        noisy: how many tokens of each frame do, the first.
        history: of the block's `VideoAttention.keys_values`; None without.
        keep: bool [B], False hides it from a clip; None shows it to all.
    """

    noisy: int = struct.field(pytree_node=False)
    history: KeyValue | None = None
    keep: jax.Array | None = None


class JointBlock(nn.Module):
    """One block: joint attention, perhaps another of the picture alone, perhaps over the video.

    Attributes:
        dual: whether there is the second attention. video: whether there is video attention.
        last: whether nothing reads the text tokens afterwards.
    """

    config: MMDiTConfig
    dual: bool
    video: bool
    last: bool

    def setup(self):
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        shape = config.width, config.heads, config.qk_norm
        self.norm1 = _Modulation(9 if self.dual else 6, config.width, dtype)
        self.norm1_context = _Modulation(2 if self.last else 6, config.width, dtype)
        self.attn = JointAttention(*shape, context=True, last=self.last, dtype=dtype)
        if self.dual:
            self.attn2 = JointAttention(*shape, dtype=dtype)
        if self.video:
            self.video_attn = VideoAttention(
                config.width, config.heads, config.video_attention, config.qk_norm, dtype
            )
        self.ff = _FeedForward(config.width, dtype)
        if not self.last:
            self.ff_context = _FeedForward(config.width, dtype)

    def __call__(
        self,
        x: jax.Array,
        context: jax.Array,
        time: jax.Array,
        seen: jax.Array | None = None,
        video: Video | None = None,
    ) -> tuple[jax.Array, jax.Array | None, KeyValue | None]:
        """Tokens x [n, f, L, C] and context [n, f, M, C] -> the same.

        Args:
            time: [n, C]; the n are the clips, or each of their frames.
            seen: int32 [n], how many of the L tokens are read; None for all.
            video: makes the frames read each other; None leaves them apart.

        Returns:
            x, context (None from the last block), and, without `video`, what the frames tell those
            that follow them, where the block has video attention.
        """
        first, second, *dual = self._norms(x, time)
        tokens, gates = self._context(context, time)
        lengths = None if seen is None else jnp.repeat(seen, x.shape[1])
        mixed, attended = self.attn(
            fold(first[0]), fold(tokens), None if seen is None else lengths + context.shape[2]
        )
        x = x + first[1] * mixed.reshape(x.shape)
        if dual:
            alone, _ = self.attn2(fold(dual[0][0]), length=lengths)
            x = x + dual[0][1] * alone.reshape(x.shape)
        bank = None
        if self.video and video is None:
            bank = self.video_attn.keys_values(x)
        elif self.video:
            among, apart = x[:, :, : video.noisy], x[:, :, video.noisy :]
            among = among + self.video_attn(among, video.history, video.keep)
            x = jnp.concatenate([among, apart], axis=2)
        shift, scale, gate = second
        x = x + gate * self.ff(plain_layer_norm(x) * (1 + scale) + shift)
        if self.last:
            return x, None, bank
        gate, (shift, scale, gate_ff) = gates
        context = context + gate * attended.reshape(context.shape)
        context += gate_ff * self.ff_context(plain_layer_norm(context) * (1 + scale) + shift)
        return x, context, bank

    def _norms(self, x, time):
        """What enters each attention with its gate, and the shift, scale and gate in between."""
        shift, scale, gate, *rest = self.norm1(time)
        normal = plain_layer_norm(x)
        found = [(normal * (1 + scale) + shift, gate), rest[:3]]
        if self.dual:
            shift, scale, gate = rest[3:]
            found.append((normal * (1 + scale) + shift, gate))
        return found

    def _context(self, context, time):
        """What enters the attention, and (gate, (shift, scale, gate)) of what follows."""
        normal = plain_layer_norm(context)
        if self.last:
            scale, shift = self.norm1_context(time)
            return normal * (1 + scale) + shift, None
        shift, scale, gate, *rest = self.norm1_context(time)
        return normal * (1 + scale) + shift, (gate, rest)


class MMDiT(nn.Module):
    """The whole transformer.

    Attributes:
        channels: of the latents, in and out.
    """

    config: MMDiTConfig
    channels: int

    def setup(self):
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        self.pos_embed = Patches(config.patch, config.table, dtype)
        self.time_text_embed = _TimeText(config.width, dtype)
        self.context_embedder = nn.Dense(config.width, dtype=dtype)
        self.transformer_blocks = [
            remat(JointBlock, config.remat)(
                config,
                dual=i in config.dual_layers,
                video=i in config.video_layers,
                last=i == config.layers - 1,
            )
            for i in range(config.layers)
        ]
        self.norm_out = _Modulation(2, config.width, dtype)
        self.proj_out = nn.Dense(config.patch**2 * self.channels, dtype=dtype)

    def __call__(
        self,
        z: jax.Array,
        t: jax.Array,
        context: jax.Array,
        pooled: jax.Array,
        groups: tuple[jax.Array, ...] = (),
        seen: jax.Array | None = None,
        history: tuple[KeyValue, ...] | None = None,
        keep: jax.Array | None = None,
    ) -> jax.Array:
        """What the network predicts at noisy latents.

        Args:
            z: [B, F, h, w, c].
            t: [B], 0 (clean) to 1000 (noise). Or [B, F] without video attention.
            context, pooled: of the text, [1, M, d] and [1, P].
            groups: at most two further pictures of each frame, latents [B, F, h, w, c], or
                [B, 1, h, w, c] where all frames have the same.
            seen: int32 [B], how many of the groups a clip reads, the first; None for all.
            history: of `remember`. keep: bool [B]; False hides the history from a clip.

        Returns:
            float32 [B, F, h, w, c].
        """
        tokens = [self.pos_embed(z)]
        for place, latents in zip(_PLACES, groups, strict=False):
            group = self.pos_embed(latents, place)
            tokens.append(jnp.broadcast_to(group, tokens[0].shape))
        noisy = tokens[0].shape[2]
        x = jnp.concatenate(tokens, axis=2)
        x = x.reshape(t.size, -1, *x.shape[2:])
        if seen is not None:
            seen = jnp.repeat(noisy * (1 + seen), t.size // len(z))
        time, context = self._embed(t, context, pooled, x.shape[1])
        banks = iter(history or ())
        for i, block in enumerate(self.transformer_blocks):
            video = None
            if i in self.config.video_layers:
                video = Video(noisy, next(banks, None), keep)
            x, context, _ = block(x, context, time, seen, video)
        scale, shift = self.norm_out(time)
        x = self.proj_out(plain_layer_norm(x[:, :, :noisy]) * (1 + scale) + shift)
        return unpatched(x, self.config.patch, z.shape).astype(jnp.float32)

    def remember(
        self, latents: jax.Array, context: jax.Array, pooled: jax.Array
    ) -> tuple[KeyValue, ...]:
        """What clean frames [B, H, h, w, c] tell those that follow them, for each video attention.

        Args:
            context, pooled: as of the call.
        """
        x = self.pos_embed(latents)
        time, context = self._embed(jnp.zeros(len(x)), context, pooled, x.shape[1])
        banks = []
        for block in self.transformer_blocks[: 1 + max(self.config.video_layers)]:
            x, context, bank = block(x, context, time)
            banks.append(bank)
        return tuple(bank for bank in banks if bank is not None)

    def _embed(self, t, context, pooled, frames):
        """The embedding [n, C] of times and pooled text, and the text tokens [n, f, M, C]."""
        time = self.time_text_embed(t.reshape(-1), pooled)
        context = self.context_embedder(context)
        return time, jnp.broadcast_to(context, (len(time), frames, *context.shape[1:]))
