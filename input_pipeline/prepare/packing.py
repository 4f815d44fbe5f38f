"""Finished clips -> shards: planned from their sizes, each then written by one worker."""

import contextlib
import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator

from array_record.python.array_record_module import ArrayRecordReader

from input_pipeline.dataset import shards
from input_pipeline.dataset.store import Store
from input_pipeline.prepare.clip_jobs import WORK


@dataclasses.dataclass(frozen=True)
class Piece:
    """The records of one clip: `count` of an ArrayRecord file, from number `start`."""

    key: str
    file: str
    start: int
    count: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class Shard:
    """A shard to be written, one of `count`. name: its file's, when the data set is complete."""

    out: Store
    split: str
    name: str
    count: int
    pieces: tuple[Piece, ...]

    def places(self) -> dict[str, dict]:
        """Where the records of each clip, by its key, will be: `file` and `start` of a `Row`."""
        firsts = itertools.accumulate((piece.count for piece in self.pieces), initial=0)
        return {
            piece.key: {"file": self.name, "start": first}
            for piece, first in zip(self.pieces, firsts)
        }


def plan(out: Store, split: str, pieces: Iterable[Piece]) -> list[Shard]:
    """Shards of about `shards.SHARD_BYTES`, in the order of the pieces; a clip is never divided."""
    groups, filled = [], shards.SHARD_BYTES
    for piece in pieces:
        if filled >= shards.SHARD_BYTES:
            groups.append([])
            filled = 0
        groups[-1].append(piece)
        filled += piece.bytes
    return [
        Shard(out, split, shards.name(split, i, len(groups)), len(groups), tuple(group))
        for i, group in enumerate(groups)
    ]


def pack(shard: Shard) -> tuple[int, int]:
    """Writes a shard unless that is done. Returns its records and their bytes."""
    facts = [shard.name, [dataclasses.astuple(piece) for piece in shard.pieces]]
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    finished, target = f"{WORK}/{shard.name}.packed", f"{shards.STAGING}/{shard.name}"
    if shard.out.exists(finished):
        packed, *lengths = json.loads(shard.out.read(finished))
        if packed == digest and shard.out.exists(target):
            return tuple(lengths)
        shard.out.remove([finished])
    count = num_bytes = 0
    with shard.out.writing(target) as path:
        writer = shards.Writer(path)
        for record in _records(shard):
            writer.write(record)
            count += 1
            num_bytes += len(record)
        writer.close()
    if shard.split == "train":
        shards.keep_donors(shard.out, shard.name, shard.count)
    shard.out.write(finished, json.dumps([digest, count, num_bytes]).encode())
    return count, num_bytes


def _records(shard: Shard) -> Iterator[bytes]:
    """One record at a time; a file that several pieces in a row lie in is opened once."""
    with contextlib.ExitStack() as opened:
        last = reader = None
        for piece in shard.pieces:
            if piece.file != last:
                opened.close()
                root = opened.enter_context(shard.out.reading(piece.file))
                reader = ArrayRecordReader(str(root / piece.file))
                opened.callback(reader.close)
                last = piece.file
            for index in range(piece.start, piece.start + piece.count):
                yield reader.read([index])[0]
