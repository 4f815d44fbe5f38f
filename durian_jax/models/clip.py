"""CLIP image tower: transformers' CLIPVisionModelWithProjection, parameter for parameter."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from durian_jax.models.attention import KeyValue, attend

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclasses.dataclass(frozen=True)
class ClipConfig:
    """Shape of the tower; the defaults are OpenAI's ViT-L/14.

    Raises:
        ValueError: heads or patch_size do not divide what they split.
    """

    hidden_size: int = 1024
    intermediate_size: int = 4096
    layers: int = 24
    heads: int = 16
    image_size: int = 224
    patch_size: int = 14
    projection_dim: int = 768
    dtype: str = "bfloat16"

    def __post_init__(self):
        if self.hidden_size % self.heads:
            raise ValueError(f"heads={self.heads} does not divide hidden_size={self.hidden_size}")
        if self.image_size % self.patch_size:
            raise ValueError(
                f"patch_size={self.patch_size} does not divide image_size={self.image_size}"
            )


def clip_pixels(images: jax.Array, size: int) -> jax.Array:
    """Pictures [b, H, W, 3] in [0, 1] -> the tower's input [b, size, size, 3].

    Bicubic with antialiasing to a short side of `size`, centre crop, normalised. Equal to
    CLIPImageProcessor up to the 8-bit rounding of PIL's resize, not bit for bit.
    """
    height, width = images.shape[1:3]
    short = min(height, width)
    height, width = round(height * size / short), round(width * size / short)
    images = jax.image.resize(images, (len(images), height, width, 3), "bicubic")
    top, left = (height - size) // 2, (width - size) // 2
    images = images[:, top : top + size, left : left + size].clip(0, 1)
    return (images - jnp.array(_MEAN)) / jnp.array(_STD)


class _SelfAttention(nn.Module):
    config: ClipConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size, dtype = self.config.hidden_size, jnp.dtype(self.config.dtype)
        query, key, value = (
            nn.Dense(size, dtype=dtype, name=name)(x).reshape(*x.shape[:2], self.config.heads, -1)
            for name in ("q_proj", "k_proj", "v_proj")
        )
        x = attend(query, KeyValue(key, value)).reshape(x.shape)
        return nn.Dense(size, dtype=dtype, name="out_proj")(x)


class _Mlp(nn.Module):
    config: ClipConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dtype = jnp.dtype(self.config.dtype)
        x = nn.Dense(self.config.intermediate_size, dtype=dtype, name="fc1")(x)
        x = x * nn.sigmoid(1.702 * x)  # OpenAI trained with this "quick GELU".
        return nn.Dense(self.config.hidden_size, dtype=dtype, name="fc2")(x)


class _Layer(nn.Module):
    config: ClipConfig

    def setup(self):
        dtype = jnp.dtype(self.config.dtype)
        self.layer_norm1 = nn.LayerNorm(1e-5, dtype=dtype)
        self.self_attn = _SelfAttention(self.config)
        self.layer_norm2 = nn.LayerNorm(1e-5, dtype=dtype)
        self.mlp = _Mlp(self.config)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class _Embeddings(nn.Module):
    config: ClipConfig

    @nn.compact
    def __call__(self, pixels: jax.Array) -> jax.Array:
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        normal = nn.initializers.normal(0.02)
        patch = (config.patch_size,) * 2
        x = nn.Conv(
            config.hidden_size, patch, strides=patch, padding="VALID", use_bias=False,
            dtype=dtype, name="patch_embedding",
        )(pixels)  # fmt: skip
        x = x.reshape(len(x), -1, config.hidden_size)
        start = self.param("class_embedding", normal, (config.hidden_size,)).astype(dtype)
        x = jnp.concatenate([jnp.broadcast_to(start, (len(x), 1, len(start))), x], axis=1)
        positions = nn.Embed(
            x.shape[1], config.hidden_size, embedding_init=normal, dtype=dtype,
            name="position_embedding",
        )  # fmt: skip
        return x + positions.embedding.astype(dtype)


class _Encoder(nn.Module):
    config: ClipConfig

    def setup(self):
        self.layers = [_Layer(self.config) for _ in range(self.config.layers)]

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.layers:
            x = layer(x)
        return x


class _VisionModel(nn.Module):
    config: ClipConfig

    def setup(self):
        dtype = jnp.dtype(self.config.dtype)
        self.embeddings = _Embeddings(self.config)
        self.pre_layrnorm = nn.LayerNorm(1e-5, dtype=dtype)  # Misspelt in the checkpoints.
        self.encoder = _Encoder(self.config)
        self.post_layernorm = nn.LayerNorm(1e-5, dtype=dtype)

    def __call__(self, pixels: jax.Array) -> jax.Array:
        x = self.encoder(self.pre_layrnorm(self.embeddings(pixels)))
        return self.post_layernorm(x[:, 0])


class CLIPVisionTower(nn.Module):
    """Pictures -> one embedding each."""

    config: ClipConfig

    def setup(self):
        self.vision_model = _VisionModel(self.config)
        self.visual_projection = nn.Dense(
            self.config.projection_dim, use_bias=False, dtype=jnp.dtype(self.config.dtype)
        )

    def __call__(self, images: jax.Array) -> jax.Array:
        """Pictures [b, H, W, 3] in [0, 1] -> image_embeds float32 [b, projection_dim].

        Not normalised: the projection is what transformers calls `image_embeds`.
        """
        pixels = clip_pixels(images, self.config.image_size)
        return self.visual_projection(self.vision_model(pixels)).astype(jnp.float32)
