"""Stable Video-Driven Portraits (arXiv 2509.17476): one transformer reads everything as tokens.

Each frame's sequence holds its noisy tokens, those of the source picture, and those of the driver's
frame, of which eyes, nose and mouth are left. Video attention joins the noisy tokens of all frames
and the last frames of the window before. There is neither reference network nor ControlNet. What
the paper leaves open, and what is done here: docs/svp.md.
"""

import dataclasses
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from durian_jax.models.attention import KeyValue
from durian_jax.models.conditions import ConstantText
from durian_jax.models.mmdit import MMDiT
from durian_jax.systems.model import Model
from durian_jax.systems.svp.config import SVPConfig


def build(values: Mapping) -> "SVP":
    """The system of `config.model`. Raises ValueError: values that do not fit together."""
    return SVP(SVPConfig.from_dict(values))


class SVP(Model):
    """The whole model. Letters of shapes: see `durian_jax.models`."""

    config: SVPConfig

    frame_inputs = ("driving",)

    @property
    def history(self) -> int:
        return self.config.history

    @property
    def parts(self) -> tuple[str, ...]:
        return ("source", "driving", *(("history",) if self.config.history else ()))

    @property
    def networks(self) -> tuple[str, ...]:
        return "denoiser", "prompt", *(("autoencoder",) if self.config.autoencoder == "kl" else ())

    @nn.nowrap
    def align(self, params: dict) -> dict:
        """As they were drawn: source and driver go through the denoiser itself."""
        return params

    @nn.nowrap
    def blank_batch(self, clips: int, frames: int) -> dict[str, jax.Array]:
        """The batch contract in zeros; S x S pixels.

        Returns:
            video uint8 [B, F, S, S, 3]; portrait uint8 [B, S, S, 3], the source; driving uint8
            [B, F, S, S, 3], what the frames follow, black but for eyes, nose and mouth; in a model
            with a history also history uint8 [B, H, S, S, 3], the frames before the video, which
            training alone reads; id int32 [B], number of the record.
        """
        picture = (self.size, self.size, 3)
        batch = {
            "video": jnp.zeros((clips, frames, *picture), jnp.uint8),
            "portrait": jnp.zeros((clips, *picture), jnp.uint8),
            "driving": jnp.zeros((clips, frames, *picture), jnp.uint8),
            "id": jnp.zeros((clips,), jnp.int32),
        }
        if self.history:
            batch["history"] = jnp.zeros((clips, self.history, *picture), jnp.uint8)
        return batch

    def setup(self):
        config, transformer = self.config, self.config.transformer
        if config.remat:
            transformer = dataclasses.replace(transformer, remat=config.remat[0])
        self.autoencoder = config.make_autoencoder()
        self.prompt = ConstantText(
            config.prompt_tokens, transformer.context_dim, transformer.pooled_dim
        )
        self.denoiser = MMDiT(transformer, self.autoencoder.channels)

    def encode_clip(self, batch: Mapping[str, jax.Array]) -> dict:
        """ "source": latents [B, 1, h, w, c] of `portrait`, uint8 [B, H, W, 3]."""
        return {"source": self.encode_video(batch["portrait"][:, None])}

    def encode_history(self, latents: jax.Array) -> tuple[KeyValue, ...]:
        """What the frames before tell, from clean latents [B, H, h, w, c]; see MMDiT.remember."""
        return self.denoiser.remember(latents, *self.prompt())

    def encode_frames(self, batch: Mapping[str, jax.Array]) -> jax.Array:
        """Latents [B, F, h, w, c] of `driving`, uint8 [B, F, H, W, 3]."""
        return self.encode_video(batch["driving"])

    def predict(
        self,
        z: jax.Array,
        t: jax.Array,
        clip: Mapping,
        frames: jax.Array,
        parts: tuple[str, ...],
        keep: jax.Array | None = None,
    ) -> jax.Array:
        """One evaluation of the denoiser.

        Args:
            z: noisy latents, [B, F, h, w, c].
            t: [B], 0 to 1000; the frames of a clip share theirs. Or [B, F] without video attention.
            clip: of `encode_clip`, and "history" of `encode_history` if that is among the parts.
            frames: of `encode_frames`.
            parts: the first of `self.parts`, as many as there are.
            keep: bool [B, len(parts)]; False takes a part, and those after it, from a clip.

        Returns:
            float32 [B, F, h, w, c], the velocity.

        Raises:
            ValueError: F exceeds `max_frames`.
        """
        if self.temporal and z.shape[1] > self.max_frames:
            raise ValueError(f"a clip of {z.shape[1]} frames exceeds max_frames={self.max_frames}")
        groups, history, seen, kept = [], None, None, None
        if "source" in parts:
            groups.append(clip["source"])
        if "driving" in parts:
            groups.append(frames)
        if "history" in parts:
            history = clip["history"]
        if keep is not None:
            keep = jnp.cumprod(keep, axis=1).astype(bool)
            seen = keep[:, : len(groups)].sum(1, dtype=jnp.int32)
            kept = keep[:, -1] if history is not None else None
        return self.denoiser(z, t, *self.prompt(), tuple(groups), seen, history, kept)
