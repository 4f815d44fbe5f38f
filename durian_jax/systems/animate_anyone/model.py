"""Animate Anyone (arXiv 2311.17117): one reference encoder, of the whole portrait.

Durian grew out of it, and so does this: without masks, attributes and ArcFace. CLIP looks at the
portrait. It runs the weights of Moore-AnimateAnyone.
"""

import dataclasses
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from durian_jax.models.autoencoder import signed
from durian_jax.models.unet import UNet
from durian_jax.systems.durian.config import DurianConfig
from durian_jax.systems.durian.model import Conditions, Durian
from durian_jax.systems.shape import SINGLE_CONTEXT


@dataclasses.dataclass(frozen=True)
class AnimateAnyoneConfig(DurianConfig):
    """As DurianConfig, without what only Durian has; raises ValueError where that is asked for."""

    arcface: None = None

    def __post_init__(self):
        super().__post_init__()
        if self.arcface is not None:
            raise ValueError("animate_anyone does not look at faces: set arcface to None")
        if self.reference_keypoints:
            raise ValueError("animate_anyone has no reference_keypoints: set it to False")

    def dead_parameters(self) -> tuple[str, ...]:
        """Patterns of parameters that no output depends on; CLIP's token is the only context."""
        patterns = tuple(f"portrait_encoder/{tail}" for tail in self.unread())
        return patterns + ((SINGLE_CONTEXT,) if self.clip is not None else ())


def build(values: Mapping) -> "AnimateAnyone":
    """The system of `config.model`. Raises ValueError: values that do not fit together."""
    return AnimateAnyone(AnimateAnyoneConfig.from_dict({"arcface": None, **values}))


class AnimateAnyone(Durian):
    """The whole model."""

    config: AnimateAnyoneConfig

    @property
    def networks(self) -> tuple[str, ...]:
        return tuple(name for name in super().networks if name != "attribute_encoder")

    @nn.nowrap
    def blank_batch(self, clips: int, frames: int) -> dict[str, jax.Array]:
        """That of Durian without attributes and face; nothing of the portrait is hidden."""
        batch = super().blank_batch(clips, frames)
        return {name: batch[name] for name in ("video", "keypoints", "portrait", "id")}

    @nn.nowrap
    def setup_references(self, channels: int, look_dim: int) -> None:
        """One encoder, of the plain latents."""
        encoder = {"in_channels": channels, "out_channels": 0, "context_dim": look_dim}
        self.portrait_encoder = UNet(self.config.unet(**encoder))

    def encode_clip(self, batch: Mapping[str, jax.Array]) -> Conditions:
        """The tokens of `portrait` uint8 [B, H, W, 3]; encoder and denoiser get its CLIP token."""
        portrait, look = batch["portrait"], None
        latents = self.autoencoder.encode(signed(portrait))
        if self.config.clip is not None:
            look = self.clip(portrait / 255.0)[:, None]
        now = jnp.zeros(len(portrait), jnp.int32)
        return self._conditions(self.portrait_encoder.capture(latents, now, look), look)
