"""Durian (arXiv 2509.04434): two reference encoders and a denoiser, wired together.

The portrait encoder sees the portrait without the attribute region, the attribute encoder sees
nothing but the attribute; each gets its mask as one more latent channel (Eq. 2-5). Both run once
per clip at t = 0. The denoiser's self-attention reads their tokens beside its own (Eq. 6-7, 12).
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from durian_jax.models.arcface import IResNet
from durian_jax.models.attention import KeyValue, PaddedTokens, References
from durian_jax.models.autoencoder import signed
from durian_jax.models.blocks import fold
from durian_jax.models.clip import CLIPVisionTower
from durian_jax.models.conditions import (
    FaceProjection,
    KeypointEncoder,
    face_coordinates,
    rasterize_keypoints,
)
from durian_jax.models.unet import UNet
from durian_jax.systems.durian.config import DurianConfig
from durian_jax.systems.model import Model
from durian_jax.systems.shape import align_encoders


def build(values: Mapping) -> "Durian":
    """The system of `config.model`. Raises ValueError: values that do not fit together."""
    return Durian(DurianConfig.from_dict(values))


@struct.dataclass
class Conditions:
    """What the references tell the denoiser about a clip: the same for all steps and frames.

    Attributes:
        references: one KeyValue [I, B, J, heads, D] per site, I sets of them to interpolate
            between (Eq. 14).
        context: cross-attention tokens of each set, [I, B, M, d], or None without CLIP.
        count: int32 [B], how many of the M count; None for all.
    """

    references: tuple[KeyValue, ...]
    context: jax.Array | None
    count: jax.Array | None = None


@struct.dataclass
class Frames:
    """What belongs to single frames.

    Attributes:
        keypoints: features [B, F, h, w, C0].
        alpha: float32 [B, F], how far from the first to the second set of `Conditions`;
            None where there is one.
    """

    keypoints: jax.Array
    alpha: jax.Array | None = None


class Durian(Model):
    """The whole model. Letters of shapes: see `durian_jax.models`."""

    config: DurianConfig

    parts = ("references",)
    frame_inputs = ("keypoints", "alpha")

    @property
    def networks(self) -> tuple[str, ...]:
        config = self.config
        present = {
            "denoiser": True,
            "portrait_encoder": True,
            "attribute_encoder": config.reference_encoders == 2,
            "keypoint_encoder": True,
            "face_projection": config.arcface is not None,
            "autoencoder": config.autoencoder == "kl",
            "clip": config.clip is not None,
            "arcface": config.arcface is not None,
        }
        return tuple(name for name, is_there in present.items() if is_there)

    @nn.nowrap
    def blank_batch(self, clips: int, frames: int) -> dict[str, jax.Array]:
        """See DurianConfig."""
        return self.config.blank_batch(clips, frames)

    @nn.nowrap
    def remarks(self, batch: Mapping[str, jax.Array]) -> list[str]:
        """See System: whether there is an attribute to learn from."""
        if "attribute_mask" not in batch or batch["attribute_mask"].any():
            return []
        return [
            "no clip of the first batch shows an attribute: from such clips a model learns to "
            "animate, but no attribute"
        ]

    @nn.nowrap
    def align(self, params: dict) -> dict:
        """See `align_encoders`; a mask channel stays as it was drawn."""
        return align_encoders(params, ("portrait_encoder", "attribute_encoder"))

    def setup(self):
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        self.autoencoder = config.make_autoencoder()
        look_dim = 0
        if config.clip is not None:
            self.clip = CLIPVisionTower(config.clip)
            look_dim = config.context_dim
        if config.arcface is not None:
            self.arcface = IResNet(config.arcface)
            self.face_projection = FaceProjection(config.context_dim, dtype=dtype)
        channels = self.autoencoder.channels
        self.setup_references(channels, look_dim)
        self.keypoint_encoder = KeypointEncoder(
            config.keypoint_channels,
            config.channels[0],
            coordinates=config.face_coordinates,
            dtype=dtype,
        )
        self.denoiser = UNet(
            config.unet(
                in_channels=channels,
                out_channels=channels,
                context_dim=look_dim,
                temporal=config.temporal,
            )
        )

    @nn.nowrap
    def setup_references(self, channels: int, look_dim: int) -> None:
        """The part of `setup` that makes the reference encoders.

        Args:
            channels: of the latents. look_dim: size of CLIP's tokens, 0 without.
        """
        config = self.config
        identity_dim = 0 if config.arcface is None else config.context_dim
        encoder = {"in_channels": channels + config.reference_masks, "out_channels": 0}
        self.portrait_encoder = UNet(config.unet(context_dim=identity_dim, **encoder))
        if config.reference_encoders == 2:
            self.attribute_encoder = UNet(config.unet(context_dim=look_dim, **encoder))

    def encode_keypoints(self, keypoints: jax.Array) -> jax.Array:
        """Pixel coordinates [B, F, 478, 2] -> features [B, F, h, w, C0]."""
        size, coordinates = self.config.resolution, None
        pictures = rasterize_keypoints(keypoints, size)
        if self.config.face_coordinates:
            cells = size // self.config.factor
            coordinates = fold(face_coordinates(keypoints, size, cells))
        features = self.keypoint_encoder(fold(pictures), coordinates)
        return features.reshape(*pictures.shape[:2], *features.shape[1:])

    def encode_frames(self, batch: Mapping[str, jax.Array]) -> Frames:
        """Of `keypoints` [B, F, 478, 2] in pixels and, to interpolate, `alpha` float32 [B, F]."""
        return Frames(self.encode_keypoints(batch["keypoints"]), batch.get("alpha"))

    def encode_clip(self, batch: Mapping[str, jax.Array]) -> Conditions:
        """Runs both reference encoders and projects their tokens for the denoiser, once per clip.

        Durian Eq. 14, to interpolate: `towards` in the batch are the references that alpha = 1
        stands for (portrait and attribute with their masks and keypoints, attribute_count), as many
        as those of alpha = 0. At every site the self-attention outputs with either are mixed, and
        so is the cross-attention context.

        Args:
            batch: `portrait` uint8 [B, H, W, 3], already masked; `portrait_mask` [B, H, W], 1 where
                hidden; `attribute` uint8 [B, N, H, W, 3], already masked; `attribute_mask`
                [B, N, H, W], 1 on the attribute; with ArcFace `face` uint8 [B, 112, 112, 3].
                If only the first attributes count and the rest is padding, `attribute_count` int32
                [B], at least 1. With `reference_keypoints` also `portrait_keypoints` [B, 478, 2]
                and `attribute_keypoints` [B, N, 478, 2], in pixels of these pictures. Pictures are
                encoded as the mean of the autoencoder's posterior.

        Raises:
            ValueError: `towards` has another number of references.
        """
        conditions = self._encode_references(batch)
        if "towards" not in batch:
            return conditions
        others = self._encode_references({**batch, **batch["towards"]})
        one, two = (x.references[0].key.shape[2] for x in (conditions, others))
        if one != two:
            raise ValueError(f"banks of {one} and {two} tokens: give both as many references")
        references, context = jax.tree.map(
            lambda *x: jnp.concatenate(x),
            *((x.references, x.context) for x in (conditions, others)),
        )
        return Conditions(references, context, conditions.count)

    def _encode_references(self, batch):
        attribute = batch["attribute"]
        clips, count = attribute.shape[:2]
        portrait = self._masked_latents(batch["portrait"], batch["portrait_mask"])
        attributes = self._masked_latents(fold(attribute), fold(batch["attribute_mask"]))
        identity = look = context = None
        if self.config.arcface is not None:
            identity = self.face_projection(self.arcface(signed(batch["face"])))
        if self.config.clip is not None:
            look = self.clip(fold(attribute) / 255.0)[:, None]
            context = look.reshape(clips, count, -1)
        # The references are clean pictures, so their time step is 0.
        now = jnp.zeros(clips * count, jnp.int32)
        portrait_pose = attribute_pose = None
        if self.config.reference_keypoints:
            portrait_pose = self.encode_keypoints(batch["portrait_keypoints"][:, None])[:, 0]
            attribute_pose = fold(self.encode_keypoints(batch["attribute_keypoints"]))
        portrait_bank = self.portrait_encoder.capture(
            portrait, now[:clips], identity, portrait_pose
        )
        one = self.config.reference_encoders == 1
        encoder = self.portrait_encoder if one else self.attribute_encoder
        attribute_bank = encoder.capture(attributes, now, look, attribute_pose)
        bank = tuple(
            jnp.concatenate([one, many.reshape(clips, -1, one.shape[-1])], axis=1)
            for one, many in zip(portrait_bank, attribute_bank)
        )
        conditions = self._conditions(bank, context)
        if (present := batch.get("attribute_count")) is None:
            return conditions
        references = tuple(
            site.replace(length=(tokens.shape[1] * (1 + present))[None])
            for site, tokens in zip(conditions.references, portrait_bank)
        )
        return conditions.replace(references=references, count=present)

    def _conditions(self, bank, context):
        tokens = self.denoiser.project_references(bank)
        tokens, context = jax.tree.map(lambda x: x[None], (tokens, context))
        return Conditions(tokens, context)

    def predict(
        self,
        z: jax.Array,
        t: jax.Array,
        clip: Conditions,
        frames: Frames,
        parts: tuple[str, ...],
        keep: jax.Array | None = None,
    ) -> jax.Array:
        """One evaluation of the denoiser.

        Args:
            z: noisy latents, [B, F, h, w, c].
            t: int32 [B]; the frames of a clip share theirs (Eq. 11). Or [B, F] without temporal
                layers, where frames have nothing to do with each other (Eq. 10).
            clip, frames: of `encode_clip` and `encode_frames`.
            parts: () is the unconditional branch of guidance: no reference tokens and a zero
                context. Keypoints stay.
            keep: bool [B, len(parts)]; False makes a single clip unconditional.

        Returns:
            float32 [B, F, h, w, c], in the units of the training target.
        """
        context = references = None
        if self.config.clip is not None:
            context = jnp.zeros((len(z), 1, 1, self.config.context_dim))
        if parts:
            keep = None if keep is None else keep[:, 0]
            mix = jnp.ones((1, len(z), 1))
            if frames.alpha is not None:
                mix = jnp.stack([1 - frames.alpha, frames.alpha])
            references = tuple(References(tokens, mix, keep) for tokens in clip.references)
            if clip.context is not None:
                context = (mix[..., None, None] * clip.context[:, :, None]).sum(0)
                if keep is not None:
                    context = jnp.where(keep[:, None, None, None], context, 0)
        if context is not None:
            repeats, context = context.shape[1], fold(context)
            if parts and clip.count is not None:
                context = PaddedTokens(context, jnp.repeat(clip.count, repeats))
        output = self.denoiser(fold(z), t.reshape(-1), context, references, fold(frames.keypoints))
        return output.reshape(z.shape)

    def _masked_latents(self, pictures, masks):
        """uint8 pictures [b, H, W, 3] and masks [b, H, W] -> [b, h, w, c + 1] (Eq. 3)."""
        latents = self.autoencoder.encode(signed(pictures))
        if not self.config.reference_masks:
            return latents
        b, h, w, _ = latents.shape
        masks = masks.astype(jnp.float32).reshape(b, h, masks.shape[1] // h, w, -1)
        return jnp.concatenate([latents, masks.mean((2, 4))[..., None]], axis=-1)
