"""The shape of the whole model, in plain values."""

import dataclasses
from dataclasses import field
from typing import ClassVar

import jax
import jax.numpy as jnp

from durian_jax.models.arcface import IResNetConfig
from durian_jax.models.clip import ClipConfig
from durian_jax.systems.shape import SINGLE_CONTEXT, Shape


@dataclasses.dataclass(frozen=True)
class DurianConfig(Shape):
    """As Shape, where `clip` or `arcface` provide the cross-attention tokens.

    Attributes:
        keypoint_channels: of the keypoint encoder, one stride-2 stage between neighbours.
        face_coordinates: whether the keypoint encoder also gives each cell's place on the mean face
            and in the picture, see KeypointEncoder. Ours, for small models trained from scratch.
        reference_keypoints: whether the reference encoders get the features of their picture's own
            keypoints, as the denoiser does of the frame's, so that attention can match places of a
            face. Ours; the paper's reference encoders see pictures and masks alone.
        reference_masks: whether the reference encoders see the mask of their picture, as one more
            channel (Eq. 3).
        reference_encoders: 2; or 1 for both portrait and attributes, without CLIP and ArcFace.
        clip: None leaves out the attribute embedding and with it the cross-attention of attribute
            encoder and denoiser.
        arcface: None leaves out the identity embedding and with it the cross-attention of the
            portrait encoder.

    Raises:
        ValueError: values that do not fit together.
    """

    keypoint_channels: tuple[int, ...] = (16, 32, 96, 256)
    face_coordinates: bool = False
    reference_keypoints: bool = False
    reference_masks: bool = True
    reference_encoders: int = 2
    clip: ClipConfig | None = field(default_factory=ClipConfig)
    arcface: IResNetConfig | None = field(default_factory=IResNetConfig)

    nested: ClassVar[dict[str, type]] = {
        **Shape.nested,
        "clip": ClipConfig,
        "arcface": IResNetConfig,
    }

    def __post_init__(self):
        if self.reference_encoders not in (1, 2):
            raise ValueError(f"reference_encoders={self.reference_encoders}: use 2 or 1")
        if self.reference_encoders == 1 and (self.clip or self.arcface):
            raise ValueError("reference_encoders=1 takes no contexts: set clip and arcface to None")
        super().__post_init__()
        self.check_encoder("keypoint_channels")
        if self.clip is not None and self.clip.projection_dim != self.context_dim:
            raise ValueError(
                f"clip.projection_dim={self.clip.projection_dim} differs from "
                f"context_dim={self.context_dim}"
            )

    def blank_batch(self, clips: int, frames: int) -> dict[str, jax.Array]:
        """The batch contract in zeros, with one attribute per clip; S x S pixels.

        Returns:
            video uint8 [B, F, S, S, 3]; keypoints float32 [B, F, 478, 2], pixels; portrait uint8
            [B, S, S, 3], its hidden region black, and portrait_mask bool [B, S, S], True there;
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
        """Patterns of parameters that no output depends on."""
        patterns = tuple(f"(portrait|attribute)_encoder/{tail}" for tail in self.unread())
        if self.clip is not None:
            patterns += (f"(attribute_encoder|denoiser)/{SINGLE_CONTEXT}",)
        return patterns
