"""Durian (arXiv 2509.04434): two reference encoders and a denoiser, wired together.

The portrait encoder sees the portrait without the attribute region, the attribute encoder sees
nothing but the attribute; each gets its mask as one more latent channel (Eq. 2-5). Both run once
per clip at t = 0. The denoiser's self-attention reads their tokens beside its own (Eq. 6-7, 12).

With `references="single"` there is one encoder, of the whole portrait and without a mask: Animate
Anyone (arXiv 2311.17117), whose weights run here as the case of no attribute.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from flax.traverse_util import flatten_dict, unflatten_dict

from durian_jax.models.arcface import IResNet
from durian_jax.models.attention import KeyValue, PaddedTokens, References
from durian_jax.models.clip import CLIPVisionTower
from durian_jax.models.conditions import (
    FaceProjection,
    KeypointEncoder,
    face_coordinates,
    rasterize_keypoints,
)
from durian_jax.models.unet import UNet
from durian_jax.systems.durian.config import DurianConfig

Batch = Mapping[str, jax.Array]


@struct.dataclass
class Conditions:
    """What the references tell the denoiser about a clip: the same for all steps and frames.

    Attributes:
        references: one KeyValue [I, B, J, heads, D] per site, I alternatives (see `interpolate`).
        mix: weight of each alternative, float32 [I, B, 1] or [I, B, F]; sums to 1 over I.
        context: cross-attention tokens of each alternative, [I, B, M, d], or None without CLIP.
        count: int32 [B], how many of the M count; None for all.
    """

    references: tuple[KeyValue, ...]
    mix: jax.Array
    context: jax.Array | None
    count: jax.Array | None = None

    def frames(self, indices: jax.Array) -> "Conditions":
        """Those of some frames of the clip, int32 [w]."""
        return self.replace(mix=self.mix[..., indices]) if self.mix.shape[-1] > 1 else self


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
    context = None if a.context is None else jnp.concatenate([a.context, b.context])
    return Conditions(references, mix, context, a.count)


def align(params: dict) -> dict:
    """Initial parameters with which training from scratch finds the references sooner.

    The reference encoders start as copies of the denoiser, as they do where all come from the same
    pre-trained U-Net, and keys start as queries do. Attention then begins by matching what is
    alike, such as the same place of a face, instead of having to find out what to match.

    Args:
        params: freshly drawn, of a Durian; a mask channel of an encoder stays as it was drawn.
    """
    leaves = flatten_dict(params)
    for path in leaves:
        if path[0] in ("portrait_encoder", "attribute_encoder"):
            like, own = leaves.get(("denoiser", *path[1:])), leaves[path]
            if like is not None and like.shape == own.shape:
                leaves[path] = like
            elif path[1:] == ("conv_in", "kernel"):
                leaves[path] = jnp.concatenate([like, own[:, :, like.shape[2] :]], axis=2)
    for path in leaves:
        if path[-3:-1] == ("attn1", "to_k") and "motion_modules" not in "/".join(path):
            leaves[path] = leaves[(*path[:-2], "to_q", path[-1])]
    return unflatten_dict(leaves)


class Durian(nn.Module):
    """The whole model. Letters of shapes: see `durian_jax.models`."""

    config: DurianConfig

    def setup(self):
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        self.autoencoder = config.make_autoencoder()
        look_dim = identity_dim = 0
        if config.clip is not None:
            self.clip = CLIPVisionTower(config.clip)
            look_dim = config.context_dim
        if config.arcface is not None:
            self.arcface = IResNet(config.arcface)
            self.face_projection = FaceProjection(config.context_dim, dtype=dtype)
            identity_dim = config.context_dim
        channels = self.autoencoder.channels
        if config.references == "single":
            encoder = config.unet(in_channels=channels, out_channels=0, context_dim=look_dim)
            self.portrait_encoder = UNet(encoder)
        else:
            encoder = {"in_channels": channels + 1, "out_channels": 0}
            self.portrait_encoder = UNet(config.unet(context_dim=identity_dim, **encoder))
            self.attribute_encoder = UNet(config.unet(context_dim=look_dim, **encoder))
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

        if config.control_channels:
            self.control = UNet(
                config.unet(
                    in_channels=channels,
                    out_channels=0,
                    context_dim=look_dim,
                    control_channels=config.control_channels,
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
        if self.is_initializing() and self.config.control_channels:
            context = None if conditions.context is None else conditions.context[0][:, None]
            self.encode_control(latents, timesteps, batch["video"] / 255.0, context)
        return self.denoise(latents, timesteps, features, conditions, keep)

    def encode_video(self, video: jax.Array, noise: jax.Array | None = None) -> jax.Array:
        """uint8 [B, F, H, W, 3] -> latents float32 [B, F, h, w, c]; see AutoencoderKL.encode."""
        return self.autoencoder.encode(_signed(video), noise)

    def decode_video(self, latents: jax.Array) -> jax.Array:
        """Latents [B, F, h, w, c] -> float32 [B, F, H, W, 3], about [-1, 1], not clipped."""
        return self.autoencoder.decode(latents)

    def encode_keypoints(self, keypoints: jax.Array) -> jax.Array:
        """Pixel coordinates [B, F, 478, 2] -> features [B, F, h, w, C0]."""
        size, coordinates = self.config.resolution, None
        pictures = rasterize_keypoints(keypoints, size)
        if self.config.face_coordinates:
            cells = size // self.config.factor
            coordinates = _fold(face_coordinates(keypoints, size, cells))
        features = self.keypoint_encoder(_fold(pictures), coordinates)
        return features.reshape(*pictures.shape[:2], *features.shape[1:])

    def encode_conditions(self, batch: Batch) -> Conditions:
        """Runs both reference encoders and projects their tokens for the denoiser, once per clip.

        Args:
            batch: `portrait` uint8 [B, H, W, 3], already masked; `portrait_mask` [B, H, W], 1 where
                hidden; `attribute` uint8 [B, N, H, W, 3], already masked; `attribute_mask`
                [B, N, H, W], 1 on the attribute; with ArcFace `face` uint8 [B, 112, 112, 3].
                If only the first attributes count and the rest is padding, `attribute_count` int32
                [B], at least 1. With `reference_keypoints` also `portrait_keypoints` [B, 478, 2]
                and `attribute_keypoints` [B, N, 478, 2], in pixels of these pictures. Pictures are
                encoded as the mean of the autoencoder's posterior. A model with
                references="single" reads `portrait` alone.
        """
        if self.config.references == "single":
            return self._encode_single(batch["portrait"])
        attribute = batch["attribute"]
        clips, count = attribute.shape[:2]
        portrait = self._masked_latents(batch["portrait"], batch["portrait_mask"])
        attributes = self._masked_latents(_fold(attribute), _fold(batch["attribute_mask"]))
        identity = look = context = None
        if self.config.arcface is not None:
            identity = self.face_projection(self.arcface(_signed(batch["face"])))
        if self.config.clip is not None:
            look = self.clip(_fold(attribute) / 255.0)[:, None]
            context = look.reshape(clips, count, -1)
        # The references are clean pictures, so their time step is 0.
        now = jnp.zeros(clips * count, jnp.int32)
        portrait_pose = attribute_pose = None
        if self.config.reference_keypoints:
            portrait_pose = self.encode_keypoints(batch["portrait_keypoints"][:, None])[:, 0]
            attribute_pose = _fold(self.encode_keypoints(batch["attribute_keypoints"]))
        portrait_bank = self.portrait_encoder.capture(
            portrait, now[:clips], identity, portrait_pose
        )
        attribute_bank = self.attribute_encoder.capture(attributes, now, look, attribute_pose)
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

    def _encode_single(self, portrait):
        """Animate Anyone's conditions: one bank; the same CLIP token for encoder and denoiser."""
        latents, look = self.autoencoder.encode(_signed(portrait)), None
        if self.config.clip is not None:
            look = self.clip(portrait / 255.0)[:, None]
        now = jnp.zeros(len(portrait), jnp.int32)
        bank = self.portrait_encoder.capture(latents, now, look)
        return self._conditions(bank, look)

    def _conditions(self, bank, context):
        tokens = self.denoiser.project_references(bank)
        tokens, context = jax.tree.map(lambda x: x[None], (tokens, context))
        return Conditions(tokens, jnp.ones((1, len(bank[0]), 1)), context)

    def encode_control(
        self,
        latents: jax.Array,
        timesteps: jax.Array,
        pictures: jax.Array,
        context: jax.Array | None = None,
    ) -> tuple[jax.Array, ...]:
        """What the ControlNet, if there is one, adds to the denoiser, see `UNet.control`.

        Durian itself has no use for it: `__call__` and the sampler leave it out.

        Args:
            latents, timesteps: as `denoise` gets them.
            pictures: what it is told to follow, [B, F, H, W, 3] in [0, 1].
            context: cross-attention tokens [B, 1, M, d] or [B, F, M, d].

        Returns:
            `residuals` of `denoise`.
        """
        if context is not None:
            context = _fold(context)
        return self.control.control(_fold(latents), timesteps, _fold(pictures), context)

    def denoise(
        self,
        latents: jax.Array,
        timesteps: jax.Array,
        keypoint_features: jax.Array,
        conditions: Conditions | None,
        keep: jax.Array | None = None,
        residuals: tuple[jax.Array, ...] | None = None,
    ) -> jax.Array:
        """One evaluation of the denoiser.

        Args:
            latents: noisy, [B, F, h, w, c].
            timesteps: int32 [B]; the frames of a clip share theirs (Eq. 11). Or [B, F] without
                temporal layers, where frames have nothing to do with each other (Eq. 10).
            keypoint_features: [B, F, h, w, C0] of `encode_keypoints`.
            conditions: None is the unconditional branch of guidance: no reference tokens and a
                zero context. Keypoints stay.
            keep: bool [B]; False makes a single clip unconditional.
            residuals: of `encode_control`, possibly scaled.

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
            if conditions.context is not None:
                mix, tokens = conditions.mix[..., None, None], conditions.context[:, :, None]
                context = (mix * tokens).sum(0)
                if keep is not None:
                    context = jnp.where(keep[:, None, None, None], context, 0)
        if context is not None:
            frames, context = context.shape[1], _fold(context)
            if conditions is not None and conditions.count is not None:
                context = PaddedTokens(context, jnp.repeat(conditions.count, frames))
        output = self.denoiser(
            _fold(latents),
            timesteps.reshape(-1),
            context,
            references,
            _fold(keypoint_features),
            residuals,
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
