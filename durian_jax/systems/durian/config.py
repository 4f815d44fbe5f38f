"""The shape of the whole model, in plain values."""

import dataclasses
from collections.abc import Mapping
from dataclasses import field

import jax
import jax.numpy as jnp

from durian_jax.models.arcface import IResNetConfig
from durian_jax.models.autoencoder import AutoencoderConfig, AutoencoderKL, CosinePatches, Patchify
from durian_jax.models.clip import ClipConfig
from durian_jax.models.unet import UNetConfig


@dataclasses.dataclass(frozen=True)
class DurianConfig:
    """Shape of the whole model; the defaults are the full size.

    Attributes:
        resolution: side of the square pictures, in pixels.
        autoencoder: "kl" for Stable Diffusion's, "patchify" for exact patches of pixels, "cosine"
            for their frequencies, see CosinePatches.
        kl: shape of the autoencoder, for "kl"; else it may be None.
        patch: side of a patch in pixels, for all but "kl".
        channels, layers_per_block, attention_levels, heads, norm_groups, remat: shape of all three
            U-Nets, see UNetConfig.
        context_dim: size of cross-attention tokens, where `clip` or `arcface` provide them.
        temporal, temporal_heads, max_frames, temporal_norm: motion modules of the denoiser, see
            UNetConfig.
        keypoint_channels: of the keypoint encoder, one stride-2 stage between neighbours.
        face_coordinates: whether the keypoint encoder also gives each cell's place on the mean face
            and in the picture, see KeypointEncoder. Ours, for small models trained from scratch.
        reference_keypoints: whether the reference encoders get the features of their picture's own
            keypoints, as the denoiser does of the frame's, so that attention can match places of a
            face. Ours; the paper's reference encoders see pictures and masks alone.
        reference_masks: whether the reference encoders see the mask of their picture, as one more
            channel (Eq. 3).
        reference_encoders: 2; or 1 for both portrait and attributes, without CLIP and ArcFace.
        control_channels: of the encoder in a ControlNet of the denoiser, see UNetConfig; () leaves
            the ControlNet out.
        clip: None leaves out the attribute embedding and with it the cross-attention of attribute
            encoder and denoiser.
        arcface: None leaves out the identity embedding and with it the cross-attention of the
            portrait encoder.
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
    keypoint_channels: tuple[int, ...] = (16, 32, 96, 256)
    face_coordinates: bool = False
    reference_keypoints: bool = False
    reference_masks: bool = True
    reference_encoders: int = 2
    control_channels: tuple[int, ...] = ()
    clip: ClipConfig | None = field(default_factory=ClipConfig)
    arcface: IResNetConfig | None = field(default_factory=IResNetConfig)
    dtype: str = "bfloat16"
    remat: tuple[str, ...] = ()

    @classmethod
    def from_dict(cls, values: Mapping) -> "DurianConfig":
        """Builds the config from a plain (or ml_collections) dict of fields.

        `kl`, `clip` and `arcface` are dicts of fields themselves, or None; their dtype is the
        model's unless they state one.

        Raises:
            ValueError: unknown fields, or values that do not fit together.
        """
        values = dict(values.items())
        parts = {"kl": AutoencoderConfig, "clip": ClipConfig, "arcface": IResNetConfig}
        for name, kind in parts.items():
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
        if self.reference_encoders not in (1, 2):
            raise ValueError(f"reference_encoders={self.reference_encoders}: use 2 or 1")
        if self.reference_encoders == 1 and (self.clip or self.arcface):
            raise ValueError("reference_encoders=1 takes no contexts: set clip and arcface to None")
        if self.autoencoder == "kl" and self.kl is None:
            raise ValueError("autoencoder 'kl' needs its shape in kl")
        for name in ("keypoint_channels", *(["control_channels"] if self.control_channels else [])):
            shrink = 2 ** (len(getattr(self, name)) - 1)
            if shrink != self.factor:
                raise ValueError(
                    f"{name} shrink the picture {shrink} times, but a latent cell is "
                    f"{self.factor} pixels wide"
                )
        coarsest = 2 ** (len(self.channels) - 1)
        if self.resolution % (self.factor * coarsest):
            raise ValueError(
                f"resolution={self.resolution} is not a multiple of {self.factor * coarsest}, "
                f"{self.factor} pixels per latent cell times {coarsest} cells at the last level"
            )
        if self.clip is not None and self.clip.projection_dim != self.context_dim:
            raise ValueError(
                f"clip.projection_dim={self.clip.projection_dim} differs from "
                f"context_dim={self.context_dim}"
            )
        for part in filter(None, (self.kl, self.clip, self.arcface)):
            if part.dtype not in ("bfloat16", "float32"):
                raise ValueError(f"dtype must be 'bfloat16' or 'float32', not {part.dtype!r}")
        self.unet(temporal=self.temporal)  # Checks what the U-Nets share.

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

    def blank_batch(self, clips: int, frames: int) -> dict[str, jax.Array]:
        """The batch contract in zeros, with one attribute per clip; S x S pixels.

        Returns:
            video uint8 [B, F, S, S, 3]; keypoints float32 [B, F, 478, 2], pixels; portrait uint8
            [B, S, S, 3], what is hidden of it black, and portrait_mask bool [B, S, S], True there;
            attribute [B, 1, S, S, 3] and attribute_mask [B, 1, S, S] likewise, True where the
            attribute shows; portrait_keypoints [B, 478, 2], attribute_keypoints [B, 1, 478, 2];
            face uint8 [B, 112, 112, 3], aligned for ArcFace; id int32 [B], number of the record.
        """
        picture = (self.resolution, self.resolution)
        face = 112 if self.arcface is None else self.arcface.image_size
        return {
            "video": jnp.zeros((clips, frames, *picture, 3), jnp.uint8),
            "keypoints": jnp.zeros((clips, frames, 478, 2), jnp.float32),
            "portrait": jnp.zeros((clips, *picture, 3), jnp.uint8),
            "portrait_mask": jnp.zeros((clips, *picture), bool),
            "portrait_keypoints": jnp.zeros((clips, 478, 2), jnp.float32),
            "attribute": jnp.zeros((clips, 1, *picture, 3), jnp.uint8),
            "attribute_mask": jnp.zeros((clips, 1, *picture), bool),
            "attribute_keypoints": jnp.zeros((clips, 1, 478, 2), jnp.float32),
            "face": jnp.zeros((clips, face, face, 3), jnp.uint8),
            "id": jnp.zeros((clips,), jnp.int32),
        }

    def dead_parameters(self) -> tuple[str, ...]:
        """Patterns of parameters that no output depends on.

        The reference encoders end at the tokens of their last attention, in the finest level that
        has any. Attention over a single context token does not depend on queries and keys.
        """
        levels = len(self.channels)
        end = levels - 1 - min(self.attention_levels)
        tails = [
            f"up_blocks_{end}/attentions_{self.layers_per_block}/"
            "(proj_out|transformer_blocks_0/(attn1|attn2|norm2|norm3|ff))/"
        ]
        if end < levels - 1:
            tails += [f"up_blocks_{end}/upsamplers_0/"]
            tails += [f"up_blocks_{block}/" for block in range(end + 1, levels)]
        patterns = tuple(f"(portrait|attribute)_encoder/{tail}" for tail in tails)
        if self.clip is not None:
            patterns += ("(attribute_encoder|denoiser)/.*/(attn2/to_(q|k)|norm2)/",)
        return patterns

    def unet(self, **fields) -> UNetConfig:
        """The shape the three U-Nets share, with the given fields on top."""
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


def _from_fields(kind: type, fields: Mapping, where: str):
    """Builds a config dataclass; lists become tuples, unknown names are refused."""
    known = [f.name for f in dataclasses.fields(kind)]
    for name in fields:
        if name not in known:
            raise ValueError(f"{where} has no field {name!r}; it has {', '.join(known)}")
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})
