"""The shape of the whole model, in plain values."""

import dataclasses
from dataclasses import field
from typing import ClassVar

from durian_jax.models.autoencoder import AutoencoderConfig
from durian_jax.models.mmdit import MMDiTConfig
from durian_jax.systems.pictures import Pictures

# Of Stable Diffusion 3.5: 16 channels, and no convolutions at the latents.
_KL = {"latent_channels": 16, "scaling": 1.5305, "shift": 0.0609, "quant_convs": False}


@dataclasses.dataclass(frozen=True)
class SVPConfig(Pictures):
    """As Pictures, and the transformer; the defaults are Stable Diffusion 3.5 Medium's size.

    Attributes:
        transformer: see MMDiTConfig.
        max_frames: most frames that are denoised together.
        history: frames before them that the denoiser can be told of; 0 for a model without.
        prompt_tokens: length of the text, which is the same for all pictures.
        remat: () or what the transformer's backward pass computes again, ("full",), see
            `blocks.remat`.

    Raises:
        ValueError: values that do not fit together.
    """

    kl: AutoencoderConfig | None = field(default_factory=lambda: AutoencoderConfig(**_KL))
    transformer: MMDiTConfig = field(default_factory=MMDiTConfig)
    max_frames: int = 16
    history: int = 3
    prompt_tokens: int = 333
    remat: tuple[str, ...] = ()

    nested: ClassVar[dict[str, type]] = {**Pictures.nested, "transformer": MMDiTConfig}

    def __post_init__(self):
        super().__post_init__()
        if self.resolution % (cell := self.factor * self.transformer.patch):
            raise ValueError(
                f"resolution={self.resolution} is not a multiple of {cell}, the pixels of a token"
            )
        self.transformer.check_grid(*self.latent_shape[:2])
        if len(self.remat) > 1:
            raise ValueError(f"remat={self.remat}: use one policy, there are no levels")
        if self.prompt_tokens < 1:
            raise ValueError(f"prompt_tokens={self.prompt_tokens}: use 1 or more")
        if not 0 <= self.history <= self.max_frames:
            raise ValueError(
                f"history={self.history}: use 0 to max_frames={self.max_frames}, the frames of the "
                "window before"
            )
        if self.history and not self.temporal:
            raise ValueError(
                f"history={self.history} is read by video attention alone: give "
                "transformer.video_layers, or history=0"
            )

    @property
    def temporal(self) -> bool:
        """Whether the frames of a clip see each other."""
        return bool(self.transformer.video_layers)

    def dead_parameters(self) -> tuple[str, ...]:
        """Patterns of parameters that no output depends on: the last block's text is never read."""
        last = f"denoiser/transformer_blocks_{self.transformer.layers - 1}"
        return (f"{last}/attn/(add_q_proj|norm_added_q)/",)
