"""A system that compiles in a second, where the run is tested and not the model."""

import dataclasses
from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp

from durian_jax.systems.model import Model

WIDTH = 128  # a square kernel of it is just large enough to be sharded


@dataclasses.dataclass(frozen=True)
class ToyConfig:
    resolution: int
    patch: int
    max_frames: int = 24


def build(values: Mapping) -> "Toy":
    return Toy(ToyConfig(**values))


class Toy(Model):
    """Looks at the portrait, keypoints and time. The autoencoder is a linear map of patches."""

    config: ToyConfig

    parts = ("portrait",)
    frame_inputs = ("keypoints",)
    networks = ("denoiser", "autoencoder")
    temporal = False

    @property
    def latent_shape(self):
        side = self.config.resolution // self.config.patch
        return side, side, self.config.patch**2 * 3

    @nn.nowrap
    def blank_batch(self, clips, frames):
        picture = (self.size, self.size, 3)
        return {
            "video": jnp.zeros((clips, frames, *picture), jnp.uint8),
            "keypoints": jnp.zeros((clips, frames, 478, 2), jnp.float32),
            "portrait": jnp.zeros((clips, *picture), jnp.uint8),
            "id": jnp.zeros((clips,), jnp.int32),
        }

    @nn.nowrap
    def dead_parameters(self):
        return ()

    @nn.nowrap
    def align(self, params):
        return params

    def setup(self):
        self.autoencoder = nn.Dense(self.latent_shape[-1])
        self.decoder = nn.Dense(self.latent_shape[-1])
        self.denoiser = nn.Sequential(
            [nn.Dense(WIDTH), nn.gelu, nn.Dense(WIDTH), nn.gelu, nn.Dense(self.latent_shape[-1])]
        )

    def __call__(self, batch, z, t, keep=None):
        if self.is_initializing():
            self.decode_video(z)
        return self.predict(
            z, t, self.encode_clip(batch), self.encode_frames(batch), self.parts, keep
        )

    def encode_video(self, video, noise=None):
        *lead, height, width, _ = video.shape
        patch = self.config.patch
        x = video.reshape(*lead, height // patch, patch, width // patch, patch, 3)
        x = jnp.moveaxis(x, -4, -3) / 127.5 - 1
        return self.autoencoder(x.reshape(*x.shape[:-3], -1))

    def decode_video(self, latents):
        *lead, height, width, _ = latents.shape
        patch = self.config.patch
        x = jnp.moveaxis(
            self.decoder(latents).reshape(*lead, height, width, patch, patch, 3), -3, -4
        )
        return x.reshape(*lead, height * patch, width * patch, 3)

    def encode_clip(self, batch):
        return self.encode_video(batch["portrait"][:, None])

    def encode_frames(self, batch):
        return batch["keypoints"].mean(2)[:, :, None, None] / self.size

    def predict(self, z, t, clip, frames, parts, keep=None):
        if not parts:
            clip = jnp.zeros_like(clip)
        if keep is not None:
            clip *= keep.reshape(-1, 1, 1, 1, 1)
        time = t.reshape(*t.shape, *(1,) * (5 - t.ndim)) / 1000.0
        seen = [jnp.broadcast_to(x, (*z.shape[:-1], x.shape[-1])) for x in (clip, frames, time)]
        return self.denoiser(jnp.concatenate([z, *seen], -1))
