"""The data set: records in ArrayRecord shards, and what is known about all of them.

A tfds directory (`dataset_info.json`, `features.json`, shards) that `tfds.builder_from_directory`
reads without TensorFlow, plus `metadata.json` with our own facts.
"""

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter

from input_pipeline import records
from input_pipeline.errors import InputError

SHARD_BYTES = 256 * 2**20


def write_dataset(
    out: Path, splits: dict[str, Iterable[bytes]], size: int, metadata: dict
) -> dict[str, int]:
    """Writes a data set; `metadata.json` comes last and marks it as complete.

    Args:
      out: directory of the data set, made if missing; a data set already there is replaced, other
        files there are left alone.
      splits: records of each split, in order; may be generators.
      size: side of the frames in pixels.
      metadata: plain values kept in `metadata.json` (tools, settings, statistics).

    Returns:
      Number of records of each split.
    """
    import tensorflow_datasets as tfds

    out = Path(out)
    staging = out / ".writing"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    template, infos = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}", []
    for split, encoded in splits.items():
        lengths, num_bytes = _write_shards(staging, split, encoded)
        infos.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=lengths,
                num_bytes=num_bytes,
                filename_template=tfds.core.ShardedFileTemplate(
                    data_dir=staging, template=template, dataset_name="durian",
                    split=split, filetype_suffix="array_record",
                ),
            )
        )  # fmt: skip
    tfds.folder_dataset.write_metadata(
        data_dir=staging, features=records.features(size), split_infos=infos, version="1.0.0",
        description="Chunks of portrait clips with keypoints and attribute masks.",
        check_data=False,
    )  # fmt: skip
    counts = {info.name: sum(info.shard_lengths) for info in infos}
    facts = {"schema_version": records.SCHEMA_VERSION, "size": size, "records": counts, **metadata}
    (staging / "metadata.json").write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n")
    (out / "metadata.json").unlink(missing_ok=True)
    for stale in out.glob("durian-*.array_record-*"):
        stale.unlink()
    for file in sorted(staging.iterdir(), key=lambda file: file.name == "metadata.json"):
        os.replace(file, out / file.name)
    staging.rmdir()
    return counts


def _write_shards(folder: Path, split: str, records: Iterable[bytes]) -> tuple[list[int], int]:
    """Writes shards of about SHARD_BYTES; returns records in each and the bytes in all."""
    lengths, total, writer, filled = [], 0, None, SHARD_BYTES
    for record in records:
        if filled >= SHARD_BYTES:
            if writer:
                writer.close()
            path = folder / f"{split}.part{len(lengths)}"
            # JPEG does not get smaller, and decompression would cost a quarter of a read.
            writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
            lengths.append(0)
            filled = 0
        writer.write(record)
        lengths[-1] += 1
        filled += len(record)
        total += len(record)
    if writer is None:
        raise InputError(f"split {split} of {folder.name} has no records: nothing to write")
    writer.close()
    for i in range(len(lengths)):
        name = f"durian-{split}.array_record-{i:05d}-of-{len(lengths):05d}"
        os.replace(folder / f"{split}.part{i}", folder / name)
    return lengths, total


class Dataset:
    """Random access to the raw records of one split; cheap to pickle, safe in worker processes.

    Attributes:
      path: directory of the data set.
      size: side of the frames in pixels.
      metadata: what `write_dataset` was given, plus schema version and record counts.

    The folder may hold `canvases`: pictures made by an out-painter of your choice, square, with
    a frame at the centre and more round it, as `canvases/CLIP/00012.jpg` for frame 12 of CLIP (its
    name without the suffix; `Chunk.start` plus the place in the chunk).
    """

    def __init__(self, path: str | Path, split: str = "train"):
        """Raises InputError if `path` is no data set, has another schema, or lacks the split."""
        self.path = Path(path)
        facts = self.path / "metadata.json"
        if not facts.is_file():
            raise InputError(
                f"{path}: no data set here (metadata.json missing): run durian prepare"
            )
        self.metadata = json.loads(facts.read_text())
        if self.metadata["schema_version"] != records.SCHEMA_VERSION:
            raise InputError(
                f"{path}: schema version {self.metadata['schema_version']}, this code reads "
                f"{records.SCHEMA_VERSION}: prepare the data set again"
            )
        self.size = self.metadata["size"]
        self._has_canvases = (self.path / "canvases").is_dir()
        shards = sorted(self.path.glob(f"durian-{split}.array_record-*"))
        if not shards:
            known = ", ".join(self.metadata["records"])
            raise InputError(f"{path}: no split {split!r}: choose one of {known}")
        self._source = ArrayRecordDataSource([str(shard) for shard in shards])
        expected = self.metadata["records"][split]
        if len(self._source) != expected:
            raise InputError(
                f"{path}: split {split} holds {len(self._source)} records, metadata.json says "
                f"{expected}: copy or prepare the data set again"
            )

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> bytes:
        return self._source[index]

    def canvases(self, chunk: records.Chunk) -> dict[int, Path]:
        """The canvas of each frame of a chunk that has one, by place in the chunk."""
        if not self._has_canvases:
            return {}
        folder = (self.path / "canvases" / chunk.clip).with_suffix("")
        numbered = {int(file.stem) - chunk.start: file for file in folder.glob("[0-9]*.jpg")}
        return {i: file for i, file in numbered.items() if 0 <= i < len(chunk.frames)}
