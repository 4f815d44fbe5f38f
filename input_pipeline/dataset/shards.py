"""The data set: records in ArrayRecord shards, and what is known about all of them.

A tfds directory (`dataset_info.json`, `features.json`, shards) that `tfds.builder_from_directory`
reads without TensorFlow, plus `metadata.json` with our own facts.
"""

import errno
import functools
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter

from input_pipeline.dataset import records
from input_pipeline.dataset.donors import MOST_DONORS, Donors
from input_pipeline.dataset.store import Store
from input_pipeline.errors import InputError

DONORS = "donors.npz"
_DONORS_OF = ".donors"  # suffix of the file with those of one shard
SHARD_BYTES = 256 * 2**20
# JPEG does not get smaller, and decompression would cost a quarter of a read.
OPTIONS = "group_size:1,uncompressed"
ALL = "*"  # in place of a split
_INDEX_BYTES = 2**16  # at the end of a shard; shards come in blocks of this size
STAGING = ".writing"  # folder of a data set where the next one grows
_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"


class Writer:
    """An ArrayRecord file. OSError: the system refuses to write (the disk is full)."""

    def __init__(self, path: str | Path):
        self._path = str(path)
        self._writer = self._told(ArrayRecordWriter, self._path, OPTIONS)

    def write(self, record: bytes) -> None:
        self._told(self._writer.write, record)

    def close(self) -> None:
        self._told(self._writer.close)

    def _told(self, call: Callable, *arguments):
        try:
            return call(*arguments)
        except RuntimeError as error:  # what the library makes of every refusal
            reason = str(error).partition(";")[0]
            raise OSError(errno.EIO, reason, self._path) from None


def name(split: str, index: int, count: int) -> str:
    """File name of shard `index` of `count`."""
    return f"durian-{split}.array_record-{index:05d}-of-{count:05d}"


def write_dataset(
    out: str | Path, splits: dict[str, Iterable[bytes]], size: int, metadata: dict
) -> dict[str, int]:
    """Writes a data set; `metadata.json` comes last and marks it as complete.

    Args:
      out: directory of the data set, made if missing; a data set already there is replaced, other
        files there are left alone.
      splits: records of each split, in order; may be generators.
      size: side of the frames in pixels.
      metadata: plain values kept in `metadata.json` (tools, settings, statistics); `control` is
        True where the records have a control track.

    Returns:
      Number of records of each split.
    """
    folder = Path(out) / STAGING
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    written = {split: _write_shards(folder, split, encoded) for split, encoded in splits.items()}
    return finish(Store.at(out), written, size, metadata)


def finish(
    out: Store, written: dict[str, list[tuple[int, int]]], size: int, metadata: dict
) -> dict[str, int]:
    """Makes the shards in STAGING the data set.

    written: for each split, the number of records in each shard and of bytes in them.
    Returns the number of records of each split.
    """
    import tensorflow_datasets as tfds

    counts = {split: len(shards) for split, shards in written.items()}
    with tempfile.TemporaryDirectory() as folder:
        for file in _names(counts):
            (Path(folder) / file).touch()  # tfds wants to see them, not to read them
        infos = [
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[count for count, _ in shards],
                num_bytes=sum(num_bytes for _, num_bytes in shards),
                filename_template=tfds.core.ShardedFileTemplate(
                    data_dir=folder, template=_TEMPLATE, dataset_name="durian",
                    split=split, filetype_suffix="array_record",
                ),
            )
            for split, shards in written.items()
        ]  # fmt: skip
        tfds.folder_dataset.write_metadata(
            data_dir=folder, features=records.features(size, bool(metadata.get("control"))),
            split_infos=infos, version="1.0.0",
            description="Chunks of portrait clips with keypoints and attribute masks.",
            check_data=False,
        )  # fmt: skip
        for file in Path(folder).glob("*.json"):
            out.write(f"{STAGING}/{file.name}", file.read_bytes())
    trained = [name("train", i, counts["train"]) for i in range(counts.get("train", 0))]
    parts = [out.read(f"{STAGING}/{file}{_DONORS_OF}") for file in trained]
    out.write(f"{STAGING}/{DONORS}", Donors.merge(map(Donors.decode, parts)).encode())
    lengths = {info.name: sum(info.shard_lengths) for info in infos}
    facts = {"schema_version": records.SCHEMA_VERSION, "size": size, **metadata}
    facts |= {"records": lengths, "shards": counts}
    text = json.dumps(facts, indent=2, sort_keys=True) + "\n"
    out.write(f"{STAGING}/metadata.json", text.encode())
    install(out)
    return lengths


def install(out: Store) -> None:
    """Replaces the data set by the one in STAGING if that is complete, else does nothing.

    May be stopped anywhere: the next call resumes.
    """
    if not out.exists(f"{STAGING}/metadata.json"):
        return
    counts = json.loads(out.read(f"{STAGING}/metadata.json"))["shards"]
    new = _names(counts)
    out.remove(["metadata.json"])
    out.remove(file for file in out.list() if file.startswith("durian-") and file not in new)
    staged = [f for f in out.list(STAGING) if f in new or not f.startswith((".", "durian-"))]
    for file in sorted(staged, key=lambda file: file == "metadata.json"):
        out.move(f"{STAGING}/{file}", file)
    out.remove_folder(STAGING)


def _names(counts: dict[str, int]) -> set[str]:
    return {name(split, i, count) for split, count in counts.items() for i in range(count)}


def keep_donors(out: Store, file: str, count: int) -> None:
    """Writes the donors of a staged training shard, one of `count`, beside it, for `finish`."""
    most = -(-MOST_DONORS // count)
    with out.reading(f"{STAGING}/{file}") as root:
        source = ArrayRecordDataSource([str(root / STAGING / file)])
        places = np.linspace(0, len(source) - 1, min(len(source), 4 * most)).round().astype(int)
        donors = Donors.collect((records.decode(source[int(i)]) for i in places), most)
    out.write(f"{STAGING}/{file}{_DONORS_OF}", donors.encode())


def _write_shards(folder: Path, split: str, records: Iterable[bytes]) -> list[tuple[int, int]]:
    """Writes shards of about SHARD_BYTES; returns the records in each and their bytes."""
    shards, writer = [], None
    for record in records:
        if writer is None or shards[-1][1] >= SHARD_BYTES:
            if writer:
                writer.close()
            writer = Writer(folder / f"{split}.part{len(shards)}")
            shards.append((0, 0))
        writer.write(record)
        count, num_bytes = shards[-1]
        shards[-1] = count + 1, num_bytes + len(record)
    if writer is None:
        raise InputError(f"split {split} of {folder.name} has no records: nothing to write")
    writer.close()
    for i in range(len(shards)):
        file = name(split, i, len(shards))
        os.replace(folder / f"{split}.part{i}", folder / file)
        if split == "train":
            keep_donors(Store.at(folder.parent), file, len(shards))
    return shards


class Dataset:
    """Random access to the raw records of a split, or ALL; cheap to pickle, safe in processes.

    Attributes:
      path: directory of the data set.
      size: side of the frames in pixels.
      metadata: what `write_dataset` was given, plus schema version and record counts.
    """

    def __init__(self, path: str | Path, split: str = "train"):
        """Raises InputError if `path` is no data set, has another schema, or lacks the split."""
        self.path = Path(path)
        facts = self.path / "metadata.json"
        if not facts.is_file():
            raise InputError(
                f"{path}: no data set here (metadata.json missing): run durian prepare"
            )
        again = "copy or prepare the data set again"
        try:
            self.metadata = json.loads(facts.read_text())
        except ValueError as error:
            raise InputError(f"{facts}: damaged ({error}): {again}") from None
        if self.metadata["schema_version"] != records.SCHEMA_VERSION:
            raise InputError(
                f"{path}: schema version {self.metadata['schema_version']}, this code reads "
                f"{records.SCHEMA_VERSION}: prepare the data set again"
            )
        self.size = self.metadata["size"]
        self._shards = sorted(self.path.glob(f"durian-{split}.array_record-*"))
        if not self._shards:
            known = ", ".join(self.metadata["records"])
            raise InputError(f"{path}: no split {split!r}: choose one of {known}")
        try:
            self._source = ArrayRecordDataSource([str(shard) for shard in self._shards])
        except RuntimeError as error:  # cut short
            reason = str(error).splitlines()[0]
            raise InputError(f"{path}: split {split} cannot be read ({reason}): {again}") from None
        counts = self.metadata["records"]
        expected = sum(counts.values()) if split == ALL else counts[split]
        if len(self._source) != expected:
            raise InputError(
                f"{path}: split {split} holds {len(self._source)} records, metadata.json says "
                f"{expected}: {again}"
            )

    @functools.cached_property
    def donors(self) -> Donors:
        """Whose masks may be borrowed."""
        return Donors.decode((self.path / DONORS).read_bytes())

    @functools.cached_property
    def identity(self) -> dict:
        """Plain values that name the content: fingerprint, records, schema.

        The fingerprint covers metadata.json, and with it the manifest's hash; and name, size and
        end of each shard, where its index is. A copy has the same.
        """
        digest = hashlib.sha256(json.dumps(self.metadata, sort_keys=True).encode())
        for shard in self._shards:
            size = shard.stat().st_size
            with shard.open("rb") as file:
                file.seek(max(0, size - _INDEX_BYTES))
                digest.update(f"{shard.name} {size} ".encode() + file.read())
        digest.update(b"False")  # there since the first version, so that its runs can be resumed
        schema = self.metadata["schema_version"]
        return {"fingerprint": digest.hexdigest()[:16], "records": len(self), "schema": schema}

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> bytes:
        return self._source[index]
