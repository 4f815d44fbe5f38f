"""Checkpoints of a run: state, progress and meta, saved and restored as one unit (orbax).

A checkpoint is complete when its folder has its final name, which orbax gives it last. Whatever a
kill leaves behind is named at the next start and removed; it is never read.
"""

import contextlib
import functools
import logging
import re
import sys
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from durian_jax.training import state as train_state
from durian_jax.weights import trees
from durian_jax.weights.loading import TREES, first_line, json_handlers, reading, saved_trees
from input_pipeline.errors import InputError

# Settings that may differ when a run is resumed; everything else describes what is trained. The
# path of the data set is not what names it: its fingerprint is.
MAY_CHANGE = (
    "steps", "optimizer.decay_steps", "log_every", "profile", "sample", "validation", "save",
    "guards", "data.workers", "data.path", "mesh",
)  # fmt: skip
VERSION = 2  # of the items in a checkpoint; raise when they change
_UNFINISHED = re.compile(r"(\d+)\.orbax-checkpoint-tmp")
# Differences named in an error; a changed model has hundreds.
_MOST_NAMED = 3


class Checkpoints:
    """The checkpoints of one run directory.

    Each holds: params (trained and frozen), ema (trained), opt_state; data (progress: plain values
    of the loop, such as the loader's state, and the counts of skipped steps); meta (the config and
    what names the data set, plain values).

    Attributes:
      path: folder of the checkpoints.
      unfinished: steps whose saves a kill had cut short; their folders are removed.
    """

    def __init__(self, workdir: str | Path, keep: int = 2, keep_every: int = 0):
        """
        Args:
          keep: number of newest checkpoints that stay.
          keep_every: checkpoints whose step is a multiple of it stay for ever; 0 for none.

        Raises:
          InputError: `keep` is less than 1, or the folder cannot be made.
        """
        if keep < 1 or keep_every < 0:
            raise InputError(
                f"save.keep is {keep}, save.keep_every {keep_every}: must be at least 1 and 0"
            )
        _say_failures_once()
        self.path = Path(workdir).absolute() / "checkpoints"
        policy = ocp.checkpoint_managers
        policies = [policy.LatestN(keep)]
        if keep_every:
            policies.append(policy.EveryNSteps(keep_every))
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policy.AnyPreservationPolicy(policies),
            cleanup_tmp_directories=True,
            enable_async_checkpointing=True,
        )
        handlers = {name: ocp.StandardCheckpointHandler() for name in TREES}
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            found = [_UNFINISHED.match(entry.name) for entry in self.path.iterdir()]
            self.unfinished = sorted({int(match[1]) for match in found if match})
            self._manager = ocp.CheckpointManager(
                self.path, options=options, item_handlers=handlers | json_handlers()
            )
        except OSError as error:
            raise InputError(
                f"{self.path}: no place for checkpoints ({error.strerror}): use another workdir"
            ) from error

    @property
    def latest_step(self) -> int | None:
        """Step of the newest complete checkpoint; None if there is none."""
        return self._manager.latest_step()

    def save(self, state: train_state.TrainState, progress: dict, meta: dict) -> None:
        """Starts saving; returns once the state may be overwritten.

        Args:
          progress: plain JSON values of the loop; `restore` gives them back.
          meta: as in `refuse_other`.

        Raises:
          InputError: this save or the one before failed: the disk is full, for instance.
        """
        step = int(state.step)
        with self._writing(f"step {step}, or of the one before,"):
            # Without force, orbax leaves out what it holds to be unnecessary, in silence.
            self._manager.save(
                step,
                force=True,
                args=ocp.args.Composite(
                    params=ocp.args.StandardSave(trees.merge(state.trained, state.frozen)),
                    ema=ocp.args.StandardSave(state.ema),
                    opt_state=ocp.args.StandardSave(state.opt_state),
                    data=ocp.args.JsonSave({**progress, "skipped": state.skipped.tolist()}),
                    meta=ocp.args.JsonSave({**meta, "version": VERSION}),
                ),
            )

    def restore(self, layout: train_state.TrainState) -> tuple[train_state.TrainState, dict]:
        """The newest checkpoint as (state, progress).

        Each device reads its own part of each array, none a whole copy of a split one.

        Args:
          layout: a state of jax.ShapeDtypeStruct with shardings; the mesh may be another than the
            one that saved.

        Raises:
          InputError: the checkpoint is damaged, or of another model. It is never passed over in
            silence.
        """
        params = trees.merge(layout.trained, layout.frozen)
        items = {"params": params, "ema": layout.ema, "opt_state": layout.opt_state}
        restores = {name: ocp.args.StandardRestore(tree) for name, tree in items.items()}
        arguments = ocp.args.Composite(**restores, data=ocp.args.JsonRestore())
        self._refuse_other_trees(items)
        with reading(self._manager):
            found = self._manager.restore(self.latest_step, args=arguments)
        state = train_state.TrainState(
            step=jax.device_put(np.int32(self.latest_step), layout.step.sharding),
            trained=trees.take(found.params, layout.trained),
            frozen=trees.take(found.params, layout.frozen),
            opt_state=found.opt_state,
            ema=found.ema,
            skipped=jax.device_put(np.int32(found.data.pop("skipped")), layout.skipped.sharding),
        )
        return state, found.data

    def refuse_other(self, meta: dict) -> None:
        """Raises InputError if the newest checkpoint belongs to another run, and says how.

        Args:
          meta: "config", its plain values, and "data_set", the identity of the data set.
        """
        arguments = ocp.args.Composite(meta=ocp.args.JsonRestore())
        with reading(self._manager):
            saved = self._manager.restore(self.latest_step, args=arguments).meta
        if saved.get("version") != VERSION:
            raise InputError(
                f"{self.path / str(self.latest_step)}: checkpoint version "
                f"{saved.get('version', 1)}, this code reads {VERSION}: finish the run with the "
                f"code that began it, or start another whose init_from is {self.path.parent}"
            )
        changes = config_difference(saved["config"], meta["config"])
        if saved["data_set"] != meta["data_set"]:
            old, new = (_data_set_text(each["data_set"]) for each in (saved, meta))
            changes.append(f"data set: saved {old}, now {new}")
        if changes:
            raise InputError(
                f"{self.path.parent} holds another run ({'; '.join(changes)}): use another "
                "workdir, or the same settings and data set"
            )

    def _refuse_other_trees(self, items: dict) -> None:
        """Raises InputError if the newest checkpoint's arrays are not those of `items`."""
        with reading(self._manager):
            saved = saved_trees(self._manager, tuple(items))
        old, new = _signature(saved), _signature(items)
        changes = [
            f"{key}: saved {old.get(key, 'nothing')}, the model has {new.get(key, 'nothing')}"
            for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key)
        ]
        if changes:
            rest = f"; and {len(changes) - _MOST_NAMED} more" if changes[_MOST_NAMED:] else ""
            raise InputError(
                f"{self.path / str(self.latest_step)} is of another model "
                f"({'; '.join(changes[:_MOST_NAMED])}{rest}): use the code and the config that "
                "wrote it, or another workdir"
            )

    def wait(self) -> None:
        """Waits for saves under way; raises what they raised."""
        with self._writing("the last step"):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for saves under way; raises what they raised."""
        self.wait()
        self._manager.close()

    @contextlib.contextmanager
    def _writing(self, what: str):
        """What orbax raises when it cannot write, as InputError."""
        try:
            yield
        except (ValueError, OSError) as error:
            complete = f"step {self.latest_step}" if self.latest_step else "none"
            raise InputError(
                f"{self.path}: the checkpoint of {what} was not written ({first_line(error)}); "
                f"the last complete one: {complete}: free some space or repair the disk, then "
                "start the same command again"
            ) from error


@functools.cache
def _say_failures_once() -> None:
    """What fails in a thread of orbax is raised to us; it need not be logged there as well.

    A full disk is else hundreds of lines of tracebacks, before and after the one that counts: from
    the thread of each tree, from asyncio for each array, and from each write that was given up and
    finds the loop closed that waited for it.
    """

    def is_ours(record: logging.LogRecord) -> bool:
        return not (record.exc_info and "orbax" in record.pathname)

    logging.getLogger("absl").addFilter(is_ours)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    report = sys.unraisablehook

    def report_others(unraisable) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            report(unraisable)

    sys.unraisablehook = report_others


def _signature(tree) -> dict[str, str]:
    """Dtype and shape of each leaf by its path: "ema/denoiser/conv_in/bias" -> "float32 (4,)"."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): (
            f"{np.dtype(leaf.dtype)} {tuple(leaf.shape)}"
        )
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


def _data_set_text(identity: dict) -> str:
    """1a2b3c4d5e6f7788 (120 records, schema 1)"""
    return "{fingerprint} ({records} records, schema {schema})".format(**identity)


def config_difference(saved: dict, current: dict) -> list[str]:
    """Settings that differ and may not, one line each: "model.heads: saved 4, now 8"."""

    def flatten(tree, prefix=""):
        for key, value in tree.items():
            if isinstance(value, dict):
                yield from flatten(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", list(value) if isinstance(value, tuple) else value

    old, new = dict(flatten(saved)), dict(flatten(current))
    free = tuple(f"{name}." for name in MAY_CHANGE)
    return [
        f"{key}: saved {old.get(key, 'nothing')}, now {new.get(key, 'nothing')}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not f"{key}.".startswith(free)
    ]
