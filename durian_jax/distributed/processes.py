"""Joins the processes of a run, one or more on each machine, and lets them part in order.

jax finds the others by itself on Slurm, Cloud TPU VMs, GKE and Open MPI. Anywhere else three
environment variables name them, the same on every machine but for the last:

    JAX_COORDINATOR_ADDRESS=HOST:PORT   of process 0
    JAX_NUM_PROCESSES=N
    JAX_PROCESS_ID=0 ... N-1

jax 0.10 to 0.12 reads only the first of them itself.
"""

import contextlib
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator

from input_pipeline.errors import InputError, Interrupted

VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
# sysexits.h: EX_SOFTWARE. Start the same command again.
HUNG = 70
# Pods come up minutes apart; DURIAN_JOIN_TIMEOUT says otherwise, in seconds.
JOIN_SECONDS = 300.0
# Process 0 may still write pictures when the others are done.
SHUTDOWN_SECONDS = 300.0
# Bad input ends all processes at once; whoever fails alone need not wait for the rest.
FAIL_SECONDS = 10.0


def initialize() -> None:
    """Joins the other processes if the environment says that there are any.

    Called before jax touches devices; where they are in use already, in a notebook, or the others
    are joined, it does nothing. Nor does it without such an environment, or with
    JAX_NUM_PROCESSES=1 alone. A peer that does not come ends this process with
    code 70 and one line on stderr: jax itself would abort, which no caller can catch.

    Raises:
      InputError: the environment is incomplete or contradicts itself, or jax finds a cluster whose
        processes it cannot name.
    """
    given = {name: os.environ[name] for name in VARIABLES if os.environ.get(name)}
    if given == {"JAX_NUM_PROCESSES": "1"}:
        return
    options = _explicit(given) if given else {}
    seconds = _seconds("DURIAN_JOIN_TIMEOUT", JOIN_SECONDS)
    import jax

    if jax.distributed.is_initialized():
        return

    def give_up() -> None:
        name = f"process {options['process_id']} of {options['num_processes']}" if given else "this"
        where = given.get("JAX_COORDINATOR_ADDRESS", "the coordinator of the cluster")
        print(
            f"durian: {name} waited {seconds:g} s for the others at {where}: start all processes, "
            "check that the address can be reached from here and is free on process 0, or give "
            "them more time with DURIAN_JOIN_TIMEOUT=SECONDS",
            file=sys.stderr,
            flush=True,
        )
        os._exit(HUNG)

    try:
        with _deadline(seconds, give_up):
            jax.distributed.initialize(
                **options,
                initialization_timeout=int(seconds) + 60,
                shutdown_timeout_seconds=int(SHUTDOWN_SECONDS) + 60,
            )
    except ValueError as error:
        # What jax says where it finds no cluster: a laptop, one machine.
        if given or "coordinator_address should be defined" not in str(error):
            raise
    except RuntimeError as error:
        if not given and "must be called before" in str(error):
            return
        reason = " ".join(str(error).split())
        raise InputError(
            f"jax cannot join the processes of this cluster ({reason}): set "
            f"{', '.join(VARIABLES)}, or JAX_NUM_PROCESSES=1 to work alone"
        ) from error


def shutdown(code: int) -> None:
    """Waits until the other processes end as well; does nothing in a run of one process.

    Called at the very end, also while an exception passes. A process that fails alone ends after
    10 s with its own code, and the others then learn that it is gone.

    Args:
      code: the exit code this process is about to give.
    """
    if "jax" not in sys.modules:
        return
    import jax

    if not jax.distributed.is_initialized():
        return
    error, together = sys.exc_info()[1], code in (0, Interrupted.code)

    def give_up() -> None:
        if error is not None:
            traceback.print_exception(error)
        elif together:
            print(
                f"durian: this process is done, but not all others within {SHUTDOWN_SECONDS:g} s: "
                "look at their logs",
                file=sys.stderr,
            )
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or HUNG)

    with _deadline(SHUTDOWN_SECONDS if together else FAIL_SECONDS, give_up):
        jax.distributed.shutdown()


def _explicit(given: dict[str, str]) -> dict:
    """Arguments of jax.distributed.initialize out of all three variables."""
    for name in VARIABLES:
        if name not in given:
            raise InputError(
                f"{name} is missing beside {' and '.join(given)}: set all of "
                f"{', '.join(VARIABLES)}, or none of them"
            )
    address = given["JAX_COORDINATOR_ADDRESS"]
    if not address.rpartition(":")[2].isdigit() or ":" not in address[1:]:
        raise InputError(f"JAX_COORDINATOR_ADDRESS is {address!r}: write HOST:PORT")
    count, index = (_integer(name, given[name]) for name in VARIABLES[1:])
    if not 0 <= index < count:
        raise InputError(
            f"JAX_PROCESS_ID is {index}, JAX_NUM_PROCESSES {count}: number them 0 to {count - 1}"
        )
    return {
        "coordinator_address": address,
        "num_processes": count,
        "process_id": index,
        # Else jax would still ask Slurm or Kubernetes, and take one GPU of this machine.
        "cluster_detection_method": "deactivate",
    }


def _integer(name: str, text: str) -> int:
    if not text.isdecimal():
        raise InputError(f"{name} is {text!r}: write a whole number")
    return int(text)


def _seconds(name: str, default: float) -> float:
    text = os.environ.get(name)
    if not text:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e6:
        raise InputError(f"{name} is {text!r}: write seconds, more than 0")
    return seconds


@contextlib.contextmanager
def _deadline(seconds: float, give_up: Callable[[], None]) -> Iterator[None]:
    """Calls `give_up` from another thread unless the block ends in time."""
    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
