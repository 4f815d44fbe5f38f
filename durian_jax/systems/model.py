"""What the models of all systems have in common."""

from collections.abc import Mapping

import flax.linen as nn
import jax

from durian_jax.models.autoencoder import signed
from durian_jax.systems.pictures import Pictures


class Model(nn.Module):
    """Members of `System` that follow from a config of Pictures; `setup` makes `autoencoder`."""

    config: Pictures

    timed = False
    history = 0

    @property
    def size(self) -> int:
        return self.config.resolution

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        return self.config.latent_shape

    @property
    def max_frames(self) -> int:
        return self.config.max_frames

    @property
    def temporal(self) -> bool:
        return self.config.temporal

    @nn.nowrap
    def dead_parameters(self) -> tuple[str, ...]:
        """See the config."""
        return self.config.dead_parameters()

    @nn.nowrap
    def remarks(self, batch: dict) -> list[str]:
        """See System; nothing, unless a system knows better."""
        return []

    def __call__(
        self,
        batch: Mapping[str, jax.Array],
        z: jax.Array,
        t: jax.Array,
        keep: jax.Array | None = None,
    ) -> jax.Array:
        """The training forward pass: all that the system encodes, and `predict`.

        Args:
            batch: see `blank_batch`; `video` is used to initialise the parameters alone.
            z, t, keep: see `predict`.
        """
        if self.is_initializing():
            self.decode_video(self.encode_video(batch["video"]))
        clip = self.encode_clip(batch)
        if self.timed:
            clip = self.at_time(clip, t)
        if self.history:
            clip["history"] = self.encode_history(self.encode_video(batch["history"]))
        return self.predict(z, t, clip, self.encode_frames(batch), self.parts, keep)

    def encode_video(self, video: jax.Array, noise: jax.Array | None = None) -> jax.Array:
        """uint8 [B, F, H, W, 3] -> latents float32 [B, F, h, w, c]; see AutoencoderKL.encode."""
        return self.autoencoder.encode(signed(video), noise)

    def decode_video(self, latents: jax.Array) -> jax.Array:
        """Latents [B, F, h, w, c] -> float32 [B, F, H, W, 3], about [-1, 1], not clipped."""
        return self.autoencoder.decode(latents)
