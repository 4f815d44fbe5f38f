"""The shape that the systems on a Stable Diffusion U-Net share, in plain values."""

import dataclasses
from collections.abc import Mapping
from dataclasses import field
from typing import ClassVar, Self

import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from durian_jax.models.autoencoder import AutoencoderConfig, AutoencoderKL, CosinePatches, Patchify
from durian_jax.models.unet import UNetConfig


@dataclasses.dataclass(frozen=True)
class Shape:
    """Autoencoder and U-Nets; the defaults are the full size.

    Attributes:
        resolution: side of the square pictures, in pixels.
        autoencoder: "kl" for Stable Diffusion's, "patchify" for exact patches of pixels, "cosine"
            for their frequencies, see CosinePatches.
        kl: shape of the autoencoder, for "kl"; else it may be None.
        patch: side of a patch in pixels, for all but "kl".
        channels, layers_per_block, attention_levels, heads, norm_groups, remat: shape of all
            U-Nets, see UNetConfig.
        context_dim: size of cross-attention tokens.
        temporal, temporal_heads, max_frames, temporal_norm: motion modules of the denoiser, see
            UNetConfig.
        dtype: compute dtype, "bfloat16" or "float32"; parameters are float32 either way.

    Raises:
        ValueError: values that do not fit together.
    """

    resolution: int = 512
    autoencoder: str = "kl"
    kl: AutoencoderConfig | None = field(default_factory=AutoencoderConfig)
    patch: int = 8
    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers_per_block: int = 2
    attention_levels: tuple[int, ...] = (0, 1, 2)
    heads: int = 8
    context_dim: int = 768
    norm_groups: int = 32
    temporal: bool = False
    temporal_heads: int = 8
    max_frames: int = 32
    temporal_norm: str = "frame"
    dtype: str = "bfloat16"
    remat: tuple[str, ...] = ()

    # Fields that are configs themselves.
    nested: ClassVar[dict[str, type]] = {"kl": AutoencoderConfig}

    @classmethod
    def from_dict(cls, values: Mapping) -> Self:
        """Builds the config from a plain (or ml_collections) dict of fields.

        Those of `nested` are dicts of fields themselves, or None; their dtype is the model's unless
        they state one.

        Raises:
            ValueError: unknown fields, or values that do not fit together.
        """
        values = dict(values.items())
        for name, kind in cls.nested.items():
            fields = values.get(name, {})
            if fields is not None:
                fields = {"dtype": values.get("dtype", cls.dtype), **dict(fields.items())}
                values[name] = _from_fields(kind, fields, f"model.{name}")
        return _from_fields(cls, values, "model")

    def __post_init__(self):
        if self.autoencoder not in ("kl", "patchify", "cosine"):
            raise ValueError(
                f"autoencoder must be 'kl', 'patchify' or 'cosine', not {self.autoencoder!r}"
            )
        if self.autoencoder == "cosine" and self.patch % 2:
            raise ValueError(f"patch={self.patch}: 'cosine' needs an even number of pixels")
        if self.autoencoder == "kl" and self.kl is None:
            raise ValueError("autoencoder 'kl' needs its shape in kl")
        coarsest = 2 ** (len(self.channels) - 1)
        if self.resolution % (self.factor * coarsest):
            raise ValueError(
                f"resolution={self.resolution} is not a multiple of {self.factor * coarsest}, "
                f"{self.factor} pixels per latent cell times {coarsest} cells at the last level"
            )
        for part in (getattr(self, name) for name in self.nested):
            if part is not None and part.dtype not in ("bfloat16", "float32"):
                raise ValueError(f"dtype must be 'bfloat16' or 'float32', not {part.dtype!r}")
        self.unet(temporal=self.temporal)  # Checks what the U-Nets share.

    def check_encoder(self, name: str) -> None:
        """ValueError: an encoder of pictures, see KeypointEncoder, shrinks them as latents do."""
        shrink = 2 ** (len(getattr(self, name)) - 1)
        if shrink != self.factor:
            raise ValueError(
                f"{name} shrink the picture {shrink} times, but a latent cell is "
                f"{self.factor} pixels wide"
            )

    @property
    def factor(self) -> int:
        """Pixels per latent cell, each way."""
        if self.autoencoder != "kl":
            return self.patch
        return 2 ** (len(self.kl.block_out_channels) - 1)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(h, w, c) of one frame's latents."""
        size = self.resolution // self.factor
        if self.autoencoder == "kl":
            return size, size, self.kl.latent_channels
        # Of the frequencies of both colour differences a quarter is kept.
        return size, size, self.patch**2 * 3 // (1 if self.autoencoder == "patchify" else 2)

    def make_autoencoder(self) -> AutoencoderKL | Patchify | CosinePatches:
        """The module that makes latents of pictures and pictures of latents."""
        if self.autoencoder == "kl":
            return AutoencoderKL(self.kl)
        return {"patchify": Patchify, "cosine": CosinePatches}[self.autoencoder](self.patch)

    def unet(self, **fields) -> UNetConfig:
        """The shape that all U-Nets share, with the given fields on top."""
        shared = {
            "block_out_channels": self.channels,
            "layers_per_block": self.layers_per_block,
            "attention_levels": self.attention_levels,
            "heads": self.heads,
            "norm_groups": self.norm_groups,
            "temporal_heads": self.temporal_heads,
            "max_frames": self.max_frames,
            "temporal_norm": self.temporal_norm,
            "dtype": self.dtype,
            "remat": self.remat,
        }
        return UNetConfig(**shared | fields)

    def unread(self) -> tuple[str, ...]:
        """Patterns of a reference encoder's parameters that its tokens do not depend on.

        It ends at the tokens of its last attention, in the finest level that has any.
        """
        levels = len(self.channels)
        end = levels - 1 - min(self.attention_levels)
        tails = (
            f"up_blocks_{end}/attentions_{self.layers_per_block}/"
            "(proj_out|transformer_blocks_0/(attn1|attn2|norm2|norm3|ff))/",
        )
        if end < levels - 1:
            tails += (f"up_blocks_{end}/upsamplers_0/",)
            tails += tuple(f"up_blocks_{block}/" for block in range(end + 1, levels))
        return tails


def align_encoders(params: dict, encoders: tuple[str, ...]) -> dict:
    """Initial parameters with which training from scratch finds the references sooner.

    The encoders start as copies of the denoiser, as they do where all come from the same
    pre-trained U-Net, and keys start as queries do. Attention then begins by matching what is
    alike, such as the same place of a face, instead of having to find out what to match.

    Args:
        params: freshly drawn; further input channels of an encoder stay as they were drawn.
        encoders: top-level names.
    """
    leaves = flatten_dict(params)
    for path in leaves:
        if path[0] in encoders:
            like, own = leaves.get(("denoiser", *path[1:])), leaves[path]
            if like is not None and like.shape == own.shape:
                leaves[path] = like
            elif path[1:] == ("conv_in", "kernel"):
                leaves[path] = jnp.concatenate([like, own[:, :, like.shape[2] :]], axis=2)
    for path in leaves:
        if path[-3:-1] == ("attn1", "to_k") and "motion_modules" not in "/".join(path):
            leaves[path] = leaves[(*path[:-2], "to_q", path[-1])]
    return unflatten_dict(leaves)


def _from_fields(kind: type, fields: Mapping, where: str):
    """Builds a config dataclass; lists become tuples, unknown names are refused."""
    known = [f.name for f in dataclasses.fields(kind)]
    for name in fields:
        if name not in known:
            raise ValueError(f"{where} has no field {name!r}; it has {', '.join(known)}")
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})
