"""Attribute masks (hair, glasses, beard, hat) of portrait crops: one interface, many backends."""

import abc
import dataclasses
import functools
import importlib
from pathlib import Path

import numpy as np

from input_pipeline.errors import InputError
from input_pipeline.faces import geometry


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Crops of one face: consecutive frames of a clip, or one photo.

    Attributes:
      images: uint8 [T, S, S, 3] RGB, head and shoulders, about 2.3 times as wide as the face.
      keypoints: float32 [T, 478, 3], pixels of `images`, z growing away from the camera.
      source: the clip, relative to the folder of the clips, or the photo's file name.
      frames: int [T], indices of the frames in the source, as it is read at an even rate, from 0.
      source_shape: height and width of the source's pictures.
      crop: source pixels -> pixels of `images`.
      turns: quarter turns that set the source upright, as its shape and the crop take it to be, see
        `orientation.turn`.

    The last five are what masks from files need; pictures that come from no file go without.

    Raises:
      InputError: pictures or keypoints of another shape or type.
    """

    images: np.ndarray
    keypoints: np.ndarray
    source: Path | None = None
    frames: np.ndarray | None = None
    source_shape: tuple[int, int] | None = None
    crop: geometry.Crop | None = None
    turns: int = 0

    def __post_init__(self):
        shape = self.images.shape
        if self.images.dtype != np.uint8 or shape[1:] != (*shape[1:2] * 2, 3):
            raise InputError(f"pictures {self.images.dtype} {shape}: crop them to square uint8 RGB")
        if self.keypoints.shape != (len(self.images), 478, 3):
            raise InputError(
                f"keypoints {self.keypoints.shape}: give one face's [478, 3] for each of "
                f"{len(self.images)} pictures"
            )


class Segmenter(abc.ABC):
    """Finds attributes. `str()` of it, name and version, is kept in the record.

    Attributes:
      name: as in the spec that `load` takes.
      version: changes with anything that changes the masks.
      kinds: what it can find, out of `records.KINDS`.
      tells_presence: its masks are empty where an attribute is not there; else they are where it
        would be.
    """

    name: str
    version: str
    kinds: frozenset[str]
    tells_presence = True

    def __str__(self):
        return f"{self.name} {self.version}"

    def __call__(self, pictures: Pictures, present: frozenset[str]) -> dict[str, np.ndarray]:
        """The masks of the attributes that the pictures are known to show.

        Returns:
          For each kind in `present` a bool [T, S, S] mask, empty where nothing was found.

        Raises:
          InputError: a kind that this segmenter cannot find.
        """
        self.require(present)
        return self._masks(pictures, present)

    def require(self, present: frozenset[str]) -> None:
        """Raises InputError unless all the kinds can be found."""
        if lacking := sorted(present - self.kinds):
            raise InputError(
                f"masks by {self.name}: cannot find {', '.join(lacking)}, only "
                f"{', '.join(sorted(self.kinds))}: choose another segmenter, or do without"
            )

    @abc.abstractmethod
    def _masks(self, pictures: Pictures, present: frozenset[str]) -> dict[str, np.ndarray]: ...


# Module, class, and what follows the name in a spec.
_BACKENDS = {
    "heuristic": ("heuristic", "HeuristicSegmenter", ""),
    "parser": ("parser", "ParserSegmenter", "FILE[,classes=NAME]"),
    "segformer": ("hub", "SegformerSegmenter", "FOLDER_OR_HUB_ID"),
    "sapiens2": ("hub", "Sapiens2Segmenter", "FOLDER_OR_HUB_ID"),
    "sam2": ("sam2", "Sam2Segmenter", "FOLDER_OR_HUB_ID"),
    "files": ("files", "FilesSegmenter", "FOLDER"),
    "truth": ("files", "TruthSegmenter", "FOLDER"),
}


@functools.cache
def load(spec: str) -> Segmenter:
    """The segmenter of a spec as on the command line: NAME or NAME:SOURCE; one per process.

    Raises InputError for an unknown name, or a source that cannot be used.
    """
    name, _, source = spec.partition(":")
    if name not in _BACKENDS or bool(source) == (name == "heuristic"):
        known = ", ".join(f"{key}:{text}" if text else key for key, (*_, text) in _BACKENDS.items())
        raise InputError(f"{spec}: unknown segmenter: choose from {known}", option="masks")
    module, kind, _ = _BACKENDS[name]
    backend = getattr(importlib.import_module(f"{__name__}.{module}"), kind)
    try:
        return backend(source) if source else backend()
    except InputError as error:
        raise InputError(str(error), option="masks") from error
    except Exception as error:  # what onnxruntime, LiteRT and transformers raise is open-ended
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise InputError(f"{spec}: {reason}: docs/masks.md says what fits", "masks") from error


def split_options(source: str, known: tuple[str, ...]) -> tuple[str, dict[str, str]]:
    """The path, which may hold commas, and the options at the end of PATH[,key=value,...]."""
    options = {}
    while (parts := source.rpartition(","))[0] and (option := parts[2].partition("="))[1]:
        source, (key, _, value) = parts[0], option
        if key not in known:
            raise InputError(f"unknown option {key}={value}: choose from {', '.join(known)}")
        options[key] = value
    return source, options
