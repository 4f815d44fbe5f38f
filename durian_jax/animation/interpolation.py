"""`durian interpolate`: from some attributes to others, a clip for each alpha, or one over time."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from durian_jax.animation.animator import Animator, Outcome
from durian_jax.animation.job import Job
from durian_jax.animation.recording import check_outputs
from input_pipeline.errors import InputError
from input_pipeline.media import files, video
from input_pipeline.media.pictures import write_picture


def run(
    animator: Animator, job: Job, out: str | Path, over_time: bool = False, **sampling
) -> list[Outcome]:
    """Makes the clips of an interpolation, and says what became of each.

    Over time, or with one alpha or none, OUT.mp4 is one clip, with what `Animator.record` writes
    beside it. Otherwise there is such a clip for each alpha, OUT_0.25.mp4 and so on, and OUT.mp4
    shows driver | one column for each alpha, with the driver's sound. Where a photo drives a
    picture, all of them are *.png.

    Args:
      job: its `alpha` is what the clips have, or the clip goes through.
      **sampling: as in `Animator.record`.

    Raises:
      InputError: the job cannot be used, an alpha is there twice, or not writable.
    """
    out = files.local(out)
    job.motion_options.check_output(out, job.driving)
    for inputs in (files.Inputs(job.files), animator.files):
        inputs.check_apart([out])
    if over_time or len(job.alpha) < 2:
        clips = {out: job}
    else:
        names = [f"{alpha:g}" for alpha in job.alpha]
        for name, count in Counter(names).items():
            if count > 1:
                raise InputError(f"alpha {name} is there {count} times: list it once")
        clips = {
            out.with_name(f"{out.stem}_{name}{out.suffix}"): replace(job, alpha=(alpha,))
            for name, alpha in zip(names, job.alpha)
        }
    for path in clips:
        check_outputs(path, job, animator.files)
    made = []
    for outcome in animator.record(((job, path) for path, job in clips.items()), **sampling):
        if outcome.error:
            raise outcome.error
        made.append(outcome)
    if out not in clips:
        _write_grid(out, list(clips))
    return made


def _write_grid(out: Path, clips: list[Path]) -> None:
    """driver | result of each clip, which are the last two squares of their grids."""
    grids = [clip.with_name(f"{clip.stem}_grid{clip.suffix}") for clip in clips]
    rows = zip(*map(video.read_frames, grids))
    frames = (np.hstack([_square(row[0], 2), *(_square(grid, 1) for grid in row)]) for row in rows)
    if out.suffix.lower() == ".png":
        write_picture(out, next(frames))
    else:
        video.write_video(out, frames, video.probe(grids[0]).fps, audio_from=grids[0])


def _square(grid: np.ndarray, number: int) -> np.ndarray:
    """The one that stands there from the right, the last being 1."""
    size, width = grid.shape[:2]
    return grid[:, width - number * size : width - (number - 1) * size]
