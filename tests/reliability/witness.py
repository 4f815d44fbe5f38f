"""`durian` under watch, and killed where a test wants it.

    python -m tests.reliability.witness 'toy kill@batch=10' train --config ... --workdir RUN

Each batch leaves its number and hash in RUN/batches_PROCESS.txt. The first argument is a list of:
toy: the model of toy.py; term@batch=N, kill@batch=N: the signal as batch N is taken;
term@weights, term@pictures: SIGTERM before the first step, as the initial weights are drawn or the
batch of the pictures is taken;
kill@save=N: as the save of step N is about to become complete; nan@batch=N: batch N spoilt;
full@save=N: no file over 8 kB from the save of step N on. Of several processes the last gets the
signal.
"""

import hashlib
import os
import resource
import signal
import sys
from pathlib import Path

import numpy as np

from input_pipeline.training import loader


def main() -> int:
    events, arguments = sys.argv[1].split(), sys.argv[2:]
    workdir = Path(arguments[arguments.index("--workdir") + 1])
    if "toy" in events:
        from tests.reliability import toy

        toy.install()
    _watch_batches(workdir, events)
    _watch_saves(workdir, events)
    _watch_weights(events)
    from durian_jax.cli.main import main

    return main(arguments)


def _watch_batches(workdir: Path, events: list[str]) -> None:
    start, take = loader.Loader.__init__, loader.Loader.__next__

    def __init__(self, *arguments, seed, process_index=0, **options):
        start(self, *arguments, seed=seed, process_index=process_index, **options)
        self.watched = seed, process_index

    def __next__(self):
        number, (seed, process) = self.get_state()["batch"], self.watched
        batch = take(self)
        with open(workdir / f"batches_{process}.txt", "a") as file:
            file.write(f"{seed}/{number} {digest(batch)}\n")
        # Batches of the other seed are for pictures.
        if seed and "term@pictures" in events and process == _last_process():
            os.kill(os.getpid(), signal.SIGTERM)
        if not seed:
            if f"nan@batch={number}" in events:
                batch["keypoints"] = np.full_like(batch["keypoints"], np.nan)
            for name, sign in (("kill", signal.SIGKILL), ("term", signal.SIGTERM)):
                if f"{name}@batch={number}" in events and process == _last_process():
                    os.kill(os.getpid(), sign)
        return batch

    loader.Loader.__init__, loader.Loader.__next__ = __init__, __next__


def _watch_saves(workdir: Path, events: list[str]) -> None:
    """An atomic save ends with a rename, whichever call of the system makes it."""
    fatal = {str(workdir.absolute() / "checkpoints" / e[10:]) for e in events if "kill@save" in e}

    def watched(rename):
        def call(source, target, **options):
            if str(target) in fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            return rename(source, target, **options)

        return call

    os.rename, os.replace = watched(os.rename), watched(os.replace)
    from durian_jax.training import checkpoint

    save = checkpoint.Checkpoints.save

    def save_to_a_full_disk(self, state, *arguments):
        if f"full@save={int(state.step)}" in events:
            self.wait()  # what was saved before has found room
            resource.setrlimit(resource.RLIMIT_FSIZE, (2**13, 2**13))
        return save(self, state, *arguments)

    checkpoint.Checkpoints.save = save_to_a_full_disk


def _watch_weights(events: list[str]) -> None:
    from durian_jax.training import train_step

    create = train_step.Training.create_state

    def create_state(self):
        if "term@weights" in events and int(os.environ.get("JAX_PROCESS_ID", 0)) == _last_process():
            os.kill(os.getpid(), signal.SIGTERM)
        return create(self)

    train_step.Training.create_state = create_state


def _last_process() -> int:
    return int(os.environ.get("JAX_NUM_PROCESSES", 1)) - 1


def digest(batch: dict[str, np.ndarray]) -> str:
    """One hash of all arrays with their names."""
    found = hashlib.sha256()
    for name in sorted(batch):
        found.update(name.encode() + np.ascontiguousarray(batch[name]).tobytes())
    return found.hexdigest()[:16]


if __name__ == "__main__":
    sys.exit(main())
