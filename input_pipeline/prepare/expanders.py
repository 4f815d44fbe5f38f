"""Expanded masks made once, while a data set is prepared: `durian prepare --expand SPEC`.

Training borrows and grows masks by itself; made once they are the same in every run, and generated
ones cannot be had otherwise.
"""

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader

from input_pipeline.dataset import records, shards
from input_pipeline.dataset.donors import Donors
from input_pipeline.dataset.records import Chunk
from input_pipeline.dataset.store import Store
from input_pipeline.errors import InputError
from input_pipeline.masks import generation, segmenters
from input_pipeline.masks.regions import grow
from input_pipeline.prepare.clip_jobs import WORK, Job

NUM_FRAMES, NUM_MASKS = 8, 4  # of a chunk, and of a frame by each expander; the paper's are unknown
_GROWTH = 0.02, 0.12  # shares of the face's height
_DONORS, _LENDERS = f"{WORK}/donors.npz", f"{WORK}/lenders"

# (chunk, frame, kind, own mask bool [S, S], Generator) -> masks bool [S, S] to be hidden as well.
Expander = Callable[[Chunk, int, str, np.ndarray, np.random.Generator], list[np.ndarray]]


def check(specs: Iterable[str]) -> None:
    """Raises InputError for a spec that is none of borrow, grow and generate:SETTINGS."""
    for spec in specs:
        if spec.startswith("generate"):
            generation.parse(spec)
        elif spec not in ("borrow", "grow"):
            raise InputError(f"{spec}: unknown: use borrow, grow or generate:...", option="expand")


def run(job: Job) -> int:
    """Adds expanded masks to a finished job's records, unless that is done: `job.expanded`.

    Returns the bytes of the records.
    """
    finished = f"{job.expanded}.json"
    if job.out.exists(finished):
        return json.loads(job.out.read(finished))
    total, size = 0, job.settings.size
    with job.out.reading(job.part) as root, job.out.writing(job.expanded) as path:
        writer, expanders = shards.Writer(path), _expanders(job)
        for chunk in _chunks(str(root / job.part)):
            seed = hashlib.sha256(f"{job.key} {chunk.start}".encode()).digest()
            expand(chunk, expanders, np.random.default_rng(list(seed)))
            encoded = records.encode(chunk, size)
            writer.write(encoded)
            total += len(encoded)
        writer.close()
    job.out.write(finished, json.dumps(total).encode())
    return total


def expand(chunk: Chunk, expanders: list[Expander], rng: np.random.Generator) -> None:
    """Fills `chunk.expanded`: of NUM_FRAMES frames, and of each kind that they show."""
    count = len(chunk.frames)
    for frame in np.unique(np.linspace(0, count - 1, NUM_FRAMES).round().astype(int)).tolist():
        for kind in sorted(chunk.masks):
            own = records.decode_mask(chunk.masks[kind][frame])
            found = [
                mask
                for expander in expanders
                for mask in expander(chunk, frame, kind, own, rng)
                if mask.any()
            ]
            if found:
                encoded = [records.encode_mask(mask) for mask in found]
                chunk.expanded.setdefault(kind, {})[frame] = encoded


def write_donors(out: Store, jobs: list[Job]) -> None:
    """Collects the donors that `borrow` needs from finished jobs, unless that is done. What was
    borrowed from others, before labels or splits were changed, goes."""
    lenders = hashlib.sha256(" ".join(job.key for job in jobs).encode()).hexdigest().encode()
    if out.exists(_LENDERS) and out.read(_LENDERS) == lenders:
        return
    names = [name for name in out.list(WORK) if ".expanded" in name]
    out.remove([_LENDERS, *(f"{WORK}/{name}" for name in names)])
    most = min(4 * shards.MOST_DONORS, len(jobs))
    chosen = [jobs[i] for i in np.linspace(0, len(jobs) - 1, most).astype(int)]
    out.write(_DONORS, Donors.collect(_first_chunks(chosen)).encode())
    out.write(_LENDERS, lenders)


def _first_chunks(jobs: list[Job]) -> Iterator[Chunk]:
    for job in jobs:
        with job.out.reading(job.part) as root:
            yield next(_chunks(str(root / job.part)))


def _chunks(path: str) -> Iterator[Chunk]:
    reader = ArrayRecordReader(path)
    for index in range(reader.num_records()):
        yield records.decode(reader.read([index])[0])
    reader.close()


def _expanders(job: Job) -> list[Expander]:
    lenders = job.out.read(_LENDERS)
    return [_load(spec, job.settings.masks, job.out, lenders) for spec in job.settings.expand]


@functools.cache
def _load(spec: str, masks: str, out: Store, lenders: bytes) -> Expander:
    """The expander of a spec; one per process and digest of who lends."""
    if spec == "grow":
        return _grown
    if spec == "borrow":
        return functools.partial(_borrowed, Donors.decode(out.read(_DONORS)))
    return functools.partial(_generated, generation.load(spec), segmenters.load(masks))


def _grown(chunk, frame, kind, own, rng):
    height = np.ptp(chunk.keypoints[frame, :, 1])
    return [grow(own, share * height) for share in rng.uniform(*_GROWTH, NUM_MASKS)]


def _borrowed(donors, chunk, frame, kind, own, rng):
    points = chunk.keypoints[frame]
    return [donors.borrow(kind, chunk.identity, points, len(own), rng) for _ in range(NUM_MASKS)]


def _generated(generator, segmenter, chunk, frame, kind, own, rng):
    seed = int(rng.integers(2**31))
    points = chunk.keypoints[frame]
    return generator(points, len(own), kind, segmenter, count=NUM_MASKS, seed=seed)
