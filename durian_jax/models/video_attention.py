"""Attention over all tokens of all frames of a clip, and of the frames before it.

Stable Video-Driven Portraits (2509.17476) adds it to the transformer of Stable Diffusion 3.5 and
prefers it to attention over frames at each place by itself, which is here, too. What the paper does
not say is ours: a normalisation before, sinusoids for the frames, a gate that starts at zero.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from durian_jax.models.attention import KeyValue, References
from durian_jax.models.joint_attention import JointAttention
from durian_jax.models.norm import plain_layer_norm
from durian_jax.models.temporal import frame_positions

KINDS = ("full", "factorised")


class VideoAttention(nn.Module):
    """What frames add to each other; of history frames, which come before, they only read.

    Frames are told apart by sinusoids of their number, history frames by negative ones.

    Attributes:
        kind: "full", over all tokens of all frames, or "factorised", over frames place by place.
        qk_norm: whether queries and keys are normalised (RMS, each head by itself).
    """

    width: int
    heads: int
    kind: str = "full"
    qk_norm: bool = True
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        self.attn = JointAttention(self.width, self.heads, self.qk_norm, dtype=self.dtype)
        self.gate = self.param("gate", nn.initializers.zeros, (self.width,))

    def __call__(
        self, x: jax.Array, history: KeyValue | None = None, keep: jax.Array | None = None
    ) -> jax.Array:
        """Tokens [B, F, S, C] -> what to add to them.

        Args:
            history: of `keys_values`. keep: bool [B]; False hides it from a clip.
        """
        tokens, references = self._sequences(x, 0), None
        if history is not None:
            each = None if keep is None else jnp.repeat(keep, len(tokens) // len(x))
            bank = jax.tree.map(lambda leaf: leaf[None], history)
            references = References(bank, jnp.ones((1, len(tokens), 1)), each)
        mixed, _ = self.attn(tokens, references=references)
        if self.kind == "factorised":
            mixed = mixed.reshape(len(x), x.shape[2], x.shape[1], self.width).swapaxes(1, 2)
        return self.gate.astype(x.dtype) * mixed.reshape(x.shape)

    def keys_values(self, x: jax.Array) -> KeyValue:
        """What frames [B, H, S, C] tell those that follow them."""
        return self.attn.keys_values(self._sequences(x, -x.shape[1]))

    def _sequences(self, x: jax.Array, first: int) -> jax.Array:
        """[B, F, S, C] -> what is attended over together: [B, F * S, C] or [B * S, F, C]."""
        clips, frames, places, width = x.shape
        positions = frame_positions(frames, width, first)[:, None].astype(x.dtype)
        x = plain_layer_norm(x) + positions
        if self.kind == "factorised":
            return x.swapaxes(1, 2).reshape(clips * places, frames, width)
        return x.reshape(clips, frames * places, width)
