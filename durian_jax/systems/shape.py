"""The shape that the systems on a Stable Diffusion U-Net share, in plain values."""

import dataclasses

import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from durian_jax.models.unet import UNetConfig
from durian_jax.systems.pictures import Pictures

# What cross attention does not depend on where its context is one token: queries and keys. In a
# motion module the same names are those of a second attention between frames, which does.
SINGLE_CONTEXT = r".*/attentions_\d+/.*/(attn2/to_(q|k)|norm2)/"


@dataclasses.dataclass(frozen=True)
class Shape(Pictures):
    """As Pictures, and U-Nets; the defaults are the full size.

    Attributes:
        channels, layers_per_block, attention_levels, heads, norm_groups, remat: shape of all
            U-Nets, see UNetConfig.
        context_dim: size of cross-attention tokens.
        temporal, temporal_heads, max_frames, temporal_norm: motion modules of the denoiser, see
            UNetConfig.

    Raises:
        ValueError: values that do not fit together.
    """

    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers_per_block: int = 2
    attention_levels: tuple[int, ...] = (0, 1, 2)
    heads: int = 8
    context_dim: int = 768
    norm_groups: int = 32
    temporal: bool = False
    temporal_heads: int = 8
    max_frames: int = 32
    temporal_norm: str = "frame"
    remat: tuple[str, ...] = ()

    def __post_init__(self):
        super().__post_init__()
        coarsest = 2 ** (len(self.channels) - 1)
        if self.resolution % (self.factor * coarsest):
            raise ValueError(
                f"resolution={self.resolution} is not a multiple of {self.factor * coarsest}, "
                f"{self.factor} pixels per latent cell times {coarsest} cells at the last level"
            )
        self.unet(temporal=self.temporal)  # Checks what the U-Nets share.

    def check_encoder(self, name: str) -> None:
        """ValueError: an encoder of pictures, see KeypointEncoder, shrinks them as latents do."""
        shrink = 2 ** (len(getattr(self, name)) - 1)
        if shrink != self.factor:
            raise ValueError(
                f"{name} shrink the picture {shrink} times, but a latent cell is "
                f"{self.factor} pixels wide"
            )

    def unet(self, **fields) -> UNetConfig:
        """The shape that all U-Nets share, with the given fields on top."""
        shared = {
            "block_out_channels": self.channels,
            "layers_per_block": self.layers_per_block,
            "attention_levels": self.attention_levels,
            "heads": self.heads,
            "norm_groups": self.norm_groups,
            "temporal_heads": self.temporal_heads,
            "max_frames": self.max_frames,
            "temporal_norm": self.temporal_norm,
            "dtype": self.dtype,
            "remat": self.remat,
        }
        return UNetConfig(**shared | fields)

    def unread(self) -> tuple[str, ...]:
        """Patterns of a reference encoder's parameters that its tokens do not depend on.

        It ends at the tokens of its last attention, in the finest level that has any.
        """
        levels = len(self.channels)
        end = levels - 1 - min(self.attention_levels)
        tails = (
            f"up_blocks_{end}/attentions_{self.layers_per_block}/"
            "(proj_out|transformer_blocks_0/(attn1|attn2|norm2|norm3|ff))/",
        )
        if end < levels - 1:
            tails += (f"up_blocks_{end}/upsamplers_0/",)
            tails += tuple(f"up_blocks_{block}/" for block in range(end + 1, levels))
        return tails


def align_encoders(params: dict, encoders: tuple[str, ...]) -> dict:
    """Initial parameters with which training from scratch finds the references sooner.

    The encoders start as copies of the denoiser, as they do where all come from the same
    pre-trained U-Net, and keys start as queries do. Attention then begins by matching what is
    alike, such as the same place of a face, instead of having to find out what to match.

    Args:
        params: freshly drawn; further input channels of an encoder stay as they were drawn.
        encoders: top-level names.
    """
    leaves = flatten_dict(params)
    for path in leaves:
        if path[0] in encoders:
            like, own = leaves.get(("denoiser", *path[1:])), leaves[path]
            if like is not None and like.shape == own.shape:
                leaves[path] = like
            elif path[1:] == ("conv_in", "kernel"):
                leaves[path] = jnp.concatenate([like, own[:, :, like.shape[2] :]], axis=2)
    for path in leaves:
        if path[-3:-1] == ("attn1", "to_k") and "motion_modules" not in "/".join(path):
            leaves[path] = leaves[(*path[:-2], "to_q", path[-1])]
    return unflatten_dict(leaves)
