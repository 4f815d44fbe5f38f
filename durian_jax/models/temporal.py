"""Motion module: attention over the frames of a clip, at every pixel.

The shape of AnimateDiff v2 (arXiv 2307.04725) as used by Animate Anyone and Champ: two temporal
self-attentions and a feed-forward, with a zero-initialised output that makes a fresh module the
identity.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from durian_jax.models.attention import Attention
from durian_jax.models.blocks import FeedForward
from durian_jax.models.norm import GroupNorm


def frame_positions(frames: int, width: int, first: int = 0) -> np.ndarray:
    """Sinusoidal positions, float32 [frames, width]; sines on even channels, cosines on odd.

    first: number of the first frame, which may be negative.
    """
    frequencies = np.exp(-np.log(10000.0) * np.arange(0, width, 2) / width)
    angles = (first + np.arange(frames))[:, None] * frequencies
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(frames, width).astype("f4")


class TemporalBlock(nn.Module):
    """Two self-attentions over frames and a feed-forward, on tokens [B, F, L, C]."""

    width: int
    heads: int
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        self.norm1 = nn.LayerNorm(1e-5, dtype=self.dtype)
        self.attn1 = Attention(self.width, self.heads, dtype=self.dtype)
        self.norm2 = nn.LayerNorm(1e-5, dtype=self.dtype)
        self.attn2 = Attention(self.width, self.heads, dtype=self.dtype)
        self.norm3 = nn.LayerNorm(1e-5, dtype=self.dtype)
        self.ff = FeedForward(self.width, dtype=self.dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        positions = frame_positions(x.shape[1], self.width)[:, None].astype(self.dtype)
        x = x + self.attn1.over_frames(self.norm1(x) + positions)
        x = x + self.attn2.over_frames(self.norm2(x) + positions)
        return x + self.ff(self.norm3(x))


class MotionModule(nn.Module):
    """One temporal block between projections, on the residual path.

    Attributes:
        max_frames: longest clip the module was made for.
        statistics: "frame" normalises each frame by itself, as the code does that AnimateDiff's and
            Animate Anyone's weights were trained with. "clip" pools the statistics over all frames,
            as diffusers' UNetMotionModel does; then a frame depends on the window it is in.
    """

    width: int
    heads: int
    groups: int
    max_frames: int
    statistics: str = "frame"
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        axes = (-3, -2) if self.statistics == "frame" else (-4, -3, -2)
        self.norm = GroupNorm(self.groups, epsilon=1e-6, axes=axes, dtype=self.dtype)
        self.proj_in = nn.Dense(self.width, dtype=self.dtype)
        self.transformer_blocks = [TemporalBlock(self.width, self.heads, dtype=self.dtype)]
        self.proj_out = nn.Dense(self.width, kernel_init=nn.initializers.zeros, dtype=self.dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        """x [B, F, h, w, C] -> the same shape.

        Raises:
            ValueError: F exceeds `max_frames`.
        """
        clips, frames = x.shape[:2]
        if frames > self.max_frames:
            raise ValueError(f"a clip of {frames} frames exceeds max_frames={self.max_frames}")
        tokens = self.proj_in(self.norm(x)).reshape(clips, frames, -1, self.width)
        tokens = self.transformer_blocks[0](tokens)
        return x + self.proj_out(tokens).reshape(x.shape)
