"""Motion modules of AnimateDiff: `mm_sd_v15_v2.ckpt` and its kin, torch or safetensors."""

import re
from pathlib import Path

from durian_jax.convert.names import Table, rename
from durian_jax.convert.source import Source
from durian_jax.convert.sources.files import open_weights
from durian_jax.weights.storage import Stored
from input_pipeline.errors import InputError

# AnimateDiff's names, which Animate Anyone has too, to those of diffusers' MotionAdapter.
MOTION: Table = (
    (r"\.temporal_transformer\.", "."),
    (r"\.attention_blocks\.0\.pos_encoder\.", ".attn1.pos_encoder."),
    (r"\.attention_blocks\.0\.", ".attn1."),
    (r"\.attention_blocks\.1\.", ".attn2."),
    (r"\.norms\.0\.", ".norm1."),
    (r"\.norms\.1\.", ".norm2."),
    (r"\.ff_norm\.", ".norm3."),
)


def read(path: Path) -> Source:
    """A file of motion modules. Raises InputError if it holds none, or not in the middle block."""
    weights = rename(open_weights(path), MOTION)
    motion = {key: stored for key, stored in weights.items() if "motion_modules" in key}
    if not motion:
        raise InputError(f"{path}: holds no motion modules: give a file such as mm_sd_v15_v2.ckpt")
    return Source(str(path), motion_fields(motion), {"denoiser": weights})


def motion_fields(motion: dict[str, Stored], heads: int = 8) -> dict:
    """Fields of `config.model` that motion modules tell, by their shapes.

    Raises:
      InputError: modules of one-sided models (AnimateDiff v1 and v3 have none in the middle).
    """
    first = next(iter(motion.values()))
    if not any(key.startswith("mid_block.") for key in motion):
        raise InputError(
            f"{first.file}: has no motion module in the middle block (mid_block.motion_modules.0): "
            "use version 2, mm_sd_v15_v2"
        )
    norm = re.compile(r"down_blocks\.(\d+)\.motion_modules\.(\d+)\.norm\.weight")
    widths = {
        norm.fullmatch(key).groups(): motion[key].shape[0] for key in motion if norm.match(key)
    }
    fields = {"temporal": True, "temporal_heads": heads}
    if widths:
        levels = sorted({level for level, _ in widths}, key=int)
        fields["channels"] = tuple(widths[level, "0"] for level in levels if (level, "0") in widths)
        fields["layers_per_block"] = len({layer for _, layer in widths})
    tables = [stored.shape[1] for key, stored in motion.items() if key.endswith(".pe")]
    return fields | ({"max_frames": min(tables)} if tables else {})
