"""What keeps a run from being lost: stopping in good order, and noticing that nothing moves."""

import faulthandler
import os
import signal
import sys
import threading
import time

import jax
import numpy as np
from jax.sharding import Mesh

from durian_jax.distributed import sharding
from durian_jax.distributed.processes import HUNG
from input_pipeline.errors import Interrupted

# What a process may ask all of them to do; the highest wins.
NOTHING, SAVE, STOP = 0, 1, 2


class Requests:
    """Requests to save or to stop, by any process, that all processes obey at the same step.

    SIGTERM asks to stop, after a last checkpoint. The clock of the first process asks to save.
    A request travels as one number per device beside the training steps, and its maximum over all
    of them is read one step later: nobody waits for it, and none can miss it. As a context manager
    it holds the handler of SIGTERM.
    """

    def __init__(self, mesh: Mesh, minutes: float = 0.0):
        """
        Args:
          mesh: the mesh of the run.
          minutes: between two requests to save; 0 for none.
        """
        self._mesh, self._seconds = mesh, 60 * minutes
        self._terminated, self._posted = False, None
        self._maximum = jax.jit(lambda x: x.max(), out_shardings=sharding.replicated(mesh))
        self._saved = time.monotonic()

    def __enter__(self) -> "Requests":
        # Python gives signals to the main thread alone.
        if threading.current_thread() is threading.main_thread():
            self._handler = signal.signal(signal.SIGTERM, self._terminate)
        return self

    def __exit__(self, *_) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._handler)

    def _terminate(self, *_) -> None:
        # No exception from here: it could break into a library at any point.
        self._terminated = True

    def check_start(self) -> None:
        """Raises Interrupted in all processes if SIGTERM came to one, before the first step.

        Every process calls it at the same places; the first to come waits for the last.
        """
        # Who left alone would leave the others in the collectives of the first step.
        self.post()
        request, self._posted = self.read(), None
        if request == STOP:
            raise Interrupted("stopped by SIGTERM before the first step: nothing to save")

    def post(self) -> None:
        """Sends this process's request on its way; every process calls it once a step."""
        request = STOP if self._terminated else NOTHING
        if self._seconds and jax.process_index() == 0:
            late = time.monotonic() - self._saved > self._seconds
            request = max(request, SAVE if late else NOTHING)
        local = {"request": np.full(jax.local_device_count(), request, np.int32)}
        self._posted = self._maximum(sharding.put_batch(local, self._mesh)["request"])

    def read(self) -> int:
        """What all processes agreed on in the last `post`: NOTHING, SAVE or STOP."""
        return NOTHING if self._posted is None else int(self._posted)

    def saved(self) -> None:
        """Starts the clock anew."""
        self._saved = time.monotonic()


def refuse_divergence(skipped: np.ndarray, step: int, limit: int) -> None:
    """Stops a run that no longer learns.

    Args:
      skipped: int [2] of TrainState, after `step` steps.
      limit: skipped steps in a row that are too many.

    Raises:
      FloatingPointError: `limit` steps in a row were skipped.
    """
    if skipped[1] >= limit:
        raise FloatingPointError(
            f"loss or gradient was not finite in {skipped[1]} steps in a row, up to step {step} "
            f"({skipped[0]} in all); the limit is config.guards.max_skipped={limit}. The weights "
            "are those of the last good step: start from the last checkpoint with a lower "
            "optimizer.learning_rate, or look at the data with durian check"
        )


class Watchdog:
    """Ends the process when nothing has moved for too long.

    A data worker, a file system or another host that hangs would otherwise hold all machines of a
    run for as long as they are paid. The last words name what was waited for and show where every
    thread stands.
    """

    def __init__(self, minutes: float):
        """
        Args:
          minutes: longest time between two calls of `expect`; 0 for no limit.
        """
        self._seconds = 60 * minutes
        self._awaited, self._since = "", time.monotonic()
        self._closed = threading.Event()

    def __enter__(self) -> "Watchdog":
        if self._seconds:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._closed.set()

    def expect(self, what: str) -> None:
        """Says what comes next; the time for it starts now. "" is given any time."""
        self._awaited, self._since = what, time.monotonic()

    def _watch(self) -> None:
        while not self._closed.wait(min(self._seconds / 10, 10)):
            waited = time.monotonic() - self._since
            if self._awaited and waited > self._seconds:
                print(
                    f"durian train: nothing came for {waited / 60:.1f} minutes of {self._awaited} "
                    f"(process {jax.process_index()} of {jax.process_count()}); the limit is "
                    "config.guards.timeout_minutes: look at the stacks below, then start the same "
                    "command again",
                    file=sys.stderr,
                    flush=True,
                )
                faulthandler.dump_traceback(file=sys.stderr)
                # The main thread hangs, so nothing but this ends the process.
                os._exit(HUNG)
