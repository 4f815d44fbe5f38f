"""Whoever drives: a clip or a photo, tracked, or a template saved from one."""

import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np

from input_pipeline.errors import InputError
from input_pipeline.faces import geometry, orientation
from input_pipeline.faces.drawing import draw_keypoints
from input_pipeline.faces.landmarker import NUM_KEYPOINTS, FaceLandmarker, Track
from input_pipeline.media import animations, files, sound, video
from input_pipeline.media.changes import Changes
from input_pipeline.media.pictures import PICTURE_SUFFIXES, read_picture
from input_pipeline.motion import retarget
from input_pipeline.motion.smoothing import smooth

TEMPLATE = ".npz"
ALIGNMENTS = ("face", "none")
_VERSION = 1
_STILL_FPS = Fraction(25)
_MOST_FRAMES = 100_000  # more than an hour


@dataclass(frozen=True)
class Motion:
    """How the driver moves.

    Attributes:
      path: of the clip, the photo or the template.
      keypoints: float32 [F, 478, 3], pixels of the driver's own pictures; F = 1 for a photo.
      height, width: of those pictures.
      crop: a steady square around the driver's head.
      fps: frames per second.
      bridged: number of frames whose keypoints were interpolated or held.
      turns: quarter turns that set the pictures upright, see `orientation.turns`.
      notes: what the user should know about the file, without its name.
    """

    path: Path
    keypoints: np.ndarray
    height: int
    width: int
    crop: geometry.Crop
    fps: Fraction
    bridged: int
    face_count: int
    turns: int = 0
    notes: tuple[str, ...] = ()

    @property
    def sound(self) -> Path | None:
        """The clip whose sound belongs to the motion; None for a picture or a template."""
        silent = self.path.suffix == TEMPLATE or is_still(self.path)
        return None if silent or animations.is_animation(self.path) else self.path

    def frames(self, size: int) -> Iterator[np.ndarray]:
        """The driver's F cropped frames, uint8 [size, size, 3]; a template's keypoints, drawn."""
        if self.path.suffix == TEMPLATE:
            black = np.zeros((size, size, 3), np.uint8)
            for points in self.keypoints:
                yield draw_keypoints(black, self.crop.points(points, size)[:, :2])
        else:
            for frame in _pictures(self.path):
                yield self.crop.apply(orientation.turn(frame, self.turns), size)


@dataclass(frozen=True)
class MotionOptions:
    """How a portrait follows the driver.

    Attributes:
      motion: relative to the driver's first frame (the default for a clip), or absolute (always
        for a photo, which has no motion).
      smooth: strength of the smoothing of the motion, 0 = off.
      frames: with a photo: length of the clip in which the portrait moves into its pose (default
        1).
      align: of a model that follows the driver's pictures: face (the default) lays them onto the
        portrait's face, none leaves them where they are.
      best_frame: the driver's frame, from 0, by which they are laid there (default: the one whose
        face is most like the portrait's).

    Raises InputError: an unknown motion or alignment, a negative strength or frame, no frames or
    too many.
    """

    motion: Literal[retarget.MOTIONS] | None = None
    smooth: float = 1.0
    frames: int | None = None
    align: Literal[ALIGNMENTS] | None = None
    best_frame: int | None = None

    def __post_init__(self):
        if self.align not in (None, *ALIGNMENTS):
            raise InputError(f"{self.align!r}: choose {', '.join(ALIGNMENTS)}", option="align")
        if self.best_frame is not None and (self.best_frame < 0 or self.align == "none"):
            raise InputError(
                f"{self.best_frame}: use a number from 0 on, and none without alignment",
                option="best_frame",
            )
        if self.motion not in (None, *retarget.MOTIONS):
            choice = ", ".join(retarget.MOTIONS)
            raise InputError(f"motion {self.motion!r}: unknown: choose from {choice}")
        if not 0 <= self.smooth <= 100:
            raise InputError(f"smooth {self.smooth:g}: must be 0 (off) to 100; 1 is usual")
        if self.frames is not None and not 1 <= self.frames <= _MOST_FRAMES:
            raise InputError(f"frames {self.frames}: must be 1 to {_MOST_FRAMES}")

    def suffix(self, driver: str | Path) -> str:
        """Of the result's file, unless it is named: ".png" for a single picture, else ".mp4"."""
        return ".png" if self._is_picture(driver) else ".mp4"

    def check_output(self, path: str | Path, driver: str | Path) -> None:
        """InputError: a file of this name cannot hold the result, or cannot be made."""
        if not self._is_picture(driver):
            files.check_output(path, *video.OUTPUT_SUFFIXES)
            return
        if Path(path).suffix.lower() != ".png":
            raise InputError(f"{path}: a photo drives a picture: name it *.png, or give frames")
        files.check_output(path, ".png")

    def _is_picture(self, driver: str | Path) -> bool:
        return self.frames in (None, 1) and is_still(driver)

    def retarget(self, driver: Motion, portrait: np.ndarray) -> np.ndarray:
        """float32 [F, 478, 3]: the motion on a portrait [478, 3], in its pixels.

        Raises InputError: a photo (a single frame) relatively, a number of frames for a clip, or
        what is for pictures.
        """
        if self.align is not None or self.best_frame is not None:
            given = "align" if self.align is not None else "best_frame"
            raise InputError(
                "is of models that follow pictures, this one follows keypoints: leave it out",
                option=given,
            )
        points = driver.keypoints
        if len(points) == 1:
            if self.motion == "relative":
                raise InputError(
                    f"{driver.path}: a photo has no motion to follow relatively: use a clip, or "
                    "motion absolute"
                )
            target = retarget.retarget(points, portrait, "absolute")[0]
            return retarget.ease_to(portrait, target, self.frames or 1)
        if self.frames is not None:
            raise InputError(
                f"{self.frames} goes with a photo; this result is as long as its driver, "
                f"{driver.path}, {len(points)} frames",
                option="frames",
            )
        points = smooth(points, float(driver.fps), self.smooth)
        return retarget.retarget(points, portrait, self.motion or "relative")


MOTION_OPTIONS = MotionOptions()


def is_still(path: str | Path) -> bool:
    """Whether a driver is a photo: by the name of its file, unless the picture in it moves."""
    path = files.local(path)
    return path.suffix.lower() in PICTURE_SUFFIXES and not animations.is_animation(path)


def read_motion(path: str | Path, landmarker: FaceLandmarker, framed: bool = False) -> Motion:
    """Tracks the driver's face in a clip or a photo, or loads a template (.npz).

    See `inputs.read_scene` for `framed`. Raises InputError: unusable, another shot begins in it, or
    the face is lost.
    """
    path = files.local(path)
    if path.suffix == TEMPLATE:
        return _read_template(path, framed)
    fps, notes = _STILL_FPS, []
    if not is_still(path):
        info = video.probe(path)
        fps, notes = info.fps, list(info.notes)
        if info.has_audio:
            notes.append(sound.choose(path).note)
    turns = orientation.turns(_pictures(path), landmarker)
    if turns:
        notes.append(orientation.note(turns))
    size = []
    track = landmarker.track(_watched(path, turns, size))
    keypoints = _followed(path, track, fps)
    crop = geometry.steady_crop(path, keypoints, *size, framed)
    bridged = int((~track.found).sum())
    told = tuple(note for note in notes if note is not None)
    return Motion(path, keypoints, *size, crop, fps, bridged, track.face_count, turns, told)


def _pictures(path: Path) -> Iterator[np.ndarray]:
    """All of a clip, as in its file, or the one of a photo."""
    return iter([read_picture(path)]) if is_still(path) else video.read_frames(path)


def _watched(path: Path, turns: int, size: list[int]) -> Iterator[np.ndarray]:
    """The pictures, upright; fills in their height and width. InputError at a hard cut."""
    changes = Changes(path)
    for image in _pictures(path):
        changes(image)
        upright = orientation.turn(image, turns)
        size[:] = upright.shape[:2]
        yield upright


def _followed(path: Path, track: Track, fps: Fraction) -> np.ndarray:
    """float32 [F, 478, 3], short gaps bridged."""
    keypoints, usable = geometry.fill_gaps(track, hold_ends=True)
    count = len(usable)
    if not track.found.any():
        raise InputError(f"{path}: no face found in {count} frames: use another driver")
    if not usable.all():
        lost = int(np.argmin(usable))
        first, last = np.flatnonzero(track.found)[[0, -1]]
        if lost < first:
            raise InputError(
                f"{path}: begins without a face, up to frame {first} ({float(first / fps):.1f} s), "
                "too long to hold the first: cut the beginning off"
            )
        if lost > last:
            raise InputError(
                f"{path}: ends without a face, from frame {lost} ({float(lost / fps):.1f} s) of "
                f"{count}, too long to hold the last: cut the end off"
            )
        raise InputError(
            f"{path}: frame {lost} ({float(lost / fps):.1f} s): the face is lost there, and "
            "for too long to interpolate: cut the clip so that the face is always in view"
        )
    return keypoints


def write_template(path: str | Path, motion: Motion) -> None:
    """Saves a motion without its pictures, for `read_motion`, complete or not at all.

    The file is NumPy's .npz: version int; keypoints float32 [F, 478, 3] and size int [2] (height,
    width), pixels of the driver's pictures; fps int [2], a fraction; source, name of the file.

    Raises InputError: not .npz, or not writable.
    """
    path = files.local(path)
    files.check_output(path, TEMPLATE)
    with files.written_beside(path) as beside:
        np.savez_compressed(
            beside, version=_VERSION, keypoints=motion.keypoints,
            size=(motion.height, motion.width), fps=motion.fps.as_integer_ratio(),
            source=motion.path.name,
        )  # fmt: skip


def _read_template(path: Path, framed: bool) -> Motion:
    again = "save it again"
    try:
        with np.load(path, allow_pickle=False) as stored:
            found = {name: stored[name] for name in stored.files}
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    except (
        OSError,
        ValueError,
        EOFError,
        AttributeError,
        TypeError,
        zipfile.BadZipFile,
        zlib.error,
    ):
        raise InputError(f"{path}: not a motion template (.npz), or damaged: {again}") from None
    for name in ("version", "keypoints", "size", "fps"):
        if name not in found:
            raise InputError(f"{path}: not a motion template, it lacks {name!r}: {again}")
    if found["version"].shape or found["version"] != _VERSION:
        version = found["version"]
        raise InputError(f"{path}: version {version}, but {_VERSION} is needed: {again}")
    keypoints = found["keypoints"]
    if keypoints.shape[1:] != (NUM_KEYPOINTS, 3) or not len(keypoints):
        raise InputError(
            f"{path}: keypoints {keypoints.shape}, must be (frames, {NUM_KEYPOINTS}, 3): {again}"
        )
    if keypoints.dtype != np.float32 or not np.isfinite(keypoints).all():
        raise InputError(f"{path}: keypoints must be float32 and finite: {again}")
    for name in ("size", "fps"):
        value = found[name]
        if value.shape != (2,) or value.dtype.kind != "i" or value.min() < 1:
            raise InputError(f"{path}: {name} {value}, must be two numbers from 1 on: {again}")
    height, width = map(int, found["size"])
    fps = Fraction(*map(int, found["fps"]))
    crop = geometry.steady_crop(path, keypoints, height, width, framed)
    return Motion(path, keypoints, height, width, crop, fps, 0, 1)
