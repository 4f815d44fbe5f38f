"""Config fields and tensors that a folder or file of weights gives."""

import dataclasses

from durian_jax.weights.storage import Stored

# Networks that start as one plain U-Net, in the systems that have them; the denoiser first.
UNETS = ("denoiser", "portrait_encoder", "attribute_encoder", "control", "local_control")


@dataclasses.dataclass(frozen=True)
class Source:
    """What a folder or file gives.

    Attributes:
      name: the folder or file, for messages.
      fields: fields of `config.model` that follow from it; nested configs are dicts. Besides them
        `latent_size`, the side of the latents it was made for.
      weights: top-level network -> torch key as in diffusers -> tensor.
      settings: other parts of the config that come with the weights, such as `diffusion`.
      system: that they can be of alone; None for any.
    """

    name: str
    fields: dict
    weights: dict[str, dict[str, Stored]]
    settings: dict = dataclasses.field(default_factory=dict)
    system: str | None = None
