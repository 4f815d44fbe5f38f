"""Masks from disk: made by hand, by another program, or by the renderer.

For the clip a/b.mp4 the mask of frame 7 is FOLDER/a/b/KIND/00007.png, as large as the frame, white
where the attribute shows; for the photo b.png it is FOLDER/b/KIND/00000.png.
"""

import hashlib
import json
import os
from pathlib import Path

import numpy as np

from input_pipeline.errors import InputError
from input_pipeline.faces import orientation
from input_pipeline.kinds import KINDS
from input_pipeline.masks.segmenters import Pictures, Segmenter
from input_pipeline.media.mask_pictures import read_mask

TRUTH = "truth.json"  # which renderer made a folder of masks


class FilesSegmenter(Segmenter):
    """Spec files:FOLDER."""

    name = "files"
    kinds = frozenset(KINDS)

    def __init__(self, source: str):
        """Raises InputError if there is no such folder."""
        self._folder = Path(source)
        if not self._folder.is_dir():
            raise InputError(f"{self.name}:{source}: no such folder")

    @property
    def version(self) -> str:
        """Changes with any file: a digest of names, sizes and times, read again on every call."""
        digest = hashlib.sha256()
        for folder, folders, files in os.walk(self._folder, followlinks=True):
            folders.sort()
            for file in sorted(files):
                stat = os.stat(os.path.join(folder, file))
                name = os.path.relpath(os.path.join(folder, file), self._folder)
                digest.update(f"{name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        return digest.hexdigest()[:12]

    def _masks(self, pictures: Pictures, present: frozenset[str]) -> dict[str, np.ndarray]:
        if pictures.source is None:
            raise InputError(
                f"masks by {self.name}: the pictures come from no file; choose another"
            )
        folder, size = self._folder / pictures.source.with_suffix(""), pictures.images.shape[1]
        return {
            kind: np.array(
                [
                    self._mask(folder / kind / f"{frame:05d}.png", pictures, size)
                    for frame in pictures.frames
                ]
            )
            for kind in present
        }

    def _mask(self, path: Path, pictures: Pictures, size: int) -> np.ndarray:
        if not path.is_file():
            raise InputError(f"{path}: no such mask: write it, or take the kind out of the labels")
        covered = orientation.turn(read_mask(path), pictures.turns)
        if covered.shape != tuple(pictures.source_shape):
            (height, width), wanted = covered.shape, "x".join(map(str, pictures.source_shape[::-1]))
            raise InputError(f"{path}: {width}x{height} pixels, {pictures.source} has {wanted}")
        return pictures.crop.apply(covered.astype(np.uint8) * 255, size) > 127


class TruthSegmenter(FilesSegmenter):
    """Spec truth:FOLDER: masks that `durian synth --videos` rendered; its version is theirs."""

    name = "truth"
    version = ""

    def __init__(self, source: str):
        """Raises InputError if the folder's TRUTH does not name the renderer."""
        super().__init__(source)
        facts = self._folder / TRUTH
        try:
            self.version = str(json.loads(facts.read_text())["renderer"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{facts}: does not name the renderer ({error!r}): use files:{source} for masks "
                "that durian synth did not write"
            ) from None
