"""Two ways to apply a function to many items: the cores of this machine, or any Beam runner.

The function must be a module's own, its items picklable and its result a JSON value. It must leave
behind what it has done, so that a second call with the same item finds it done.
"""

import concurrent.futures
import dataclasses
import functools
import json
import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import cv2
from tqdm import tqdm

from input_pipeline.dataset.store import Store
from input_pipeline.errors import InputError

# Matrices here are small: BLAS threads of several workers would wait for each other most of the
# time. Read when numpy is imported, hence set before workers start.
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


@dataclasses.dataclass(frozen=True)
class Pool:
    """Processes on this machine. workers: how many; 1 does the work in this process."""

    workers: int
    progress: bool = True

    def map(self, function: Callable[[Any], Any], items: Sequence, unit: str) -> list:
        """Results in the order of the items. InputError: the system killed a worker."""
        with tqdm(total=len(items), unit=unit, desc="prepare", disable=not self.progress) as bar:
            if self.workers == 1 or len(items) < 2:
                results = []
                for item in items:
                    results.append(function(item))
                    bar.update()
                return results
            for name, value in _ONE_THREAD.items():
                os.environ.setdefault(name, value)
            pool = concurrent.futures.ProcessPoolExecutor(
                min(self.workers, len(items)),
                multiprocessing.get_context("spawn"), _begin_worker,
            )  # fmt: skip
            try:
                futures = [pool.submit(function, item) for item in items]
                for future in concurrent.futures.as_completed(futures):
                    future.result()  # a bug in one item ends the run at once
                    bar.update()
                return [future.result() for future in futures]
            except BrokenProcessPool:
                raise InputError(
                    f"one of {self.workers} workers was killed, perhaps for want of memory: run "
                    "again, which resumes, or with fewer workers"
                ) from None
            finally:
                pool.shutdown(cancel_futures=True)


def _begin_worker() -> None:
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # Workers hold both ends of the queue: of a parent that was killed they would wait forever.
    multiprocessing.parent_process().join()
    os._exit(1)


@dataclasses.dataclass(frozen=True)
class Beam:
    """An Apache Beam runner.

    options: as on Beam's command line: ("--runner=DataflowRunner", "--region=...").
    exchange: where items wait and results are gathered: a folder of `store` that all workers reach.
    """

    options: tuple[str, ...]
    store: Store
    exchange: str

    def map(self, function: Callable[[Any], Any], items: Sequence, unit: str) -> list:
        """Results in the order of the items.

        Raises:
          InputError: Beam is not installed, or the options name no runner of its.
        """
        try:
            import apache_beam as beam
            from apache_beam.options.pipeline_options import PipelineOptions
        except ImportError:
            raise InputError(
                "needs Apache Beam: pip install 'durian_jax[beam]', or leave it out",
                option="runner",
            ) from None
        if not items:
            return []
        self.store.remove_folder(self.exchange)
        # In a file, not in the graph: runners limit its size.
        waiting, results = f"{self.exchange}/items", f"{self.exchange}/results"
        self.store.write(waiting, pickle.dumps(list(items)))
        try:
            pipeline = beam.Pipeline(options=PipelineOptions(list(self.options)))
        except (ValueError, ImportError) as error:
            line = str(error).strip().splitlines()[0]
            raise InputError(f"{' '.join(self.options)}: {line}") from None
        with pipeline:
            _ = (
                pipeline
                | "file" >> beam.Create([waiting])
                | unit >> beam.FlatMap(functools.partial(_numbered, self.store))
                | "spread" >> beam.Reshuffle()
                | "work" >> beam.Map(functools.partial(_answer, function))
                | "gather" >> beam.io.WriteToText(self.store.url(results))
            )
        found = {}
        for name in self.store.files(self.exchange):
            if name.startswith("results-"):
                lines = self.store.read(f"{self.exchange}/{name}").decode().splitlines()
                found.update(json.loads(line) for line in lines)
        self.store.remove_folder(self.exchange)
        return [found[index] for index in range(len(items))]


def _numbered(store: Store, waiting: str) -> Iterator[tuple[int, Any]]:
    yield from enumerate(pickle.loads(store.read(waiting)))


def _answer(function: Callable[[Any], Any], item: tuple[int, Any]) -> str:
    cv2.setNumThreads(1)
    return json.dumps([item[0], function(item[1])])
