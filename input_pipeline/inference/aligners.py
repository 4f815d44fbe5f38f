"""Where another person's attribute will lie on the portrait: one interface, several ways.

The portrait hides that region beside its own attribute (Eq. 13). A third way, `self`, needs a
trained model: see `durian_jax.animation.animator.Animator`.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from input_pipeline.errors import InputError
from input_pipeline.inference.subject import Subject
from input_pipeline.masks import alignment

# (attribute source, kind, its mask bool [S, S], portrait) -> bool [S, S] in the portrait's.
Aligner = Callable[[Subject, str, np.ndarray, Subject], np.ndarray]


def load(spec: str) -> Aligner:
    """The aligner of a spec as on the command line: geometric, or files:FOLDER.

    Raises InputError for anything else.
    """
    name, _, source = spec.partition(":")
    if spec == "geometric":
        return geometric
    if name == "files" and source:
        return Files(Path(source))
    raise InputError(f"{spec}: unknown: use geometric, self or files:FOLDER", option="aligner")


def geometric(
    attribute_source: Subject, kind: str, mask: np.ndarray, portrait: Subject
) -> np.ndarray:
    """The mask carried over in three dimensions, see `alignment.align`."""
    size = len(portrait.image)
    return alignment.align(mask, attribute_source.keypoints, portrait.keypoints, kind, size)


@dataclasses.dataclass(frozen=True)
class Files:
    """Masks painted by hand or by another program: FOLDER/KIND.png, as large as the portrait's
    photo, white where the attribute will lie."""

    folder: Path

    def __call__(
        self, attribute_source: Subject, kind: str, mask: np.ndarray, portrait: Subject
    ) -> np.ndarray:
        return portrait.read_mask(self.folder / f"{kind}.png") > 0
