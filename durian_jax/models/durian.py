"""Durian (arXiv 2509.04434): two reference encoders and a denoiser, wired together.

The portrait encoder sees the portrait without the attribute region, the attribute encoder sees
nothing but the attribute; each gets its mask as one more latent channel (Eq. 2-5). Both run once
per clip at t = 0. The denoiser's self-attention reads their tokens beside its own (Eq. 6-7, 12).
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import field

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from durian_jax.models.arcface import IResNet, IResNetConfig
from durian_jax.models.attention import KeyValue, References
from durian_jax.models.autoencoder import AutoencoderConfig, AutoencoderKL, Patchify
from durian_jax.models.clip import ClipConfig, CLIPVisionTower
from durian_jax.models.conditions import FaceProjection, KeypointEncoder, rasterize_keypoints
from durian_jax.models.unet import UNet, UNetConfig

Batch = Mapping[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class DurianConfig:
    """Shape of the whole model; the defaults are the full size.

    Attributes:
        resolution: side of the square pictures, in pixels.
        autoencoder: "kl" for Stable Diffusion's, "patchify" for exact patches of pixels.
        kl: shape of the autoencoder, for "kl"; else it may be None.
        patch: side of a patch in pixels, for "patchify".
        channels, layers_per_block, attention_levels, heads, norm_groups, remat: shape of all three
            U-Nets, see UNetConfig.
        context_dim: size of cross-attention tokens, where `clip` or `arcface` provide them.
        temporal, temporal_heads, max_frames: motion modules of the denoiser.
        keypoint_channels: of the keypoint encoder, one stride-2 stage between neighbours.
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
    keypoint_channels: tuple[int, ...] = (16, 32, 96, 256)
    clip: ClipConfig | None = field(default_factory=ClipConfig)
    arcface: IResNetConfig | None = field(default_factory=IResNetConfig)
    dtype: str = "bfloat16"
    remat: tuple[int, ...] = ()

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
        if self.autoencoder not in ("kl", "patchify"):
            raise ValueError(f"autoencoder must be 'kl' or 'patchify', not {self.autoencoder!r}")
        if self.autoencoder == "kl" and self.kl is None:
            raise ValueError("autoencoder 'kl' needs its shape in kl")
        shrink, coarsest = 2 ** (len(self.keypoint_channels) - 1), 2 ** (len(self.channels) - 1)
        if shrink != self.factor:
            raise ValueError(
                f"keypoint_channels shrink the picture {shrink} times, but a latent cell is "
                f"{self.factor} pixels wide"
            )
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
        if self.autoencoder == "patchify":
            return self.patch
        return 2 ** (len(self.kl.block_out_channels) - 1)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(h, w, c) of one frame's latents."""
        size, pixels = self.resolution // self.factor, 3 * self.patch**2
        return size, size, self.kl.latent_channels if self.autoencoder == "kl" else pixels

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


@struct.dataclass
class Conditions:
    """What the references tell the denoiser about a clip: the same for all steps and frames.

    Attributes:
        references: one KeyValue [I, B, J, heads, D] per site, I alternatives (see `interpolate`).
        mix: weight of each alternative, float32 [I, B, 1] or [I, B, F]; sums to 1 over I.
        context: cross-attention tokens [B, 1, M, d] or [B, F, M, d], or None without CLIP.
    """

    references: tuple[KeyValue, ...]
    mix: jax.Array
    context: jax.Array | None


def interpolate(a: Conditions, b: Conditions, alpha: jax.Array | float) -> Conditions:
    """Conditions between those of two attributes: alpha = 0 gives a, alpha = 1 gives b.

    Durian Eq. 14: at every site the self-attention outputs with either bank are mixed. The
    cross-attention context is mixed linearly.

    Args:
        a, b: of the same clips, as `Durian.encode_conditions` returns them.
        alpha: in [0, 1]; a scalar, [B], or [B, F] to change along the clip.

    Raises:
        ValueError: different numbers of references.
    """
    one, two = (x.references[0].key.shape[2] for x in (a, b))
    if one != two:
        raise ValueError(f"banks of {one} and {two} tokens: give both as many references")
    alpha = jnp.asarray(alpha, jnp.float32)
    if alpha.ndim < 2:
        alpha = jnp.broadcast_to(alpha, a.mix.shape[1:2])[:, None]
    references = jax.tree.map(lambda *x: jnp.concatenate(x), a.references, b.references)
    mix = jnp.concatenate([(1 - alpha) * a.mix, alpha * b.mix])
    context = None
    if a.context is not None:
        weight = alpha[..., None, None]
        context = (1 - weight) * a.context + weight * b.context
    return Conditions(references, mix, context)


class Durian(nn.Module):
    """The whole model. Letters of shapes: see `durian_jax.models`."""

    config: DurianConfig

    def setup(self):
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        if config.autoencoder == "kl":
            self.autoencoder = AutoencoderKL(config.kl)
        else:
            self.autoencoder = Patchify(config.patch)
        attribute_dim = identity_dim = 0
        if config.clip is not None:
            self.clip = CLIPVisionTower(config.clip)
            attribute_dim = config.context_dim
        if config.arcface is not None:
            self.arcface = IResNet(config.arcface)
            self.face_projection = FaceProjection(config.context_dim, dtype=dtype)
            identity_dim = config.context_dim
        channels = self.autoencoder.channels
        encoder = {"in_channels": channels + 1, "out_channels": 0}
        self.portrait_encoder = UNet(config.unet(context_dim=identity_dim, **encoder))
        self.attribute_encoder = UNet(config.unet(context_dim=attribute_dim, **encoder))
        self.keypoint_encoder = KeypointEncoder(
            config.keypoint_channels, config.channels[0], dtype=dtype
        )
        self.denoiser = UNet(
            config.unet(
                in_channels=channels,
                out_channels=channels,
                context_dim=attribute_dim,
                temporal=config.temporal,
            )
        )

    def __call__(
        self,
        batch: Batch,
        latents: jax.Array,
        timesteps: jax.Array,
        keep: jax.Array | None = None,
    ) -> jax.Array:
        """The training forward pass: conditions, keypoints and `denoise`.

        Args:
            batch: see `encode_conditions`; besides `keypoints` [B, F, 478, 2] in pixels and, to
                initialise the parameters, `video` uint8 [B, F, H, W, 3].
            latents, timesteps, keep: see `denoise`.
        """
        if self.is_initializing():
            self.decode_video(self.encode_video(batch["video"]))
        conditions = self.encode_conditions(batch)
        features = self.encode_keypoints(batch["keypoints"])
        return self.denoise(latents, timesteps, features, conditions, keep)

    def encode_video(self, video: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """uint8 [B, F, H, W, 3] -> latents float32 [B, F, h, w, c]; the mean without a key."""
        return self.autoencoder.encode(_signed(video), key)

    def decode_video(self, latents: jax.Array) -> jax.Array:
        """Latents [B, F, h, w, c] -> float32 [B, F, H, W, 3], about [-1, 1], not clipped."""
        return self.autoencoder.decode(latents)

    def encode_keypoints(self, keypoints: jax.Array) -> jax.Array:
        """Pixel coordinates [B, F, 478, 2] -> features [B, F, h, w, C0]."""
        pictures = rasterize_keypoints(keypoints, self.config.resolution)
        features = self.keypoint_encoder(_fold(pictures))
        return features.reshape(*pictures.shape[:2], *features.shape[1:])

    def encode_conditions(self, batch: Batch) -> Conditions:
        """Runs both reference encoders and projects their tokens for the denoiser, once per clip.

        Args:
            batch: `portrait` uint8 [B, H, W, 3], already masked; `portrait_mask` [B, H, W], 1 where
                hidden; `attribute` uint8 [B, N, H, W, 3], already masked; `attribute_mask`
                [B, N, H, W], 1 on the attribute; with ArcFace `face` uint8 [B, 112, 112, 3].
                Pictures are encoded as the mean of the autoencoder's posterior.
        """
        attribute = batch["attribute"]
        clips, count = attribute.shape[:2]
        portrait = self._masked_latents(batch["portrait"], batch["portrait_mask"])
        attributes = self._masked_latents(_fold(attribute), _fold(batch["attribute_mask"]))
        identity = look = context = None
        if self.config.arcface is not None:
            identity = self.face_projection(self.arcface(_signed(batch["face"])))
        if self.config.clip is not None:
            look = self.clip(_fold(attribute) / 255.0)[:, None]
            context = look.reshape(clips, 1, count, -1)
        # The references are clean pictures, so their time step is 0.
        now = jnp.zeros(clips * count, jnp.int32)
        portrait_bank = self.portrait_encoder.capture(portrait, now[:clips], identity)
        attribute_bank = self.attribute_encoder.capture(attributes, now, look)
        bank = tuple(
            jnp.concatenate([one, many.reshape(clips, -1, one.shape[-1])], axis=1)
            for one, many in zip(portrait_bank, attribute_bank)
        )
        tokens = jax.tree.map(lambda x: x[None], self.denoiser.project_references(bank))
        return Conditions(tokens, jnp.ones((1, clips, 1)), context)

    def denoise(
        self,
        latents: jax.Array,
        timesteps: jax.Array,
        keypoint_features: jax.Array,
        conditions: Conditions | None,
        keep: jax.Array | None = None,
    ) -> jax.Array:
        """One evaluation of the denoiser.

        Args:
            latents: noisy, [B, F, h, w, c].
            timesteps: int32 [B]; the frames of a clip share theirs (Eq. 11).
            keypoint_features: [B, F, h, w, C0] of `encode_keypoints`.
            conditions: None is the unconditional branch of guidance: no reference tokens and a
                zero context. Keypoints stay.
            keep: bool [B]; False makes a single clip unconditional.

        Returns:
            float32 [B, F, h, w, c], in the units of the training target.
        """
        context = references = None
        if self.config.clip is not None:
            context = jnp.zeros((len(latents), 1, 1, self.config.context_dim))
        if conditions is not None:
            references = tuple(
                References(tokens, conditions.mix, keep) for tokens in conditions.references
            )
            context = conditions.context
            if context is not None and keep is not None:
                context = jnp.where(keep[:, None, None, None], context, 0)
        if context is not None:
            context = _fold(context)
        output = self.denoiser(
            _fold(latents), timesteps, context, references, _fold(keypoint_features)
        )
        return output.reshape(latents.shape)

    def _masked_latents(self, pictures, masks):
        """uint8 pictures [b, H, W, 3] and masks [b, H, W] -> [b, h, w, c + 1] (Eq. 3)."""
        latents = self.autoencoder.encode(_signed(pictures))
        b, h, w, _ = latents.shape
        masks = masks.astype(jnp.float32).reshape(b, h, masks.shape[1] // h, w, -1)
        return jnp.concatenate([latents, masks.mean((2, 4))[..., None]], axis=-1)


def _signed(pictures: jax.Array) -> jax.Array:
    """uint8 -> float32 in [-1, 1]."""
    return pictures.astype(jnp.float32) / 127.5 - 1


def _fold(x: jax.Array) -> jax.Array:
    """Joins the first two axes."""
    return x.reshape(-1, *x.shape[2:])
