"""Arrays in pickles. A pickle is a small program that may call any function; here it may make
numpy arrays and nothing else."""

import pickle
from pathlib import Path

import numpy as np
from flax.traverse_util import flatten_dict

from input_pipeline.errors import InputError

# What an array calls to rebuild itself, under the names of numpy 1 and of numpy 2.
_ALLOWED = {("numpy", "ndarray"), ("numpy", "dtype")}
_ALLOWED |= {(f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it calls {module}.{name}, which is not executed")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Arrays of a pickled tree of dicts by their path, such as "AlexNet_0/Conv_0/kernel".

    Raises:
      InputError: damaged, or a pickle that is or calls anything else.
    """
    try:
        with open(path, "rb") as file:
            tree = _Unpickler(file).load()
        arrays = flatten_dict(tree, sep="/")
        if wrong := [name for name, value in arrays.items() if not isinstance(value, np.ndarray)]:
            raise pickle.UnpicklingError(f"{wrong[0]} is no array")
    # A damaged pickle may raise anything; so says Python's own documentation.
    except Exception as error:
        raise InputError(f"{path}: no pickle of arrays ({error}): install it again") from None
    return arrays
