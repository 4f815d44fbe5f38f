"""Data set -> batches, restartable at any batch.

Order and augmentation depend on (seed, epoch, record index) alone, so a batch is the same whatever
the number of workers or hosts, and the whole state of the iterator is the number of the next batch.
grain prefetches and runs the worker processes.
"""

import contextlib
import ctypes
import functools
import logging
import signal

import cv2
import grain
import numpy as np

from input_pipeline.dataset import records, shards
from input_pipeline.errors import InputError
from input_pipeline.training import transforms

MAX_CORRUPT_SHARE = 0.05
# Names of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
# A source must have a length; no run comes near this many samples.
_ENDLESS = 2**48
_LOOKED_AT = 4  # records whose length is looked at before the first batch
_MOST_WARNINGS = 20


class Samples:
    """grain source: the samples of this process in training order, position -> sample.

    Position p is sample p % local_batch of batch p // local_batch. An epoch visits each record
    once, in an order drawn from (seed, epoch).
    """

    def __init__(
        self,
        dataset: shards.Dataset,
        options: transforms.SampleOptions,
        seed: int,
        batch_size: int,
        process_index: int,
        process_count: int,
    ):
        self.dataset, self.options, self.seed = dataset, options, seed
        self.batch_size = batch_size
        self.local_batch = batch_size // process_count
        self.process_index = process_index
        self._warnings = 0

    def __len__(self) -> int:
        return _ENDLESS

    def __getitem__(self, position: int) -> dict:
        batch, i = divmod(int(position), self.local_batch)
        place = batch * self.batch_size + self.process_index * self.local_batch + i
        epoch, place = divmod(place, len(self.dataset))
        index = int(_order(len(self.dataset), self.seed, epoch)[place])
        rng = np.random.default_rng([self.seed, epoch, index])
        return self._sample(index, rng)

    def _sample(self, index: int, rng: np.random.Generator) -> dict:
        """The sample of a record, or of the first record after it that is whole and long enough;
        with it the first corrupt one on the way, -1 for none: the others have turns of their own.
        """
        corrupt = -1
        for skipped in range(len(self.dataset)):
            candidate = (index + skipped) % len(self.dataset)
            try:
                chunk = records.decode(self.dataset[candidate])
                sample = self.options.make(chunk, rng, self.dataset.donors)
            except transforms.TooShort as error:
                self._warn(candidate, error)
                continue
            except records.DAMAGED as error:
                self._warn(candidate, error)
                corrupt = candidate if corrupt < 0 else corrupt
                continue
            return {**sample, "id": np.int32(candidate), "corrupt": np.int32(corrupt)}
        raise InputError(
            f"{self.dataset.path}: no record is usable for {self.options.frames} target frames; "
            "the log names the reasons: run durian check, or lower data.frames"
        )

    def _warn(self, index: int, error: Exception) -> None:
        self._warnings += 1
        if self._warnings <= _MOST_WARNINGS:
            logging.warning("record %d of %s: %s", index, self.dataset.path, error)
        if self._warnings == _MOST_WARNINGS:
            logging.warning("further records that are left out are not named")


def _check_lengths(dataset: shards.Dataset, options: transforms.SampleOptions) -> None:
    """Raises InputError: of a few records from all over the data set none is long enough."""
    longest = 0
    for index in np.linspace(0, len(dataset) - 1, min(_LOOKED_AT, len(dataset))).astype(int):
        with contextlib.suppress(*records.DAMAGED):  # counted when its turn comes
            longest = max(longest, len(records.decode(dataset[int(index)]).frames))
    if 0 < longest < options.least_frames:
        raise InputError(
            f"{dataset.path}: its records have up to {longest} frames, {options.least_frames} are "
            f"needed for {options.frames} target frames: make longer ones, 24 frames at 12.5 a "
            "second, or lower data.frames"
        )


@functools.lru_cache(maxsize=2)
def _order(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(count)


class Loader:
    """Endless iterator over batches: the batch contract with a leading axis of B / processes.

    Keys as in `transforms.make_sample`, plus id int32 [B], the index of each sample's record.
    A record that is corrupt, or shorter than a sample, is replaced by the next that is neither;
    more than 5 % of the data set corrupt raises InputError from `__next__`.
    """

    def __init__(
        self,
        dataset: shards.Dataset,
        options: transforms.SampleOptions,
        *,
        seed: int,
        batch_size: int,
        process_index: int = 0,
        process_count: int = 1,
        workers: int = 0,
        state: dict | None = None,
    ):
        """
        Args:
          batch_size: global batch size, over all processes.
          workers: worker processes; 0 loads in threads of this process.
          state: from `get_state`, of any worker or process count, to continue there.

        Raises:
          InputError: the batch size does not divide over the processes, or the data set lacks
            what the options ask for.
        """
        options.check(dataset.path, dataset.metadata)
        _check_lengths(dataset, options)
        if batch_size % process_count:
            raise InputError(
                f"batch_size {batch_size} does not divide over {process_count} processes: "
                f"make it a multiple of {process_count}"
            )
        state = state or {"batch": 0, "corrupt": []}
        self._dataset, self._batch = dataset, state["batch"]
        self._corrupt = set(state["corrupt"])
        samples = Samples(dataset, options, seed, batch_size, process_index, process_count)
        data = grain.MapDataset.source(samples)[self._batch * samples.local_batch :]
        data = data.batch(samples.local_batch, drop_remainder=True)
        data = data.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=4))
        if workers:
            _mark_flags_as_parsed()
            data = data.mp_prefetch(
                grain.MultiprocessingOptions(num_workers=workers), worker_init_fn=_start_loading
            )
        self._iterator = iter(data)

    def __iter__(self) -> "Loader":
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        batch = next(self._iterator)
        self._batch += 1
        count = len(self._dataset)
        self._corrupt.update(int(index) for index in batch.pop("corrupt") if index >= 0)
        if len(self._corrupt) > MAX_CORRUPT_SHARE * count:
            raise InputError(
                f"{self._dataset.path}: {len(self._corrupt)} of {count} records are corrupt, "
                f"records {sorted(self._corrupt)[:5]} among them; the limit is "
                f"{MAX_CORRUPT_SHARE:.0%}: run durian check and prepare the data set again"
            )
        return batch

    @property
    def num_corrupt(self) -> int:
        """Corrupt records met so far."""
        return len(self._corrupt)

    def get_state(self) -> dict:
        """Plain JSON values from which a new Loader continues with the next batch."""
        return {"batch": self._batch, "corrupt": sorted(self._corrupt)}

    def close(self) -> None:
        """Ends the worker processes."""
        self._iterator.close()


def start_worker(index: int = 0, count: int = 1) -> None:
    """Sets a process up that does nothing but load; grain calls it with the worker's number.

    OpenCV gets one thread, because it would start as many as there are cores in every worker. glibc
    keeps freed memory, up to 256 MB: returned to the system after each sample, it would come back
    page by page, a fifth of the whole time.
    """
    cv2.setNumThreads(1)
    allocator = ctypes.CDLL(None)
    if hasattr(allocator, "mallopt"):
        allocator.mallopt(_M_TRIM_THRESHOLD, 2**28)
        allocator.mallopt(_M_MMAP_THRESHOLD, 2**25)


def _start_loading(index: int, count: int) -> None:
    """A scheduler sends SIGTERM to every process; the workers must live until the last save."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    start_worker(index, count)


def _mark_flags_as_parsed() -> None:
    """grain's worker start reads absl flags, which only absl.app.run parses."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
