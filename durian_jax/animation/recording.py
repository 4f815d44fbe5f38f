"""What an animation becomes: a Video in memory, or a Recording, files that grow frame by frame."""

import contextlib
import dataclasses
import itertools
import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np

from durian_jax.animation.job import Job
from durian_jax.metrics.steadiness import Steadiness
from durian_jax.weights.storage import MANIFEST
from input_pipeline.inference.inputs import Scene
from input_pipeline.inference.paste_back import Paste
from input_pipeline.kinds import KINDS
from input_pipeline.masks.segmenters.files import TRUTH
from input_pipeline.media import files, video
from input_pipeline.media.pictures import write_picture
from input_pipeline.motion.driver import Motion


@dataclasses.dataclass(frozen=True)
class Video:
    """A generated clip.

    Attributes:
      frames: uint8 [F, S, S, 3] RGB.
      job, scene: what it was made of.
      settings: what reproduces the clip, in plain JSON values.
    """

    frames: np.ndarray
    job: Job
    scene: Scene
    settings: dict

    @property
    def fps(self) -> Fraction:
        """Frames per second, the driver's."""
        return self.scene.motion.fps

    @property
    def motion(self) -> Motion:
        """The driver's, with the clip whose sound `save` keeps."""
        return self.scene.motion

    @property
    def grid(self) -> np.ndarray:
        """uint8 [F, S, (3 + N) S, 3]: portrait | N attributes | driver | result."""
        return np.stack(list(map(_row(self.scene), self.frames)))

    def save(self, path: str | Path) -> None:
        """Writes the files of a Recording. Raises InputError if it cannot."""
        with Recording(path, self.job, self.scene) as recording:
            recording.write(self.frames)
            recording.write_settings(self.settings)


def outputs(path: str | Path, job: Job) -> list[Path]:
    """What a Recording writes: OUT.mp4, OUT_grid.mp4, OUT.json, and OUT_report.csv if asked for."""
    path = files.local(path)
    report = [path.with_name(f"{path.stem}_report.csv")] if job.report else []
    grid = path.with_name(f"{path.stem}_grid{path.suffix}")
    return [path, grid, path.with_suffix(".json"), *report]


def files_of_animator(
    checkpoint: str | Path | None, masks: str, aligner: str, landmarks: str | Path | None
) -> list[Path]:
    """What an Animator of these arguments reads and a Recording could hit by its suffixes.

    Of folders those files alone, so that videos may lie beside them and be made again.
    """
    parts = [spec.partition(":") for spec in (masks, aligner)]
    folders = [Path(source) for name, _, source in parts if name in ("files", "truth")]
    named = [Path(text) for text in (checkpoint, landmarks) if text]
    pictures = (file for folder in folders for file in folder.rglob("*.png"))
    return [
        *named, *(path / MANIFEST for path in named), *(folder / TRUTH for folder in folders),
        *(path for path in pictures if path.stem in KINDS or path.parent.name in KINDS),
    ]  # fmt: skip


def check_outputs(path: str | Path, job: Job, *inputs: files.Inputs) -> None:
    """Before any work: the files of a Recording can be made, and none of them is an input.

    inputs: more of them than the job names. InputError: which file, and why.
    """
    job.motion_options.check_output(path, job.driving)
    written = outputs(path, job)
    for known in (files.Inputs(job.files), *inputs):
        known.check_apart(written)
    for file in written:
        files.check_output(file, file.suffix.lower())


class Recording:
    """OUT.mp4 and OUT_grid.mp4 (of a picture .png), written while frames are made, and OUT.json.

    The grid shows portrait | attributes | driver | result. If the job asks for it OUT.mp4 has the
    frames pasted back into the portrait's photo, and OUT_report.csv is written, see `Steadiness`.
    All of them appear when the `with` block ends without an exception, complete or not at all, and
    OUT.json comes last: where it is, all is.

    Raises:
      InputError: on entering, see `check_outputs`; on leaving, no frame was written; at any time,
        the disk is full or the folder vanished.
    """

    def __init__(self, path: str | Path, job: Job, scene: Scene):
        self._path, self._job, self._scene = files.local(path), job, scene
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "Recording":
        check_outputs(self._path, self._job)
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(files.gathered(self._path, last=".json"))
            movie, grid, self._settings, *report = (
                folder / file.name for file in outputs(self._path, self._job)
            )
            self._video = stack.enter_context(self._writer(movie))
            self._grid = stack.enter_context(self._writer(grid))
            self._paste = Paste.into(self._scene.portrait) if self._job.paste_back else lambda x: x
            self._row, self._report = _row(self._scene), None
            if report:
                portrait, fps = self._scene.portrait.keypoints, self._scene.motion.fps
                self._report = Steadiness(portrait, fps, self._scene.landmarker), *report
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error) -> bool | None:
        return self._stack.__exit__(*error)

    def write(self, frames: np.ndarray) -> None:
        """Appends frames, uint8 [n, S, S, 3]."""
        for frame in frames:
            self._video.write(self._paste(frame))
            self._grid.write(self._row(frame))
            if self._report is not None:
                self._report[0].add(frame)

    def write_settings(self, settings: dict) -> None:
        """OUT_report.csv and OUT.json, after the last frame."""
        if self._report is not None:
            steadiness, path = self._report
            steadiness.write(path)
        with files.written_beside(self._settings) as beside:
            beside.write_text(json.dumps(settings, indent=2) + "\n")

    def _writer(self, path: Path):
        if path.suffix.lower() == ".png":
            return _PictureWriter(path)
        motion = self._scene.motion
        return video.VideoWriter(path, motion.fps, audio_from=motion.sound)


class _PictureWriter:
    """A VideoWriter of a single frame."""

    def __init__(self, path: Path):
        self._path = path

    def __enter__(self) -> "_PictureWriter":
        return self

    def __exit__(self, *error) -> None:
        pass

    def write(self, frame: np.ndarray) -> None:
        write_picture(self._path, frame)


def _row(scene: Scene) -> Callable[[np.ndarray], np.ndarray]:
    """A function of each next frame to the grid's, uint8 [S, (3 + N) S, 3]."""
    drivers = scene.motion.frames(len(scene.portrait.image))
    if len(scene.motion.keypoints) == 1:
        drivers = itertools.repeat(next(drivers))
    return lambda frame: np.hstack([*scene.photos, next(drivers), frame])
