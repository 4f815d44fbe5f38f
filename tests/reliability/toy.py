"""Makes a system known that stands outside the package, as a new one would be inside: a folder,
a config (smallest.py), a sample builder and a reader."""

from pathlib import Path

from durian_jax import systems
from input_pipeline.inference.readers import READERS, read_portrait
from input_pipeline.training.samples import SAMPLES
from input_pipeline.training.unmasked import UnmaskedOptions


def install() -> None:
    """Adds the system "toy" to this process."""
    folder = str(Path(__file__).parent / "systems")
    if folder not in systems.__path__:
        systems.__path__.append(folder)
    SAMPLES["toy"], READERS["toy"] = UnmaskedOptions, read_portrait
