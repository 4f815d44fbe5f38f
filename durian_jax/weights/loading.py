"""Weights ready to use, from a run, a folder, the hub or the package."""

import contextlib
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from durian_jax.weights import storage, trees
from input_pipeline.errors import InputError

# Items of a checkpoint that are trees of arrays.
TREES = ("params", "ema", "opt_state")


def load(source: str | Path, ema: bool = True) -> tuple[dict, dict]:
    """Parameters (the average of the trained ones, or the raw ones) and meta of a run.

    Args:
      source: the workdir of a run, or whatever else `storage.locate` finds; folders of weights hold
        one set of parameters, and durian.json is their meta.

    Returns:
      A float32 parameter tree of numpy arrays, and the meta of the newest checkpoint.

    Raises:
      InputError: there is no complete checkpoint, or it is damaged.
    """
    workdir = storage.locate(source)
    if storage.is_folder(workdir):
        return storage.load(workdir)
    if not (Path(workdir) / "checkpoints").is_dir():
        raise InputError(
            f"{workdir}: no checkpoint here: give the workdir of a durian train run, or what "
            "durian convert makes of other weights"
        )
    handlers = {name: ocp.PyTreeCheckpointHandler() for name in TREES} | json_handlers()
    path = Path(workdir).absolute() / "checkpoints"
    # Another process may be saving here: what is unfinished is not ours to remove.
    options = ocp.CheckpointManagerOptions(create=False, cleanup_tmp_directories=False)
    with ocp.CheckpointManager(path, options=options, item_handlers=handlers) as manager:
        step = manager.latest_step()
        if step is None:
            raise InputError(f"{workdir}: no complete checkpoint yet: train until the first save")
        items = ("params", "ema") if ema else ("params",)
        with reading(manager):
            as_numpy = ocp.RestoreArgs(restore_type=np.ndarray)
            arguments = {
                item: ocp.args.PyTreeRestore(restore_args=jax.tree.map(lambda _: as_numpy, tree))
                for item, tree in saved_trees(manager, items).items()
            }
            arguments["meta"] = ocp.args.JsonRestore()
            found = manager.restore(step, args=ocp.args.Composite(**arguments))
    return trees.merge(found.params, found.ema if ema else {}), found.meta


@contextlib.contextmanager
def reading(manager: ocp.CheckpointManager):
    """What orbax raises while it reads the newest checkpoint, as InputError."""
    try:
        yield
    except Exception as error:
        # For a damaged array orbax raises Exception itself. A device out of memory, say, is no
        # reason to delete anything.
        if not isinstance(error, ValueError | OSError | KeyError) and type(error) is not Exception:
            raise
        raise InputError(
            f"{manager.directory / str(manager.latest_step())}: damaged checkpoint "
            f"({first_line(error)}): delete this folder to resume from the one before"
        ) from error


def saved_trees(manager: ocp.CheckpointManager, items: tuple[str, ...]) -> dict:
    """Shapes and dtypes of the newest checkpoint's arrays, a tree for each item."""
    metadata = manager.item_metadata(manager.latest_step())
    for item in items:
        if metadata.get(item) is None:
            raise KeyError(f"nothing describes {item}")
    return {item: metadata[item].tree for item in items}


def first_line(error: Exception) -> str:
    """The first line that an exception says, or its class."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def json_handlers() -> dict:
    """Orbax handlers of the JSON items of a checkpoint."""
    return {name: ocp.JsonCheckpointHandler() for name in ("data", "meta")}
