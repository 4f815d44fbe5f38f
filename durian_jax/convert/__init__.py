"""Other people's weights in, ours out: `durian convert`.

A source module (diffusers, diffusers_flax, animatediff, moore, arcface, durian) turns a folder or
file into a `Source`: what its config says of the model, and its tensors by the keys of diffusers.
`importer` joins sources, fits every tensor to one parameter and writes a folder of weights.
`exporter` goes the other way. `names` has the one table between torch keys and parameter paths.
"""

import dataclasses

from durian_jax.weights.storage import Stored


@dataclasses.dataclass(frozen=True)
class Source:
    """What a folder or file gives.

    Attributes:
      name: the folder or file, for messages.
      fields: fields of DurianConfig that follow from it; nested configs are dicts. Besides them
        `latent_size`, the side of the latents it was made for.
      weights: top-level network -> torch key as in diffusers -> tensor.
      settings: other parts of the config that come with the weights, such as `diffusion`.
    """

    name: str
    fields: dict
    weights: dict[str, dict[str, Stored]]
    settings: dict = dataclasses.field(default_factory=dict)
