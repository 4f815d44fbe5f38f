"""Clip folder -> data set: one face followed, cropped, masked, and cut into chunks.

Each clip is read twice: once to follow the face and to find repeated frames and cuts, once to write
the crops. A finished clip leaves its records in OUT/.work, so a run that was stopped resumes where
it was; shards, then the data set, come at the end, whole or not at all. Clips that the data set in
OUT already holds are taken from there.
"""

import csv
import dataclasses
import io
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from input_pipeline.dataset import manifest, shards
from input_pipeline.dataset.manifest import Row
from input_pipeline.dataset.store import Store
from input_pipeline.errors import InputError
from input_pipeline.masks import segmenters
from input_pipeline.media import files, video
from input_pipeline.prepare import (
    chunks,
    clip_jobs,
    control_clips,
    duplicates,
    expanders,
    packing,
)
from input_pipeline.prepare import labels as label_table
from input_pipeline.prepare.chunks import Settings
from input_pipeline.prepare.clip_jobs import Job
from input_pipeline.prepare.packing import Piece
from input_pipeline.prepare.workers import Beam, Pool

_MOST_LINES = 50  # printed of what was skipped, and of the notes


@dataclasses.dataclass(frozen=True)
class Summary:
    """What came of a folder.

    clips: clips looked at. kept, chunks, frames: what the data set holds. skipped: (file, reason).
    notes: remarks on labels, on files that are no clips, on clips that show several faces, are HDR
    or the like, on clips that look alike.
    """

    clips: int
    kept: int
    chunks: int
    frames: int
    skipped: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def prepare(
    clips_dir: str | Path,
    out: str | Path,
    *,
    size: int = 512,
    labels: str | Path | None = None,
    holdout: float = 0.0,
    chunk_frames: int = 64,
    masks: str = "heuristic",
    expand: tuple[str, ...] = (),
    face_descriptor: str | Path | None = None,
    landmarks: str | Path | None = None,
    control: str | Path | None = None,
    workers: int | None = None,
    beam: tuple[str, ...] = (),
    progress: bool = True,
) -> Summary:
    """Turns every video below `clips_dir` into chunks of a data set in `out`.

    Args:
      clips_dir: searched through all its folders. Like `out` a local path or a URL (gs://, s3://).
      out: folder of the data set. OUT/manifest.jsonl has a line for each clip, OUT/skipped.csv
        names those left out and why; OUT/.work keeps finished clips until the data set is there.
      size: side of the frames in pixels.
      labels: CSV with columns file,hair,glasses,beard,hat: what is visible; also identity, split.
        Without it every clip is taken to show hair and nothing else.
      holdout: share of the people to keep for validation, the split "val", such as 0.05; 0: as
        the labels say.
      chunk_frames: most frames in a chunk; longer runs of frames are split evenly.
      masks: the segmenter, as `segmenters.load` takes it.
      expand: what makes expanded masks, see `expanders`.
      face_descriptor: ONNX file or "sface", see `descriptor.FaceDescriptor`; finds people in two
        splits.
      landmarks: a Face Landmarker for the eyelids, see `FaceLandmarker`.
      control: folder with a clip, or a folder of pictures, for each clip: somebody else with its
        motion, frame for frame, made by any reenactor: the control track; see docs/data.md.
      workers: clips in parallel, by default one per core. The result does not depend on it.
      beam: options of an Apache Beam runner that does the work in place of the workers.
      progress: shows a bar and prints what was skipped.

    Clips are skipped that are broken or empty, have hard cuts, show no face, a face below 48 pixels
    or 0.15 `size`, or fewer than 16 consecutive frames with a face, or whose control clip is not
    there or has another number of frames.

    Raises:
      InputError: no clips, no usable clip, `out` not writable, bad labels, settings, masks,
        descriptor or runner, or a worker that the system killed.
    """
    if size < 32 or chunk_frames < chunks.MIN_FRAMES:
        raise InputError(
            f"size {size} and chunk_frames {chunk_frames}: need at least 32 and {chunks.MIN_FRAMES}"
        )
    if workers is not None and workers < 0:
        raise InputError(f"{workers}: must be at least 1; 0 for one a core", option="workers")
    expanders.check(expand)
    clips, target = Store.at(clips_dir), Store.at(out)
    controls = None if control is None else Store.at(control)
    if labels is not None and target.is_local and Store.at(labels).is_local:
        written = ("skipped.csv", manifest.FILE, "metadata.json")
        files.Inputs([Path(labels)]).check_apart(Path(target.url(name)) for name in written)
    versions = _find_clips(clips, controls)
    performed = {} if controls is None else control_clips.find(controls, versions)
    chosen, notes = label_table.read(labels, clips.root, list(versions))
    named = [path for path in (out, labels, control) if path is not None]
    notes += _passed_over(clips, versions, named)
    splits = label_table.assign_splits(chosen, holdout)
    segmenters.load(masks).require(frozenset().union(*(label.present for label in chosen.values())))
    settings = Settings(
        size, chunk_frames, masks, str(face_descriptor or ""), tuple(expand), str(landmarks or "")
    )
    tools = settings.tools
    target.make(clip_jobs.WORK)
    shards.install(target)
    if beam:
        over = Beam(tuple(beam), target, f"{clip_jobs.WORK}/beam")
    else:
        over = Pool(workers or os.cpu_count(), progress)

    if progress:
        _print_lines(notes, target)  # before the work: they may be a reason to stop it
    old = manifest.read(target)
    known = {row.key: row for row in old}
    wanted = [
        Job(clips, target, clip, version, chosen[clip], settings, controls, performed.get(clip))
        for clip, version in versions.items()
    ]
    todo = [job for job in wanted if job.key not in known]
    results = dict(zip((job.key for job in todo), over.map(clip_jobs.run, todo, "clip")))
    rows = [_row(job, splits[job.clip], results.get(job.key) or known[job.key]) for job in wanted]
    summary = _summary(rows, notes)
    _write_skipped(target, summary.skipped)
    if not summary.kept:
        clip, reason = summary.skipped[0]
        raise InputError(
            f"{clips_dir}: none of {len(rows)} clips is usable, the first ({clip}) because: "
            f"{reason}; all reasons are in {target.url('skipped.csv')}"
        )
    if rows != old:
        facts = {name: getattr(summary, name) for name in ("clips", "kept", "frames")}
        facts |= {"settings": dataclasses.asdict(settings) | {"holdout": holdout}, "tools": tools}
        facts |= {"control": True} if controls is not None else {}
        _write(target, over, wanted, rows, size, facts)
    target.remove_folder(clip_jobs.WORK)
    if progress:
        _print(target, summary, told=len(notes))
    return summary


def _find_clips(root: Store, controls: Store | None) -> dict[str, str]:
    """Videos below `root`, sorted, with what changes when they do; no hidden or control clips."""
    if not root.exists():
        raise InputError(f"{root}: no such folder; give the folder of the clips")
    clips = {
        name: version
        for name, version in root.files().items()
        if Path(name).suffix.lower() in video.VIDEO_SUFFIXES
        and not _hidden(name)
        and not (controls and root.url(name).startswith(f"{controls.url()}/"))
    }
    if not clips:
        kinds = ", ".join(sorted(video.VIDEO_SUFFIXES))
        raise InputError(f"{root}: no clips in this folder; looked for {kinds}")
    for name in clips:
        if name != name.encode(errors="replace").decode():  # no table or record could hold it
            raise InputError(f"{root}: the name {name!a} has bytes that are not UTF-8: rename it")
    return clips


def _passed_over(root: Store, clips: dict[str, str], known: list[str | Path]) -> list[str]:
    """A remark that counts the files below `root` that are no clips; `known` ones are not told."""
    own = [Store.at(path).url() for path in known]
    kinds = Counter(
        Path(name).suffix.lower() or "without a suffix"
        for name in root.files()
        if name not in clips
        and not _hidden(name)
        and not any(f"{root.url(name)}/".startswith(f"{path}/") for path in own)
    )
    if not kinds:
        return []
    told = ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items()))
    return [f"{root}: {kinds.total()} files of other kinds were not looked at ({told})"]


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in Path(name).parts)


def _row(job: Job, split: str, result: dict | Row) -> Row:
    """A clip's line, of what its job returned or of what the last manifest says."""
    if isinstance(result, Row):
        return dataclasses.replace(result, split=split)
    result = dict(result)
    # Under its own key it would not be tried again.
    key = f"{job.key} unread" if result.pop("passing", False) else job.key
    return Row(job.clip, key, job.label.identity, split, **result)


def _summary(rows: list[Row], notes: list[str]) -> Summary:
    skipped = tuple((row.clip, row.reason) for row in rows if row.reason is not None)
    crowds = [
        f"{row.clip}: up to {row.faces} faces in the picture; the largest was followed"
        for row in rows
        if row.faces > 1
    ]
    return Summary(
        clips=len(rows),
        kept=len(rows) - len(skipped),
        chunks=sum(row.chunks for row in rows),
        frames=sum(row.frames for row in rows),
        skipped=skipped,
        notes=(*notes, *crowds, *_counted(rows), *duplicates.notes(rows)),
    )


def _counted(rows: list[Row]) -> list[str]:
    """What was done to clips, each with how many and the first."""
    told = {}
    for row in rows:
        if row.notes:
            told.setdefault(row.notes, []).append(row.clip)
    return [
        f"{clips[0]}{f' and {len(clips) - 1} more' if clips[1:] else ''}: {note}"
        for note, clips in told.items()
    ]


def _write(
    out: Store, over: Pool | Beam, wanted: list[Job], rows: list[Row], size: int, facts: dict
) -> None:
    """Packs the records of this run's parts and of the last run's shards into new shards."""
    fresh = {job.key: job for job, row in zip(wanted, rows) if row.chunks and not row.file}
    if any(job.settings.expand for job in fresh.values()):
        lenders = {row.key for row in rows if row.split == "train"}
        expanders.write_donors(out, [job for key, job in fresh.items() if key in lenders])
        sizes = dict(zip(fresh, over.map(expanders.run, list(fresh.values()), "expanded clip")))
        rows = [dataclasses.replace(row, bytes=sizes.get(row.key, row.bytes)) for row in rows]
    pieces = {split: [] for split in label_table.SPLITS}
    for job, row in zip(wanted, rows):
        if row.chunks:
            part = job.expanded if job.settings.expand else job.part
            place = (row.file, row.start) if row.file else (part, 0)
            pieces[row.split].append(Piece(row.key, *place, row.chunks, row.bytes))
    planned = [shard for split in pieces for shard in packing.plan(out, split, pieces[split])]
    places = {key: place for shard in planned for key, place in shard.places().items()}
    rows = [dataclasses.replace(row, **places.get(row.key, {})) for row in rows]
    data, facts["manifest"] = manifest.encode(rows)
    out.write(f"{shards.STAGING}/{manifest.FILE}", data)
    written = {}
    for shard, lengths in zip(planned, over.map(packing.pack, planned, "shard")):
        written.setdefault(shard.split, []).append(lengths)
    shards.finish(out, written, size, facts)


def _write_skipped(out: Store, skipped: tuple[tuple[str, str], ...]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("file", "reason"), *skipped])
    out.write("skipped.csv", text.getvalue().encode())


def _print(out: Store, summary: Summary, told: int) -> None:
    """told: so many of the notes were printed before."""
    _print_lines([f"skipped {clip}: {reason}" for clip, reason in summary.skipped], out)
    _print_lines(summary.notes[told:], out)
    print(
        f"{out}: {summary.kept} of {summary.clips} clips, {summary.chunks} chunks, "
        f"{summary.frames} frames"
    )


def _print_lines(lines: Sequence[str], out: Store) -> None:
    print(*lines[:_MOST_LINES], sep="\n", end="\n" if lines else "")
    if len(lines) > _MOST_LINES:
        print(f"and {len(lines) - _MOST_LINES} more; see {out.url(manifest.FILE)}")
