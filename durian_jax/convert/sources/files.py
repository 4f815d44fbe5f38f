"""Tensors in other people's files: safetensors, torch's zip archives, Flax's msgpack.

Each opens as a dict of `Stored`; none of them runs code, and but for Flax's they are read one at a
time. A torch file holds a pickle, a small program that may call any function. Here it may call two:
the one that makes an ordered dict and the one that lays a tensor over a storage, and the second is
our own. This is what `torch.load(weights_only=True)` does, without torch, and without all tensors
in memory at once.
"""

import collections
import json
import pickle
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
from flax import serialization
from flax.traverse_util import flatten_dict

from durian_jax.weights.storage import Stored, read_safetensors
from input_pipeline.errors import InputError

_STORAGES = {
    "DoubleStorage": np.float64, "FloatStorage": np.float32, "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16, "LongStorage": np.int64, "IntStorage": np.int32,
    "ShortStorage": np.int16, "CharStorage": np.int8, "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}  # fmt: skip


def open_weights(path: Path) -> dict[str, Stored]:
    """Tensors of a file by name: .safetensors, .msgpack, .pth, .pt, .ckpt or .bin; reads none yet.

    A safetensors index (`*.safetensors.index.json`) stands for all its parts.

    Raises:
      InputError: no such file, damaged, of another kind, or a pickle that wants to run code.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file: check the path")
    if path.name.endswith(".safetensors.index.json"):
        parts = sorted(set(read_json(path).get("weight_map", {}).values()))
        return {k: v for part in parts for k, v in read_safetensors(path.with_name(part)).items()}
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    if path.suffix == ".msgpack":
        return _read_msgpack(path)
    if path.suffix in (".pth", ".pt", ".ckpt", ".bin"):
        return _read_torch(path)
    raise InputError(
        f"{path}: unknown kind of file: give .safetensors, .pth, .ckpt, .bin or .msgpack"
    )


def read_json(path: Path) -> dict:
    """A JSON object. Raises InputError if the file is missing or holds something else."""
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as JSON ({error}): download it again") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: holds no JSON object: download it again")
    return values


class _Unpickler(pickle.Unpickler):
    """Rebuilds dicts of tensors as `Stored`, and nothing else."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, root: str):
        super().__init__(archive.open(f"{root}/data.pkl"))
        self.path, self.archive, self.root = path, archive, root

    def find_class(self, module: str, name: str):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._rebuild
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _first
        if module == "torch" and name in _STORAGES:
            return name
        raise InputError(
            f"{self.path}: its pickle calls {module}.{name}, which is not executed: save the state "
            "dict alone, best as safetensors"
        )

    def persistent_load(self, key):
        _, storage, name, _, count = key
        return np.dtype(_STORAGES[storage]), str(name), count

    def _rebuild(self, storage, offset, size, stride, *_):
        """torch._utils._rebuild_tensor_v2; the key is filled in once the dict is complete."""
        dtype, name, count = storage
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if 0 not in size and not 0 <= offset <= last < count:
            raise ValueError("a tensor reaches beyond its storage")

        def read() -> np.ndarray:
            try:
                data = np.frombuffer(self.archive.read(f"{self.root}/data/{name}"), dtype)
                steps = [step * dtype.itemsize for step in stride]
                return np.lib.stride_tricks.as_strided(data[offset:], size, steps)
            except (zipfile.BadZipFile, ValueError, EOFError) as error:
                raise InputError(f"{self.path}: damaged ({error}): copy it again") from None

        return Stored(self.path, "", tuple(size), dtype.name, read)


def _first(value, *_):
    return value


def _read_torch(path: Path) -> dict[str, Stored]:
    try:
        archive = zipfile.ZipFile(path)
        root = next(n for n in archive.namelist() if n.endswith("/data.pkl")).rpartition("/")[0]
    except (zipfile.BadZipFile, StopIteration):
        raise InputError(
            f"{path}: not a torch archive, or cut short; files of torch before 1.6 are bare "
            "pickles, which are not executed: copy it again, or save it as safetensors"
        ) from None
    try:
        order = f"{root}/byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise ValueError("big-endian")
        content = _Unpickler(path, archive, root).load()
    except InputError:
        raise
    # A damaged pickle may raise anything; so says Python's own documentation.
    except Exception as error:
        raise InputError(f"{path}: damaged ({error}): copy or download it again") from None
    # Trainers wrap the weights: {"state_dict": ..., "epoch": ...}.
    for wrapper in ("state_dict", "model_state_dict"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not any(isinstance(v, Stored) for v in content.values()):
        raise InputError(f"{path}: holds no dict of tensors: save a state dict")
    return {
        str(key): Stored(path, str(key), value.shape, value.dtype, value.read)
        for key, value in content.items()
        if isinstance(value, Stored)
    }


def _read_msgpack(path: Path) -> dict[str, Stored]:
    """Flax's `to_bytes`; unlike the other kinds of file it is read at once."""
    try:
        arrays = flatten_dict(serialization.msgpack_restore(path.read_bytes()), sep="/")
        wrong = [name for name, value in arrays.items() if not isinstance(value, np.ndarray)]
        if wrong:
            raise ValueError(f"{wrong[0]} is no array")
    # Packed bytes that are damaged raise what they happen to mean.
    except Exception as error:
        raise InputError(
            f"{path}: not a Flax checkpoint, or cut short ({error}): copy it again"
        ) from None
    return {
        name: Stored(path, name, value.shape, value.dtype.name, lambda value=value: value, "linen")
        for name, value in arrays.items()
    }
