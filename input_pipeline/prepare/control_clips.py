"""Clips that a reenactor made: somebody else with the motion of a clip, for its control track.

For the clip a/b.mp4 it is CONTROL/a/b.mp4, of any suffix, or the pictures of the folder
CONTROL/a/b in the order of their names; a frame for each frame of the clip. They are cropped round
their own face, by the rule by which clips are: whatever framing the reenactor has will do.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

import numpy as np

from input_pipeline.dataset.store import Store
from input_pipeline.errors import InputError
from input_pipeline.faces import geometry
from input_pipeline.faces.landmarker import FaceLandmarker
from input_pipeline.media import video
from input_pipeline.media.pictures import PICTURE_SUFFIXES, read_picture


@dataclasses.dataclass(frozen=True)
class ControlClip:
    """One of them. files: the clip, or its pictures in order. version: changes when they do."""

    store: Store
    files: tuple[str, ...]
    version: str

    def __str__(self) -> str:
        name = PurePosixPath(self.files[0])
        return self.store.url(str(name.parent if len(self.files) > 1 else name))

    def frames(self) -> Iterator[np.ndarray]:
        """Yields uint8 [H, W, 3] RGB. InputError: unreadable, or of several sizes."""
        shape = None
        for frame in self._frames():
            if frame.shape != (shape := shape or frame.shape):
                raise InputError(f"{self}: frames of {_size(shape)} and of {_size(frame.shape)}")
            yield frame

    def _frames(self) -> Iterator[np.ndarray]:
        for name in self.files:
            with self.store.reading(name) as root:
                if _is(name, video.VIDEO_SUFFIXES):
                    yield from video.read_frames(root / name)
                else:
                    yield read_picture(root / name)


@dataclasses.dataclass(frozen=True)
class ControlFace:
    """The face of a control clip. keypoints: float32 [T, 478, 3] in its pixels, of fresh frames."""

    clip: ControlClip
    keypoints: np.ndarray
    crop: geometry.Crop


def find(store: Store, clips: Iterable[str]) -> dict[str, ControlClip]:
    """The control clip of each clip that has one. InputError: no such folder, or two for a clip."""
    if not store.exists():
        raise InputError(f"{store}: no such folder", option="control")
    found: dict[PurePosixPath, list[tuple[str, str]]] = {}
    for name, version in store.files().items():
        path = PurePosixPath(name)
        if _is(name, video.VIDEO_SUFFIXES):
            found.setdefault(path.with_suffix(""), []).append((name, version))
        elif _is(name, PICTURE_SUFFIXES):
            found.setdefault(path.parent, []).append((name, version))
    chosen = {}
    for clip in clips:
        files = sorted(found.get(PurePosixPath(clip).with_suffix(""), []))
        films = [name for name, _ in files if _is(name, video.VIDEO_SUFFIXES)]
        if films and len(files) > 1:
            names = " and ".join(name for name, _ in files[:2])
            raise InputError(f"{store}: {names} both stand for {clip}: keep one", option="control")
        if files:
            names, versions = zip(*files)
            chosen[clip] = ControlClip(store, names, " ".join(versions))
    return chosen


def follow(
    clip: ControlClip, fresh: np.ndarray, runs: list[range], landmarker: FaceLandmarker
) -> ControlFace:
    """Follows the face.

    Args:
      fresh, runs: of the clip that the motion is from, see `chunks.FaceTrack`.

    Raises:
      InputError: another number of frames, or a frame that is needed shows no face.
    """
    count, shape = 0, ()

    def chosen() -> Iterator[np.ndarray]:
        nonlocal count, shape
        for frame in clip.frames():
            if count < len(fresh) and fresh[count]:
                shape = frame.shape
                yield frame
            count += 1

    keypoints, usable = geometry.fill_gaps(landmarker.track(chosen()))
    if count != len(fresh):
        raise InputError(f"{clip}: {count} frames, the clip has {len(fresh)}: make one for each")
    wanted = np.concatenate([np.arange(run.start, run.stop) for run in runs])
    if not usable[wanted].all():
        first = np.flatnonzero(fresh)[wanted[~usable[wanted]][0]]
        raise InputError(f"{clip}: no face in frame {first}, which the clip has: make it again")
    return ControlFace(clip, keypoints, geometry.Crop.around(keypoints[wanted], *shape[:2]))


def _is(name: str, suffixes: frozenset[str]) -> bool:
    return PurePosixPath(name).suffix.lower() in suffixes


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]} pixels"
