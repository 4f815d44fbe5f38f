"""ArcFace face embedding: InsightFace's iResNet (arXiv 1801.07698), for inference.

Parameters are named as in insightface's `arcface_torch/backbones/iresnet.py`. Running statistics
are parameters `mean` and `var`: the network is frozen, so one collection holds all of it.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class IResNetConfig:
    """Shape of the network; the defaults are r100. r50 has layers (3, 4, 14, 3), r34 (3, 4, 6, 3).

    Attributes:
        layers: residual blocks of each stage; every stage halves the picture.
        widths: channels of each stage; the stem has those of the first.
        image_size: side of the aligned face.
        embedding: size of the output.

    Raises:
        ValueError: layers and widths of different length.
    """

    layers: tuple[int, ...] = (3, 13, 30, 3)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    image_size: int = 112
    embedding: int = 512
    dtype: str = "bfloat16"

    def __post_init__(self):
        if len(self.layers) != len(self.widths):
            raise ValueError(f"{len(self.layers)} stages in layers, {len(self.widths)} in widths")


class _BatchNorm(nn.Module):
    """Inference batch normalisation; statistics and arithmetic in float32."""

    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        ones, zeros, width = nn.initializers.ones, nn.initializers.zeros, x.shape[-1:]
        scale, bias = self.param("scale", ones, width), self.param("bias", zeros, width)
        mean, var = self.param("mean", zeros, width), self.param("var", ones, width)
        x = (x.astype(jnp.float32) - mean) * (scale * jax.lax.rsqrt(var + 1e-5)) + bias
        return x.astype(self.dtype)


class _PReLU(nn.Module):
    """Leaky rectifier with one slope per channel."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        slope = self.param("weight", nn.initializers.constant(0.25), x.shape[-1:])
        return jnp.where(x > 0, x, slope.astype(x.dtype) * x)


class _Block(nn.Module):
    """BatchNorm, convolution, BatchNorm, PReLU, convolution, BatchNorm on a residual path."""

    width: int
    stride: int
    dtype: jnp.dtype

    def setup(self):
        self.bn1 = _BatchNorm(self.dtype)
        self.conv1 = nn.Conv(self.width, (3, 3), padding=1, use_bias=False, dtype=self.dtype)
        self.bn2 = _BatchNorm(self.dtype)
        self.prelu = _PReLU()
        self.conv2 = nn.Conv(
            self.width, (3, 3), strides=self.stride, padding=1, use_bias=False, dtype=self.dtype
        )
        self.bn3 = _BatchNorm(self.dtype)
        if self.stride > 1:
            self.downsample = [
                nn.Conv(self.width, (1, 1), self.stride, use_bias=False, dtype=self.dtype),
                _BatchNorm(self.dtype),
            ]

    def __call__(self, x: jax.Array) -> jax.Array:
        h = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        h = self.bn3(self.conv2(h))
        if self.stride > 1:
            for layer in self.downsample:
                x = layer(x)
        return x + h


class IResNet(nn.Module):
    """Aligned faces -> unit vectors whose dot product is the identity similarity."""

    config: IResNetConfig

    def setup(self):
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        self.conv1 = nn.Conv(config.widths[0], (3, 3), padding=1, use_bias=False, dtype=dtype)
        self.bn1 = _BatchNorm(dtype)
        self.prelu = _PReLU()
        for stage, (width, count) in enumerate(zip(config.widths, config.layers), start=1):
            blocks = [_Block(width, 2, dtype)]
            blocks += [_Block(width, 1, dtype) for _ in range(count - 1)]
            setattr(self, f"layer{stage}", blocks)
        self.bn2 = _BatchNorm(dtype)
        self.fc = nn.Dense(config.embedding, dtype=dtype)
        self.features = _BatchNorm(jnp.float32)

    def __call__(self, faces: jax.Array) -> jax.Array:
        """RGB faces [b, image_size, image_size, 3] in [-1, 1] -> float32 [b, embedding].

        Faces are aligned to ArcFace's five-point template.
        """
        x = self.prelu(self.bn1(self.conv1(faces)))
        for stage in range(1, len(self.config.layers) + 1):
            for block in getattr(self, f"layer{stage}"):
                x = block(x)
        # Channels first before flattening, the order the checkpoints' fc was trained on.
        x = jnp.moveaxis(self.bn2(x), -1, 1).reshape(len(x), -1)
        x = self.features(self.fc(x))
        return x / jnp.linalg.norm(x, axis=-1, keepdims=True)
