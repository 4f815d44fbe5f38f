"""Checkpoints of a run: state, data iterator and meta, saved and restored as one unit (orbax)."""

import contextlib
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from durian_jax import state as train_state
from durian_jax import weights
from input_pipeline.errors import InputError

# Settings that may differ when a run is resumed; everything else describes what is trained.
MAY_CHANGE = ("steps", "log_every", "sample", "save", "guards", "data.workers", "mesh")


class Checkpoints:
    """The checkpoints of one run directory.

    Each holds: params (trained and frozen), ema (trained), opt_state, data (the loader's state) and
    meta (the config, in plain values).
    """

    def __init__(self, workdir: str | Path, keep: int = 2, keep_every: int = 0):
        """
        Args:
          keep: number of newest checkpoints that stay.
          keep_every: checkpoints whose step is a multiple of it stay for ever; 0 for none.
        """
        self.path = Path(workdir).absolute() / "checkpoints"
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, keep_period=keep_every or None, enable_async_checkpointing=True
        )
        self._manager = ocp.CheckpointManager(self.path, options=options)

    @property
    def latest_step(self) -> int | None:
        """Step of the newest complete checkpoint; None if there is none."""
        return self._manager.latest_step()

    def save(self, state: train_state.TrainState, data: dict, meta: dict) -> None:
        """Starts saving; returns once the state may be overwritten."""
        self._manager.save(
            int(state.step),
            args=ocp.args.Composite(
                params=ocp.args.StandardSave(train_state.merge(state.trained, state.frozen)),
                ema=ocp.args.StandardSave(state.ema),
                opt_state=ocp.args.StandardSave(state.opt_state),
                data=ocp.args.JsonSave({**data, "skipped": state.skipped.tolist()}),
                meta=ocp.args.JsonSave(meta),
            ),
        )

    def restore(self, layout: train_state.TrainState) -> tuple[train_state.TrainState, dict]:
        """The newest checkpoint as (state, loader state).

        Args:
          layout: a state of jax.ShapeDtypeStruct with shardings; the mesh may be another than the
            one that saved.

        Raises:
          InputError: the checkpoint is damaged. It is never passed over in silence.
        """
        params = train_state.merge(layout.trained, layout.frozen)
        arguments = ocp.args.Composite(
            params=ocp.args.StandardRestore(params),
            ema=ocp.args.StandardRestore(layout.ema),
            opt_state=ocp.args.StandardRestore(layout.opt_state),
            data=ocp.args.JsonRestore(),
        )
        with _reading(self._manager):
            found = self._manager.restore(self.latest_step, args=arguments)
        state = train_state.TrainState(
            step=jax.device_put(np.int32(self.latest_step), layout.step.sharding),
            trained=train_state.take(found.params, layout.trained),
            frozen=train_state.take(found.params, layout.frozen),
            opt_state=found.opt_state,
            ema=found.ema,
            skipped=jax.device_put(np.int32(found.data["skipped"]), layout.skipped.sharding),
        )
        return state, found.data

    def refuse_other(self, meta: dict) -> None:
        """Raises InputError if the newest checkpoint belongs to another config, and says how."""
        arguments = ocp.args.Composite(meta=ocp.args.JsonRestore())
        with _reading(self._manager):
            saved = self._manager.restore(self.latest_step, args=arguments).meta["config"]
        changes = config_difference(saved, meta["config"])
        if changes:
            raise InputError(
                f"{self.path.parent} holds a run of another config ({'; '.join(changes)}): "
                "use another --workdir or the same settings"
            )

    def wait(self) -> None:
        """Waits for saves under way; raises what they raised."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for saves under way; raises what they raised."""
        self._manager.wait_until_finished()
        self._manager.close()


def load(source: str | Path, ema: bool = True) -> tuple[dict, dict]:
    """Parameters (the average of the trained ones, or the raw ones) and meta of a run.

    Args:
      source: the workdir of a run, or whatever else `weights.locate` finds; folders of weights hold
        one set of parameters, and durian.json is their meta.

    Returns:
      A float32 parameter tree of numpy arrays, and the meta of the newest checkpoint.

    Raises:
      InputError: there is no complete checkpoint, or it is damaged.
    """
    workdir = weights.locate(source)
    if weights.is_folder(workdir):
        return weights.load(workdir)
    if not (Path(workdir) / "checkpoints").is_dir():
        raise InputError(f"{workdir}: no checkpoint here: give the --workdir of a durian train run")
    handlers = {name: ocp.PyTreeCheckpointHandler() for name in ("params", "ema", "opt_state")}
    handlers |= {name: ocp.JsonCheckpointHandler() for name in ("data", "meta")}
    path = Path(workdir).absolute() / "checkpoints"
    with ocp.CheckpointManager(path, item_handlers=handlers) as manager:
        step = manager.latest_step()
        if step is None:
            raise InputError(f"{workdir}: no complete checkpoint yet: train until the first save")
        items = ("params", "ema") if ema else ("params",)
        with _reading(manager):
            saved, as_numpy = manager.item_metadata(step), ocp.RestoreArgs(restore_type=np.ndarray)
            arguments = {
                item: ocp.args.PyTreeRestore(
                    restore_args=jax.tree.map(lambda _: as_numpy, saved[item].tree)
                )
                for item in items
            }
            arguments["meta"] = ocp.args.JsonRestore()
            found = manager.restore(step, args=ocp.args.Composite(**arguments))
    return train_state.merge(found.params, found.ema if ema else {}), found.meta


@contextlib.contextmanager
def _reading(manager: ocp.CheckpointManager):
    """What orbax raises while it reads the newest checkpoint, as InputError."""
    try:
        yield
    except (ValueError, OSError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"{manager.directory / str(manager.latest_step())}: damaged checkpoint ({reason}): "
            "delete this folder to go on from the one before"
        ) from error


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
