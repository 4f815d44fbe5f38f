"""X-Portrait (arXiv 2403.15931): a reference encoder and two ControlNets around a denoiser.

The reference encoder sees the clean portrait at the denoiser's own time step, so that what it
tells changes with every step, but not from frame to frame. One ControlNet follows the driver's
picture, the other squares around its eyes and mouth; both see the noisy latents. Cross-attention
looks at one constant context, the empty prompt. Guidance leaves out all of them but the context.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from durian_jax.models.attention import KeyValue, References
from durian_jax.models.autoencoder import signed
from durian_jax.models.blocks import fold
from durian_jax.models.conditions import ConstantContext
from durian_jax.models.unet import UNet
from durian_jax.systems.model import Model
from durian_jax.systems.shape import align_encoders
from durian_jax.systems.x_portrait.config import XPortraitConfig


def build(values: Mapping) -> "XPortrait":
    """The system of `config.model`. Raises ValueError: values that do not fit together."""
    return XPortrait(XPortraitConfig.from_dict(values))


@struct.dataclass
class Sources:
    """What is known of the person.

    Attributes:
        latents: clean, float32 [B, N, h, w, c], N pictures.
        references: of `at_time`, a KeyValue [1, b, J, heads, D] for every site, b times; None
            before.
    """

    latents: jax.Array
    references: tuple[KeyValue, ...] | None = None


@struct.dataclass
class Controls:
    """Features [B, F, h, w, C0] of the control pictures: the whole, and eyes and mouth or None."""

    whole: jax.Array
    local: jax.Array | None = None


class XPortrait(Model):
    """The whole model. Letters of shapes: see `durian_jax.models`."""

    config: XPortraitConfig

    parts = ("conditions",)
    frame_inputs = ("control", "local_control")
    timed = True

    @property
    def networks(self) -> tuple[str, ...]:
        names = ("denoiser", *self._encoders, "prompt")
        return names + (("autoencoder",) if self.config.autoencoder == "kl" else ())

    @property
    def _encoders(self) -> tuple[str, ...]:
        names = ("portrait_encoder", "control")
        return names + (("local_control",) if self.config.local_control else ())

    @nn.nowrap
    def align(self, params: dict) -> dict:
        """See `align_encoders`; the ControlNets start as the denoiser's way down."""
        return align_encoders(params, self._encoders)

    @nn.nowrap
    def blank_batch(self, clips: int, frames: int) -> dict[str, jax.Array]:
        """The batch contract in zeros; S x S pixels.

        Returns:
            video uint8 [B, F, S, S, 3]; portrait uint8 [B, S, S, 3]; control uint8 [B, F, S, S, 3],
            what the frames follow, and local_control likewise, black but for eyes and mouth; id
            int32 [B], number of the record.
        """
        picture = (self.size, self.size, 3)
        return {
            "video": jnp.zeros((clips, frames, *picture), jnp.uint8),
            "portrait": jnp.zeros((clips, *picture), jnp.uint8),
            "control": jnp.zeros((clips, frames, *picture), jnp.uint8),
            "local_control": jnp.zeros((clips, frames, *picture), jnp.uint8),
            "id": jnp.zeros((clips,), jnp.int32),
        }

    def setup(self):
        config = self.config
        self.autoencoder = config.make_autoencoder()
        channels = self.autoencoder.channels
        shared = {"in_channels": channels, "context_dim": config.context_dim}
        trunk = {"out_channels": 0, "control_channels": config.control_channels, **shared}
        self.portrait_encoder = UNet(config.unet(out_channels=0, **shared))
        self.control = UNet(config.unet(**trunk))
        if config.local_control:
            self.local_control = UNet(config.unet(**trunk))
        self.prompt = ConstantContext(config.prompt_tokens, config.context_dim)
        self.denoiser = UNet(config.unet(out_channels=channels, temporal=config.temporal, **shared))

    def encode_clip(self, batch: Mapping[str, jax.Array]) -> Sources:
        """The latents of `portrait` uint8 [B, H, W, 3] and, if there are, of further pictures of
        the person, `references` uint8 [B, N - 1, H, W, 3]."""
        pictures = batch["portrait"][:, None]
        if "references" in batch:
            pictures = jnp.concatenate([pictures, batch["references"]], axis=1)
        return Sources(self.encode_video(pictures))

    def at_time(self, clip: Sources, t: jax.Array) -> Sources:
        """Runs the reference encoder and projects its tokens for the denoiser.

        Args:
            t: int32 [B], or [B, F] where each frame has its own.
        """
        latents = jnp.repeat(clip.latents, t.size // len(clip.latents), axis=0)
        count = latents.shape[1]
        bank = self.portrait_encoder.capture(
            fold(latents), jnp.repeat(t.reshape(-1), count), self.prompt()
        )
        bank = tuple(tokens.reshape(t.size, -1, tokens.shape[-1]) for tokens in bank)
        references = self.denoiser.project_references(bank)
        return clip.replace(references=jax.tree.map(lambda x: x[None], references))

    def encode_frames(self, batch: Mapping[str, jax.Array]) -> Controls:
        """Of `control` and `local_control`, uint8 [B, F, H, W, 3] each."""

        def features(network, pictures):
            encoded = network.encode_pictures(signed(fold(pictures)))
            return encoded.reshape(*pictures.shape[:2], *encoded.shape[1:])

        whole = features(self.control, batch["control"])
        if not self.config.local_control:
            return Controls(whole)
        return Controls(whole, features(self.local_control, batch["local_control"]))

    def predict(
        self,
        z: jax.Array,
        t: jax.Array,
        clip: Sources,
        frames: Controls,
        parts: tuple[str, ...],
        keep: jax.Array | None = None,
    ) -> jax.Array:
        """One evaluation of the denoiser.

        Args:
            z: noisy latents, [B, F, h, w, c].
            t: int32 [B]; the frames of a clip share theirs. Or [B, F] without temporal layers.
            clip: of `at_time`. frames: of `encode_frames`.
            parts: () is the unconditional branch of guidance, without references and controls.
            keep: bool [B, len(parts)]; False makes a single clip unconditional.

        Returns:
            float32 [B, F, h, w, c], in the units of the training target.
        """
        noisy, times, context = fold(z), t.reshape(-1), self.prompt()
        references = residuals = None
        if parts:
            residuals = self.control.control(noisy, times, fold(frames.whole), context)
            if frames.local is not None:
                local = self.local_control.control(noisy, times, fold(frames.local), context)
                residuals = tuple(sum(pair) for pair in zip(residuals, local))
            if keep is not None:
                keep = keep[:, 0]
                each = jnp.repeat(keep, z.shape[1])[:, None, None, None]
                residuals = tuple(jnp.where(each, residual, 0) for residual in residuals)
                keep = jnp.repeat(keep, t.size // len(keep))
            mix = jnp.ones((1, t.size, 1))
            references = tuple(References(tokens, mix, keep) for tokens in clip.references)
        output = self.denoiser(noisy, times, context, references, None, residuals)
        return output.reshape(z.shape)
