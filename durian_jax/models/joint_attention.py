"""Attention of Stable Diffusion 3: two streams of tokens, each with projections of its own."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from durian_jax.models.attention import KeyValue, References, attend


class JointAttention(nn.Module):
    """Attention of picture tokens, and of text tokens if there are any, over both.

    Attributes:
        context: whether there are text tokens, with projections of their own.
        last: whether nothing reads the text tokens afterwards; then they come back as None.
    """

    width: int
    heads: int
    qk_norm: bool
    context: bool = False
    last: bool = False
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        def dense():
            return nn.Dense(self.width, dtype=self.dtype)

        def norm():
            return nn.RMSNorm(epsilon=1e-6, dtype=self.dtype)

        self.to_q, self.to_k, self.to_v = dense(), dense(), dense()
        self.to_out = [dense()]
        if self.qk_norm:
            self.norm_q, self.norm_k = norm(), norm()
        if self.context:
            self.add_q_proj, self.add_k_proj, self.add_v_proj = dense(), dense(), dense()
            if self.qk_norm:
                self.norm_added_q, self.norm_added_k = norm(), norm()
            if not self.last:
                self.to_add_out = dense()

    def __call__(
        self,
        x: jax.Array,
        context: jax.Array | None = None,
        length: jax.Array | None = None,
        references: References | None = None,
    ) -> tuple[jax.Array, jax.Array | None]:
        """Tokens x [b, L, C] and context [b, M, C] -> the same.

        Args:
            length: int32 [b], how many of the tokens are read, the context's first.
            references: further tokens to read.
        """
        query, tokens = self.queries(x), self.keys_values(x)
        before = 0
        if context is not None:
            before = context.shape[1]
            key, value = self._context_keys_values(context)
            tokens = KeyValue(
                jnp.concatenate([key, tokens.key], axis=1),
                jnp.concatenate([value, tokens.value], axis=1),
            )
            if self.last and not self.is_initializing():
                before = 0
            else:
                query = jnp.concatenate([self._context_queries(context), query], axis=1)
        mixed = attend(query, tokens.replace(length=length), references)
        mixed = mixed.reshape(*mixed.shape[:2], self.width)
        output = self.to_out[0](mixed[:, before:])
        if context is None or self.last:
            return output, None
        return output, self.to_add_out(mixed[:, :before])

    def queries(self, x: jax.Array) -> jax.Array:
        """[..., L, C] -> [..., L, heads, D]."""
        query = self._split(self.to_q(x))
        return self.norm_q(query) if self.qk_norm else query

    def keys_values(self, x: jax.Array) -> KeyValue:
        """[..., L, C] -> keys and values [..., L, heads, D]."""
        key = self._split(self.to_k(x))
        return KeyValue(self.norm_k(key) if self.qk_norm else key, self._split(self.to_v(x)))

    def _context_queries(self, context):
        query = self._split(self.add_q_proj(context))
        return self.norm_added_q(query) if self.qk_norm else query

    def _context_keys_values(self, context):
        key, value = self._split(self.add_k_proj(context)), self._split(self.add_v_proj(context))
        return self.norm_added_k(key) if self.qk_norm else key, value

    def _split(self, x):
        return x.reshape(*x.shape[:-1], self.heads, -1)
