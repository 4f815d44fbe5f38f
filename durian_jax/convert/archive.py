"""Writes the zip archive of `torch.save`, without torch and a tensor at a time."""

import pickle
import zipfile
from pathlib import Path
from typing import ClassVar

import numpy as np

from durian_jax.weights.storage import Stored

_KINDS = {"float32": "Float", "float16": "Half", "bfloat16": "BFloat16", "int64": "Long"}


def write_torch(path: Path, content) -> Path:
    """What torch.save(content) writes: arrays and `Stored` tensors in dicts become torch's.

    Returns:
      The path.
    """
    tensors: list[np.ndarray | Stored] = []
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("archive/data.pkl", "w", force_zip64=True) as file:
            _Pickler(file, tensors).dump(content)
        archive.writestr("archive/byteorder", "little")
        for number, tensor in enumerate(tensors):
            array = tensor.read() if isinstance(tensor, Stored) else tensor
            assert array.shape == tuple(tensor.shape), (array.shape, tensor.shape)
            array = np.ascontiguousarray(array, str(tensor.dtype)).reshape(-1)
            with archive.open(f"archive/data/{number}", "w", force_zip64=True) as file:
                file.write(array.view(np.uint8).data)
        archive.writestr("archive/version", "3\n")
    return path


class _Global:
    """A class or function to pickle by name, whether it can be imported or not."""

    def __init__(self, name: str):
        self.module, _, self.name = name.rpartition(".")


class _Storage:
    def __init__(self, number: int, dtype: str, size: int):
        self.kind, self.number, self.size = _KINDS[dtype], str(number), size


class _Pickler(pickle._Pickler):
    """Pickles arrays as torch pickles tensors."""

    dispatch: ClassVar[dict] = dict(pickle._Pickler.dispatch)

    def __init__(self, file, tensors: list):
        super().__init__(file, protocol=2)
        self.tensors, self.alive = tensors, []

    def persistent_id(self, value):
        if isinstance(value, _Storage):
            kind = _Global(f"torch.{value.kind}Storage")
            self.alive.append(kind)
            return "storage", kind, value.number, "cpu", value.size
        return None

    def save_name(self, value: _Global):
        self.write(f"c{value.module}\n{value.name}\n".encode())

    def save_tensor(self, tensor: np.ndarray | Stored):
        shape = tuple(int(size) for size in tensor.shape)
        strides = tuple(int(np.prod(shape[i + 1 :], dtype=int)) for i in range(len(shape)))
        size = int(np.prod(shape, dtype=int))
        storage = _Storage(len(self.tensors), str(tensor.dtype), size)
        self.tensors.append(tensor)
        arguments = (storage, 0, shape, strides, False, {})
        # What a pickler has seen must stay alive: it is known by its address.
        self.alive += [storage, arguments, rebuild := _Global("torch._utils._rebuild_tensor_v2")]
        self.save(rebuild)
        self.save(arguments)
        self.write(pickle.REDUCE)

    dispatch[_Global] = save_name
    dispatch[np.ndarray] = save_tensor
    dispatch[Stored] = save_tensor
