"""Folders of the Flax classes that diffusers (until 0.39) and transformers (until 4.57) had.

The weights are `diffusion_flax_model.msgpack` or `flax_model.msgpack`, config.json is the same.
Their layout is ours; their names are those of the torch keys once levels are dots.
"""

import re
from pathlib import Path

from durian_jax.convert.names import torch_key, unwrapped
from durian_jax.convert.source import Source
from durian_jax.convert.sources.diffusers import read_folder
from durian_jax.convert.sources.files import open_weights
from durian_jax.convert.sources.folders import listed
from durian_jax.weights.storage import Stored
from input_pipeline.errors import InputError

_FILES = ("diffusion_flax_model.msgpack", "flax_model.msgpack")


def read(path: Path) -> Source:
    """A model folder or a pipeline folder. Raises InputError, as `diffusers.read` does."""
    return read_folder(Path(path), _weights)


def _weights(folder: Path) -> dict[str, Stored]:
    for name in _FILES:
        if (folder / name).is_file():
            tensors = open_weights(folder / name)
            return unwrapped({_key(path): stored for path, stored in tensors.items()})
    raise InputError(
        f"{folder}: no Flax weights: expected {' or '.join(_FILES)}, there is {listed(folder)}"
    )


def _key(path: str) -> str:
    """ControlNet's blocks_0 and CLIP's layers/0 are both lists."""
    return re.sub(r"^params\.", "", torch_key(path))
