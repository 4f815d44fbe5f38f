"""The shape of the whole model, in plain values."""

import dataclasses

from durian_jax.models.unet import UNetConfig
from durian_jax.systems.shape import SINGLE_CONTEXT, Shape


@dataclasses.dataclass(frozen=True)
class XPortraitConfig(Shape):
    """As Shape; the defaults are those of the published checkpoint.

    Attributes:
        control_channels: of the encoders in both ControlNets, one stride-2 stage between
            neighbours.
        local_control: whether there is a ControlNet for eyes and mouth alone; False is the paper's
            ablation.
        prompt_tokens: length of the context, which is the same for all pictures.

    Raises:
        ValueError: values that do not fit together.
    """

    max_frames: int = 24
    control_channels: tuple[int, ...] = (16, 32, 96, 256)
    local_control: bool = True
    prompt_tokens: int = 77

    def __post_init__(self):
        super().__post_init__()
        self.check_encoder("control_channels")
        if self.prompt_tokens < 1 or self.context_dim < 1:
            raise ValueError(
                f"prompt_tokens={self.prompt_tokens} of context_dim={self.context_dim}: use 1 or "
                "more of each"
            )

    def unet(self, **fields) -> UNetConfig:
        """As in Shape; motion modules are where X-Portrait has them."""
        own = {"temporal_mid": False, "temporal_after_upsampler": True}
        return super().unet(**own | fields)

    def dead_parameters(self) -> tuple[str, ...]:
        """Patterns of parameters that no output depends on."""
        patterns = tuple(f"portrait_encoder/{tail}" for tail in self.unread())
        if self.prompt_tokens == 1:
            patterns += (SINGLE_CONTEXT,)
        return patterns
