"""One job at a time: the others wait in line, see where they stand, and may be stopped."""

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from tqdm import tqdm

from durian_jax.sampling.program import Progress
from input_pipeline.errors import InputError

MOST_WAITING = 8
_POLL_SECONDS = 0.25


class Stopped(Exception):
    """The user does not want the job any more."""


class Task:
    """A job in the line.

    Attributes:
      stopped: once set, it ends at the next event of its progress, or before it begins.
    """

    def __init__(self, owner: object = None):
        self.owner, self.stopped, self._seconds = owner, threading.Event(), []
        self._now, self._at = ("", 0, 0), time.monotonic()

    def progress(self, phase: str, done: int, total: int) -> None:
        """See `Progress`."""
        if self.stopped.is_set():
            raise Stopped
        before, at = self._now, time.monotonic()
        # A step after another phase would count that, too.
        if phase == before[0] and done == before[1] + 1:
            self._seconds.append(at - self._at)
        self._now, self._at = (phase, done, total), at

    def told(self) -> tuple[str, float | None]:
        """What is going on, and the share of it that is done, if that is known."""
        phase, done, total = self._now
        if self.stopped.is_set():
            return f"Stopping{', once this is done: ' + phase if phase else ''} ...", None
        if not total:
            return f"{phase.capitalize() or 'Starting'} ...", None
        left = ""
        if phase == "denoising" and len(self._seconds) > 1:
            seconds = statistics.median(self._seconds) * (total - done)
            left = f", about {tqdm.format_interval(seconds)} left"
        unit = "step" if phase == "denoising" else "frame"
        return f"{phase.capitalize()}: {unit} {done} of {total}{left}", done / total


class Line:
    """First come, first served."""

    def __init__(self):
        self._pool, self._tasks = ThreadPoolExecutor(1), []
        self._lock = threading.Lock()

    def follow(self, owner: object, work: Callable[[Progress], object]) -> Iterator[tuple]:
        """Does the work when it is its turn; yields (text, share) as `Task.told`, then (None, what
        the work returned).

        Raises what the work raises; Stopped; InputError: too many wait.
        """
        task = Task(owner)
        with self._lock:
            if len(self._tasks) > MOST_WAITING:
                raise InputError(f"{MOST_WAITING} jobs wait already: try again in a while")
            self._tasks.append(task)
            future = self._pool.submit(self._turn, task, work)
        try:
            while not future.done():
                if task.stopped.is_set() and future.cancel():
                    self._tasks.remove(task)
                    raise Stopped
                there = [*self._tasks]
                ahead = there.index(task) if task in there else 0
                waits = f"Waiting: {ahead} job{'s' * (ahead > 1)} before yours", None
                yield waits if ahead else task.told()
                time.sleep(_POLL_SECONDS)
            yield None, future.result()
        finally:
            task.stopped.set()  # where nobody listens any more

    def stop(self, owner: object = None) -> None:
        """Ends the jobs of an owner, or of all."""
        for task in [*self._tasks]:
            if owner in (None, task.owner):
                task.stopped.set()

    def _turn(self, task: Task, work: Callable[[Progress], object]):
        try:
            if task.stopped.is_set():
                raise Stopped
            return work(task.progress)
        finally:
            self._tasks.remove(task)
