"""The blocks of a Stable Diffusion U-Net, named and ordered as in diffusers.

Shapes: x [b, h, w, C] with b = B * F; time [B, E], one time step per clip.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from durian_jax.models.attention import ATTENTION_OUTPUT, Attention, PaddedTokens, References
from durian_jax.models.conv import Conv
from durian_jax.models.norm import GroupNorm

REMAT_POLICIES = ("none", "full", "attention")


def remat(module: type[nn.Module], policy: str) -> type[nn.Module]:
    """The module class, with its activations recomputed in the backward pass.

    Args:
        policy: "none" keeps them all; "full" recomputes everything but the module's inputs;
            "attention" keeps the outputs of spatial attention, too, which cost most.
    """
    if policy == "none":
        return module
    if policy == "full":
        return nn.remat(module)
    return nn.remat(module, policy=jax.checkpoint_policies.save_only_these_names(ATTENTION_OUTPUT))


def fold(x: jax.Array) -> jax.Array:
    """Joins the first two axes: frames, or references, of the clips of a batch."""
    return x.reshape(-1, *x.shape[2:])


def timestep_features(timesteps: jax.Array, size: int) -> jax.Array:
    """Sinusoidal features of time steps [B] -> float32 [B, size], cosines first.

    diffusers' `get_timestep_embedding` with flip_sin_to_cos=True and downscale_freq_shift=0.
    """
    half = size // 2
    frequencies = jnp.exp(-jnp.log(10000.0) * jnp.arange(half, dtype=jnp.float32) / half)
    angles = timesteps.astype(jnp.float32)[:, None] * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


class TimestepEmbedding(nn.Module):
    """Two-layer perceptron on the sinusoidal features."""

    width: int
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        self.linear_1 = nn.Dense(self.width, dtype=self.dtype)
        self.linear_2 = nn.Dense(self.width, dtype=self.dtype)

    def __call__(self, features: jax.Array) -> jax.Array:
        return self.linear_2(nn.silu(self.linear_1(features)))


class ResnetBlock(nn.Module):
    """GroupNorm, SiLU, 3x3 convolution, twice, on a residual path.

    The last convolution starts at zero, as in the original latent-diffusion code, so that a
    network trained from scratch starts near the identity.

    Attributes:
        in_width, width: channels in and out; a 1x1 `conv_shortcut` appears where they differ.
        epsilon: of both GroupNorms.
        timed: whether a time embedding is added between the convolutions.
    """

    in_width: int
    width: int
    groups: int
    epsilon: float = 1e-5
    timed: bool = True
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        self.norm1 = GroupNorm(self.groups, epsilon=self.epsilon, dtype=self.dtype)
        self.conv1 = Conv(self.width, (3, 3), padding=1, dtype=self.dtype)
        if self.timed:
            self.time_emb_proj = nn.Dense(self.width, dtype=self.dtype)
        self.norm2 = GroupNorm(self.groups, epsilon=self.epsilon, dtype=self.dtype)
        self.conv2 = Conv(
            self.width, (3, 3), padding=1, kernel_init=nn.initializers.zeros, dtype=self.dtype
        )
        if self.in_width != self.width:
            self.conv_shortcut = Conv(self.width, (1, 1), dtype=self.dtype)

    def __call__(self, x: jax.Array, time: jax.Array | None = None) -> jax.Array:
        h = self.conv1(nn.silu(self.norm1(x)))
        if self.timed:
            shift = self.time_emb_proj(nn.silu(time))
            h += jnp.repeat(shift, len(x) // len(time), axis=0)[:, None, None]
        h = self.conv2(nn.silu(self.norm2(h)))
        if self.in_width != self.width:
            x = self.conv_shortcut(x)
        return x + h


class GEGLU(nn.Module):
    """Gated linear unit with the exact (erf) GELU."""

    width: int
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        self.proj = nn.Dense(2 * self.width, dtype=self.dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        x, gate = jnp.split(self.proj(x), 2, axis=-1)
        return x * nn.gelu(gate, approximate=False)


class FeedForward(nn.Module):
    """GEGLU to four times the width, and back. net_1 is diffusers' dropout."""

    width: int
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        self.net_0 = GEGLU(4 * self.width, dtype=self.dtype)
        self.net_2 = nn.Dense(self.width, dtype=self.dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.net_2(self.net_0(x))


class TransformerBlock(nn.Module):
    """Self-attention that may read references, cross-attention, feed-forward.

    Attributes:
        cross: whether there is cross-attention (attn2, norm2) at all.
    """

    width: int
    heads: int
    cross: bool
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        self.norm1 = nn.LayerNorm(1e-5, dtype=self.dtype)
        self.attn1 = Attention(self.width, self.heads, dtype=self.dtype)
        if self.cross:
            self.norm2 = nn.LayerNorm(1e-5, dtype=self.dtype)
            self.attn2 = Attention(self.width, self.heads, dtype=self.dtype)
        self.norm3 = nn.LayerNorm(1e-5, dtype=self.dtype)
        self.ff = FeedForward(self.width, dtype=self.dtype)

    def __call__(
        self, x: jax.Array, context: jax.Array | None, references: References | None
    ) -> tuple[jax.Array, jax.Array]:
        """Tokens [b, L, C] -> new tokens, and the norm1 tokens, the reference features."""
        captured = self.norm1(x)
        x = x + self.attn1(captured, references=references)
        if self.cross:
            x = x + self._attend_context(x, context)
        return x + self.ff(self.norm3(x)), captured

    def _attend_context(self, x, context):
        tokens = context.tokens if isinstance(context, PaddedTokens) else context
        if tokens.shape[1] > 1 or self.is_initializing():
            return self.attn2(self.norm2(x), context)
        # The softmax over one key is 1: norm2, to_q and to_k have no say.
        return jnp.repeat(self.attn2.of_one(tokens), len(x) // len(tokens), axis=0)


class SpatialTransformer(nn.Module):
    """One transformer block over the pixels of each frame (diffusers' Transformer2DModel)."""

    width: int
    heads: int
    groups: int
    cross: bool
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        self.norm = GroupNorm(self.groups, epsilon=1e-6, dtype=self.dtype)
        self.proj_in = Conv(self.width, (1, 1), dtype=self.dtype)
        self.transformer_blocks = [
            TransformerBlock(self.width, self.heads, self.cross, dtype=self.dtype)
        ]
        self.proj_out = Conv(
            self.width, (1, 1), kernel_init=nn.initializers.zeros, dtype=self.dtype
        )

    def __call__(
        self, x: jax.Array, context: jax.Array | None, references: References | None
    ) -> tuple[jax.Array, jax.Array]:
        """x [b, h, w, C] -> new x, and the norm1 tokens [b, L, C]."""
        tokens = self.proj_in(self.norm(x)).reshape(len(x), -1, self.width)
        tokens, captured = self.transformer_blocks[0](tokens, context, references)
        return x + self.proj_out(tokens.reshape(x.shape)), captured

    def keys_values(self, tokens: jax.Array):
        """Lent tokens [B, J, C] -> KeyValue through this layer's own self-attention."""
        return self.transformer_blocks[0].attn1.keys_values(tokens)


class Downsample(nn.Module):
    """Stride-2 convolution; `padding` as in torch: both sides in a U-Net, (0, 1) in the VAE."""

    width: int
    padding: tuple[int, int] = (1, 1)
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        self.conv = Conv(
            self.width, (3, 3), strides=2, padding=[self.padding] * 2, dtype=self.dtype
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.conv(x)


class Upsample(nn.Module):
    """Nearest-neighbour doubling, then a convolution."""

    width: int
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        self.conv = Conv(self.width, (3, 3), padding=1, dtype=self.dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.conv(x.repeat(2, axis=1).repeat(2, axis=2))
