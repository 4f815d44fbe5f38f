"""A model that compiles in a second, where the run is tested and not the model."""

import flax.linen as nn
import jax.numpy as jnp

from durian_jax.systems.durian.config import DurianConfig

WIDTH = 128  # a square kernel of it is just large enough to be sharded


class Toy(nn.Module):
    """The interface of Durian that training needs; looks at pictures, keypoints and time.

    The autoencoder is frozen, the denoiser trains, by patterns as in smallest.py.
    """

    config: DurianConfig

    def setup(self):
        self.autoencoder = nn.Dense(self.config.latent_shape[-1])
        self.denoiser = nn.Sequential(
            [nn.Dense(WIDTH), nn.gelu, nn.Dense(WIDTH), nn.gelu]
            + [nn.Dense(self.config.latent_shape[-1])]
        )

    def __call__(self, batch: dict, latents, timesteps, keep=None):
        portrait = self.encode_video(batch["portrait"][:, None])
        if keep is not None:
            portrait *= keep.reshape(-1, 1, 1, 1, 1)
        points = batch["keypoints"].mean(2)[:, :, None, None] / self.config.resolution
        time = timesteps.reshape(-1, 1, 1, 1, 1) / 1000.0
        place = (*latents.shape[:-1], -1)
        seen = [jnp.broadcast_to(x, (*place[:-1], x.shape[-1])) for x in (portrait, points, time)]
        return self.denoiser(jnp.concatenate([latents, *seen], -1))

    def encode_video(self, video, noise=None):
        """uint8 [B, F, H, W, 3] -> latents float32 [B, F, h, w, c]."""
        *lead, height, width, _ = video.shape
        patch = self.config.patch
        x = video.reshape(*lead, height // patch, patch, width // patch, patch, 3)
        x = jnp.moveaxis(x, -4, -3) / 127.5 - 1
        return self.autoencoder(x.reshape(*x.shape[:-3], -1))


def install() -> None:
    """Makes the training of this process build the toy."""
    from durian_jax.training import train_step

    train_step.Durian = Toy
