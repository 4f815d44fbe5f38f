"""Pictures to latents and back: the KL autoencoder of Stable Diffusion, and fixed maps of patches.

All have the same interface: `encode(images, noise)`, `decode(latents)`, `channels`, `factor`.
Images are float32 [..., H, W, 3] in [-1, 1], latents float32 [..., h, w, c] of about unit variance.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from durian_jax.models.attention import Attention
from durian_jax.models.blocks import Downsample, ResnetBlock, Upsample
from durian_jax.models.conv import Conv
from durian_jax.models.norm import GroupNorm


def signed(pictures: jax.Array) -> jax.Array:
    """Pictures uint8, any shape, as autoencoders take them: float32 in [-1, 1]."""
    return pictures.astype(jnp.float32) / 127.5 - 1


@dataclasses.dataclass(frozen=True)
class AutoencoderConfig:
    """Shape of the KL autoencoder; the defaults are Stable Diffusion 1.x (sd-vae-ft-mse).

    Attributes:
        block_out_channels: width of each level, finest first; every level but one halves the size.
        scaling: factor from the posterior to latents of unit variance.
        shift: what is taken from the posterior before that.
        quant_convs: whether there is a 1x1 convolution at either side of the latents.

    Raises:
        ValueError: norm_groups does not divide a width.
    """

    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    latent_channels: int = 4
    norm_groups: int = 32
    scaling: float = 0.18215
    shift: float = 0.0
    quant_convs: bool = True
    dtype: str = "bfloat16"

    def __post_init__(self):
        for width in self.block_out_channels:
            if width % self.norm_groups:
                raise ValueError(
                    f"norm_groups={self.norm_groups} does not divide the width {width}"
                )


class _PixelAttention(Attention):
    """Attention over all pixels of a picture, on the residual path."""

    groups: int = 32

    def setup(self):
        super().setup()
        self.group_norm = GroupNorm(self.groups, epsilon=1e-6, dtype=self.dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        tokens = self.group_norm(x).reshape(len(x), -1, self.width)
        return x + super().__call__(tokens).reshape(x.shape)


class _Level(nn.Module):
    """Residual blocks of one width, then a down- or up-sampler unless `resample` is None."""

    in_width: int
    width: int
    layers: int
    groups: int
    resample: str | None
    dtype: jnp.dtype

    def setup(self):
        self.resnets = [
            _resnet(self.width if i else self.in_width, self.width, self.groups, self.dtype)
            for i in range(self.layers)
        ]
        if self.resample == "down":
            self.downsamplers = [Downsample(self.width, padding=(0, 1), dtype=self.dtype)]
        elif self.resample == "up":
            self.upsamplers = [Upsample(self.width, dtype=self.dtype)]

    def __call__(self, x: jax.Array) -> jax.Array:
        for resnet in self.resnets:
            x = resnet(x)
        if self.resample == "down":
            x = self.downsamplers[0](x)
        elif self.resample == "up":
            x = self.upsamplers[0](x)
        return x


class _MidBlock(nn.Module):
    """Residual block, attention, residual block at the coarsest level."""

    width: int
    groups: int
    dtype: jnp.dtype

    def setup(self):
        self.resnets = [_resnet(self.width, self.width, self.groups, self.dtype) for _ in range(2)]
        self.attentions = [
            _PixelAttention(self.width, heads=1, bias=True, dtype=self.dtype, groups=self.groups)
        ]

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class _Encoder(nn.Module):
    """Images -> mean and log-variance, before `quant_conv`."""

    config: AutoencoderConfig

    def setup(self):
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        widths, groups = config.block_out_channels, config.norm_groups
        self.conv_in = Conv(widths[0], (3, 3), padding=1, dtype=dtype)
        self.down_blocks = [
            _Level(before, width, config.layers_per_block, groups, resample, dtype)
            for before, width, resample in zip(
                (widths[0], *widths), widths, ["down"] * (len(widths) - 1) + [None]
            )
        ]
        self.mid_block = _MidBlock(widths[-1], groups, dtype)
        self.conv_norm_out = GroupNorm(groups, epsilon=1e-6, dtype=dtype)
        self.conv_out = Conv(2 * config.latent_channels, (3, 3), padding=1, dtype=dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        return self.conv_out(nn.silu(self.conv_norm_out(self.mid_block(x))))


class _Decoder(nn.Module):
    """Latents, after `post_quant_conv`, -> images."""

    config: AutoencoderConfig

    def setup(self):
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        widths, groups = config.block_out_channels[::-1], config.norm_groups
        self.conv_in = Conv(widths[0], (3, 3), padding=1, dtype=dtype)
        self.mid_block = _MidBlock(widths[0], groups, dtype)
        self.up_blocks = [
            _Level(before, width, config.layers_per_block + 1, groups, resample, dtype)
            for before, width, resample in zip(
                (widths[0], *widths), widths, ["up"] * (len(widths) - 1) + [None]
            )
        ]
        self.conv_norm_out = GroupNorm(groups, epsilon=1e-6, dtype=dtype)
        self.conv_out = Conv(3, (3, 3), padding=1, dtype=dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.mid_block(self.conv_in(x))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(nn.silu(self.conv_norm_out(x)))


def _resnet(in_width: int, width: int, groups: int, dtype: jnp.dtype) -> ResnetBlock:
    return ResnetBlock(in_width, width, groups, epsilon=1e-6, timed=False, dtype=dtype)


class AutoencoderKL(nn.Module):
    """The KL autoencoder, parameters named as in diffusers' AutoencoderKL."""

    config: AutoencoderConfig

    @property
    def channels(self) -> int:
        """Channels c of the latents."""
        return self.config.latent_channels

    @property
    def factor(self) -> int:
        """Pixels per latent cell, each way."""
        return 2 ** (len(self.config.block_out_channels) - 1)

    def setup(self):
        dtype = jnp.dtype(self.config.dtype)
        self.encoder = _Encoder(self.config)
        if self.config.quant_convs:
            self.quant_conv = Conv(2 * self.channels, (1, 1), dtype=dtype)
            self.post_quant_conv = Conv(self.channels, (1, 1), dtype=dtype)
        self.decoder = _Decoder(self.config)

    def moments(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and log-variance of the posterior, unscaled, float32 [..., h, w, c] each."""
        x = self.encoder(images.reshape(-1, *images.shape[-3:]))
        if self.config.quant_convs:
            x = self.quant_conv(x)
        mean, logvar = jnp.split(x.astype(jnp.float32), 2, axis=-1)
        shape = (*images.shape[:-3], *mean.shape[1:])
        return mean.reshape(shape), jnp.clip(logvar, -30.0, 20.0).reshape(shape)

    def encode(self, images: jax.Array, noise: jax.Array | None = None) -> jax.Array:
        """Scaled latents: the posterior's mean, or its sample for unit noise of their shape."""
        latents, logvar = self.moments(images)
        if noise is not None:
            latents += jnp.exp(0.5 * logvar) * noise
        return (latents - self.config.shift) * self.config.scaling

    def decode(self, latents: jax.Array) -> jax.Array:
        """Images; not clipped to [-1, 1]."""
        x = latents.reshape(-1, *latents.shape[-3:]) / self.config.scaling + self.config.shift
        if self.config.quant_convs:
            x = self.post_quant_conv(x)
        x = self.decoder(x).astype(jnp.float32)
        return x.reshape(*latents.shape[:-3], *x.shape[1:])


class Patchify(nn.Module):
    """Pixels of each patch stacked on the channel axis: exact, and nothing to train.

    The scale is a power of two, so that decode(encode(x)) == x bit for bit, and brings portrait
    pixels (standard deviation about 0.5) to unit variance.

    Attributes:
        patch: side of a patch in pixels.
    """

    patch: int
    scaling: float = 2.0

    @property
    def channels(self) -> int:
        """Channels c of the latents."""
        return 3 * self.patch**2

    @property
    def factor(self) -> int:
        """Pixels per latent cell, each way."""
        return self.patch

    def encode(self, images: jax.Array, noise: jax.Array | None = None) -> jax.Array:
        """Scaled latents; there is nothing to sample, noise changes nothing."""
        *lead, height, width, _ = images.shape
        h, w, p = height // self.patch, width // self.patch, self.patch
        x = images.reshape(*lead, h, p, w, p, 3)
        x = jnp.moveaxis(x, -4, -3).reshape(*lead, h, w, self.channels)
        return x.astype(jnp.float32) * self.scaling

    def decode(self, latents: jax.Array) -> jax.Array:
        """Images."""
        *lead, h, w, _ = latents.shape
        x = latents.reshape(*lead, h, w, self.patch, self.patch, 3) / self.scaling
        return jnp.moveaxis(x, -3, -4).reshape(*lead, h * self.patch, w * self.patch, 3)


class CosinePatches(nn.Module):
    """The discrete cosine transform of each patch, colour at half the resolution; nothing to train.

    What JPEG does before it rounds (ITU-T T.81, 4:2:0): colours become brightness and two colour
    differences, each patch of them frequencies, and of the colour differences the upper half of the
    frequencies in each direction is left out. On rendered faces of 64 px that costs 40 dB. Raw
    patches hide colour and detail behind brightness, which has 30 times their power; here every
    frequency is divided by the square root of its usual standard deviation, so that a network sees
    and is asked for all of them.

    Attributes:
        patch: side of a patch in pixels, even.
    """

    patch: int

    @property
    def channels(self) -> int:
        """Channels c of the latents."""
        return self.patch**2 + 2 * (self.patch // 2) ** 2

    @property
    def factor(self) -> int:
        """Pixels per latent cell, each way."""
        return self.patch

    def encode(self, images: jax.Array, noise: jax.Array | None = None) -> jax.Array:
        """Images [..., H, W, 3] -> float32 [..., h, w, c], about unit variance; noise is unused."""
        *lead, height, width, _ = images.shape
        h, w, p = height // self.patch, width // self.patch, self.patch
        basis, gains = _cosines(p)
        x = images.astype(jnp.float32).reshape(*lead, h, p, w, p, 3)
        x = jnp.moveaxis(x, -4, -3).reshape(*lead, h, w, 3 * p**2)
        return (x @ basis.T) * gains

    def decode(self, latents: jax.Array) -> jax.Array:
        """Latents -> images float32 [..., H, W, 3], not clipped."""
        *lead, h, w, _ = latents.shape
        p = self.patch
        basis, gains = _cosines(p)
        x = ((latents / gains) @ basis).reshape(*lead, h, w, p, p, 3)
        return jnp.moveaxis(x, -3, -4).reshape(*lead, h * p, w * p, 3)


# Brightness, red against blue, green against both: orthonormal.
_OPPONENTS = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])
# Standard deviation of the mean of a patch in these colours, pictures in [-1, 1], 4 x 4 pixels of
# rendered faces. A frequency (u, v) has about 1 / (4 (u + v)) of it.
_DEVIATIONS = np.array([1.8, 0.6, 0.4])


@functools.cache
def _cosines(patch: int) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal rows [c, 3 * patch**2], pixels then colours, and the gain [c] of each."""
    places = np.arange(patch)
    waves = np.cos(np.pi * (2 * places + 1) * places[:, None] / (2 * patch)) * np.sqrt(2 / patch)
    waves[0] /= np.sqrt(2)
    rows, gains = [], []
    for colour, deviation in zip(_OPPONENTS, _DEVIATIONS):
        kept = patch if not rows else patch // 2
        for v, u in np.ndindex(kept, kept):
            rows.append(np.einsum("y,x,c->yxc", waves[v], waves[u], colour).reshape(-1))
            share = 1 / (4 * (u + v)) if u + v else 1
            gains.append(2 / np.sqrt(deviation * share))
    return np.float32(rows), np.float32(gains)
