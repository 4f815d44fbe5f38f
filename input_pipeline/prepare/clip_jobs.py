"""One clip's share of the work: from the file to records, done once whatever happens in between."""

import dataclasses
import functools
import hashlib
import json
from pathlib import Path

import numpy as np

from input_pipeline.dataset import records, shards
from input_pipeline.dataset.store import Store
from input_pipeline.errors import InputError, WriteError
from input_pipeline.faces import descriptor
from input_pipeline.prepare import chunks, duplicates
from input_pipeline.prepare.control_clips import ControlClip
from input_pipeline.prepare.labels import Label

WORK = ".work"  # folder of the data set with what is finished
_KEY_LENGTH = 20
_ALGORITHM = 3  # raise when the same clip and settings would give other chunks
_LOOKS = 4  # frames of each chunk that fingerprint and descriptor look at


@dataclasses.dataclass(frozen=True)
class Job:
    """One clip to prepare. version: changes when the file does, see `Store.files`. controls: the
    folder of control clips, if there is one; control: the one of this clip, if that is there."""

    clips: Store
    out: Store
    clip: str
    version: str
    label: Label
    settings: chunks.Settings
    controls: Store | None = None
    control: ControlClip | None = None

    @functools.cached_property
    def key(self) -> str:
        """Name of the clip's files in the work folder; changes with anything that matters."""
        facts = [self.clip, self.version, sorted(self.label.present), self.label.identity]
        facts += [self.settings.size, self.settings.chunk_frames, self.settings.tools]
        facts += [_ALGORITHM, records.SCHEMA_VERSION]
        if self.controls is not None:
            facts += [self.control and [self.control.files, self.control.version]]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:_KEY_LENGTH]

    @property
    def part(self) -> str:
        """ArrayRecord file of the finished records, in `out`."""
        return f"{WORK}/{self.key}.part"

    @property
    def expanded(self) -> str:
        """Likewise with expanded masks, where they are asked for."""
        return f"{WORK}/{self.key}.expanded"


def run(job: Job) -> dict:
    """Prepares a clip unless that is done. Its records are in `job.part`.

    One chunk is in memory at a time. The result is written after the records, so that a clip is
    finished or not, but never half.

    Returns what a `manifest.Row` says about the clip's content: reason, frames, chunks, and so on.
    """
    finished = f"{WORK}/{job.key}.json"
    if job.out.exists(finished):
        return json.loads(job.out.read(finished))
    with job.clips.reading(job.clip) as root:
        path = root / job.clip
        try:
            result = _prepare(job, root)
        except WriteError:
            raise  # no fault of this clip
        except InputError as error:
            result = {"reason": str(error).removeprefix(f"{path}: ")}
            if isinstance(error.__cause__, OSError):  # the system's, which may pass
                return result | {"passing": True}
    job.out.write(finished, json.dumps(result).encode())
    return result


def _prepare(job: Job, root: Path) -> dict:
    settings, frames, sizes, crops, vectors = job.settings, 0, [], [], []
    if job.controls is not None and job.control is None:
        name = job.controls.url(str(Path(job.clip).with_suffix("")))
        raise InputError(f"no control clip {name}.* and no pictures in {name}: make them")
    motion, control = chunks.follow(root / job.clip, settings.size, settings.landmarks), None
    if job.control is not None:
        control = chunks.follow_control(job.control, motion, settings.landmarks)
    made = chunks.chunks(root, job.clip, job.label, motion, settings, control)
    with job.out.writing(job.part) as part:
        writer = shards.Writer(part)
        for chunk in made:
            encoded = records.encode(chunk, settings.size)
            writer.write(encoded)
            sizes.append(len(encoded))
            frames += len(chunk.frames)
            for i in np.linspace(0, len(chunk.frames) - 1, _LOOKS).round().astype(int):
                image = records.decode_frame(chunk.frames[i])
                crops.append(duplicates.small(image))
                if settings.face_descriptor:
                    describe = descriptor.load(settings.face_descriptor)
                    vectors.append(describe(image, chunk.keypoints[i]))
        writer.close()
    return {
        "frames": frames,
        "chunks": len(sizes),
        "bytes": sum(sizes),
        "faces": motion.face_count,
        "whole": duplicates.fingerprint(motion.picture),
        "face": duplicates.fingerprint(np.mean(crops, axis=0)),
        "descriptor": descriptor.pack(vectors),
        "notes": "; ".join(motion.notes),
    }
