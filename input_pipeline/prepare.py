"""Clip folder -> data set: one face followed, cropped, masked, and cut into chunks.

Each clip is read twice: once to follow the face and to find repeated frames and cuts, once to write
the crops. A finished clip leaves its chunks in OUT/.work, so a run that was stopped goes on where
it was; the data set itself is written at the end, whole or not at all.
"""

import concurrent.futures
import csv
import dataclasses
import functools
import hashlib
import io
import json
import multiprocessing
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
from tqdm import tqdm

from input_pipeline import chunks, records, segmenters, shards, video
from input_pipeline import labels as label_table
from input_pipeline.errors import InputError

_KEY_LENGTH = 20
_ALGORITHM = 1  # raise when the same clip and settings would give other chunks


@dataclasses.dataclass(frozen=True)
class Settings:
    """What decides how a clip becomes chunks: side of the frames, most frames in a chunk, spec of
    the segmenter."""

    size: int
    chunk_frames: int
    masks: str


@dataclasses.dataclass(frozen=True)
class Summary:
    """What came of a folder.

    clips: clips looked at. kept, chunks, frames: what the data set holds. skipped: (file, reason).
    notes: remarks on labels and on clips that show several faces.
    """

    clips: int
    kept: int
    chunks: int
    frames: int
    skipped: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _Job:
    root: Path
    clip: str
    label: label_table.Label
    settings: Settings
    work: Path

    @functools.cached_property
    def key(self) -> str:
        """Name of the clip's files in the work folder; changes with anything that matters."""
        stat = (self.root / self.clip).stat()
        facts = [self.clip, stat.st_size, stat.st_mtime_ns, sorted(self.label.present)]
        facts += [self.label.identity, dataclasses.astuple(self.settings), _ALGORITHM]
        facts += [records.SCHEMA_VERSION, chunks.tools(self.settings.masks)]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:_KEY_LENGTH]


def prepare(
    clips_dir: str | Path,
    out: str | Path,
    *,
    size: int = 512,
    labels: str | Path | None = None,
    chunk_frames: int = 64,
    masks: str = "heuristic",
    workers: int | None = None,
    progress: bool = True,
) -> Summary:
    """Turns every video below `clips_dir` into chunks of a data set in `out`.

    Args:
      clips_dir: searched through all its folders.
      out: folder of the data set. OUT/skipped.csv names the clips left out and why; OUT/.work keeps
        finished clips for the next run and may be deleted.
      size: side of the square frames in pixels.
      labels: CSV of the attributes each clip shows, see `input_pipeline.labels.read`. Without it
        every clip is taken to show hair and nothing else.
      chunk_frames: most frames in a chunk; longer runs of frames are split evenly.
      masks: the segmenter, as `segmenters.load` takes it.
      workers: clips in parallel, by default one per core. The result does not depend on it.
      progress: shows a bar and prints what was skipped.

    Clips are skipped that are broken or empty, have hard cuts, show no face, a face below 48 pixels
    or 0.15 `size`, or fewer than 16 consecutive frames with a face.

    Raises:
      InputError: no clips, no usable clip, `out` not writable, bad labels, settings or masks.
    """
    root, out = Path(clips_dir), Path(out)
    if size < 32 or chunk_frames < chunks.MIN_FRAMES:
        raise InputError(
            f"size {size} and chunk_frames {chunk_frames}: need at least 32 and {chunks.MIN_FRAMES}"
        )
    clips = _find_clips(root)
    chosen, notes = label_table.read(labels, root, clips)
    segmenters.load(masks).require(frozenset().union(*(label.present for label in chosen.values())))
    work = _work_folder(out)
    settings = Settings(size, chunk_frames, masks)
    jobs = [_Job(root, clip, chosen[clip], settings, work) for clip in clips]
    results = _run(jobs, workers or os.cpu_count(), progress)
    notes += [
        f"{clip}: up to {result['faces']} faces in the picture; the largest was followed"
        for clip, result in zip(clips, results)
        if result["faces"] > 1
    ]
    skipped = [(clip, r["reason"]) for clip, r in zip(clips, results) if r["reason"]]
    _write_skipped(out / "skipped.csv", skipped)
    summary = Summary(
        clips=len(clips),
        kept=len(clips) - len(skipped),
        chunks=sum(result["chunks"] for result in results),
        frames=sum(result["frames"] for result in results),
        skipped=tuple(skipped),
        notes=tuple(notes),
    )
    if not summary.kept:
        clip, reason = skipped[0]
        raise InputError(
            f"{clips_dir}: none of {len(clips)} clips is usable, the first ({clip}) because: "
            f"{reason}; all reasons are in {out / 'skipped.csv'}"
        )
    facts = {key: value for key, value in dataclasses.asdict(summary).items() if key != "chunks"}
    facts |= {"settings": dataclasses.asdict(settings), "tools": chunks.tools(masks)}
    shards.write_dataset(out, {"train": _finished(jobs, results)}, size, facts)
    _discard_stale(work, jobs)
    if progress:
        for line in [f"skipped {clip}: {reason}" for clip, reason in skipped] + notes:
            print(line)
        print(
            f"{out}: {summary.kept} of {summary.clips} clips, {summary.chunks} chunks, "
            f"{summary.frames} frames"
        )
    return summary


def _find_clips(root: Path) -> list[str]:
    """Paths of the videos below `root`, relative to it, sorted; nothing hidden."""
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; give the folder of the clips")
    found = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    clips = sorted(
        path.as_posix()
        for path in found
        if path.suffix.lower() in video.VIDEO_SUFFIXES
        and not any(part.startswith(".") for part in path.parts)
    )
    if not clips:
        kinds = ", ".join(sorted(video.VIDEO_SUFFIXES))
        raise InputError(f"{root}: no clips in this folder; looked for {kinds}")
    return clips


def _work_folder(out: Path) -> Path:
    work = out / ".work"
    try:
        work.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=work):
            pass
    except OSError as error:
        raise InputError(
            f"{out}: cannot be written ({error.strerror}); choose a writable folder"
        ) from None
    return work


def _run(jobs: list[_Job], workers: int, progress: bool) -> list[dict]:
    """Results in the order of the jobs, whatever the order in which they end."""
    bar = tqdm(total=len(jobs), unit="clip", desc="prepare", disable=not progress)
    with bar:
        if workers == 1:
            results = []
            for job in jobs:
                results.append(_prepare_clip(job))
                bar.update()
            return results
        # The masks multiply many small matrices: BLAS threads of several workers would wait for
        # each other most of the time. Workers read this when they import numpy.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        pool = concurrent.futures.ProcessPoolExecutor(
            min(workers, len(jobs)), multiprocessing.get_context("spawn"), cv2.setNumThreads, (1,)
        )
        try:
            futures = [pool.submit(_prepare_clip, job) for job in jobs]
            for future in concurrent.futures.as_completed(futures):
                future.result()  # a bug in one clip ends the run at once
                bar.update()
            return [future.result() for future in futures]
        finally:
            pool.shutdown(cancel_futures=True)


def _finished(jobs: list[_Job], results: list[dict]) -> Iterator[bytes]:
    for job, result in zip(jobs, results):
        for index in range(result["chunks"]):
            yield _chunk_path(job, index).read_bytes()


def _chunk_path(job: _Job, index: int) -> Path:
    return job.work / f"{job.key}-{index:04d}.record"


def _discard_stale(work: Path, jobs: list[_Job]) -> None:
    keys = {job.key for job in jobs}
    for path in work.iterdir():
        if path.name[:_KEY_LENGTH] not in keys:
            path.unlink()


def _write_skipped(path: Path, skipped: list[tuple[str, str]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("file", "reason"), *skipped])
    _write_beside(path, text.getvalue().encode())


def _write_beside(path: Path, data: bytes) -> None:
    beside = path.with_name(path.name + ".tmp")
    beside.write_bytes(data)
    os.replace(beside, path)


def _prepare_clip(job: _Job) -> dict:
    """Chunks of one clip on disk; what became of it: reason (or None), chunks, frames, faces."""
    path = job.root / job.clip
    done = job.work / f"{job.key}.json"
    if done.exists():
        return json.loads(done.read_text())
    result = {"clip": job.clip, "reason": None, "chunks": 0, "frames": 0, "faces": 0}
    try:
        size, *options = dataclasses.astuple(job.settings)
        motion = chunks.follow(path, size)
        result["faces"] = motion.face_count
        pieces = chunks.chunks(job.root, job.clip, job.label, motion, size, *options)
        for index, chunk in enumerate(pieces):
            _write_beside(_chunk_path(job, index), records.encode(chunk, size))
            result["chunks"] = index + 1
            result["frames"] += len(chunk.frames)
    except InputError as error:
        reason = str(error).removeprefix(f"{path}: ")
        result |= {"reason": reason, "chunks": 0, "frames": 0}
    _write_beside(done, json.dumps(result).encode())
    return result
