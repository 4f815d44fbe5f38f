"""Tensors in other people's files: safetensors, torch's zip archives, Flax's msgpack.

Each opens as a dict of `Stored`, which are read one at a time; none of them runs code. A torch file
holds a pickle, a small program that may call any function. Here it may call two: the one that makes
an ordered dict and the one that lays a tensor over a storage, and the second is our own. This is
what `torch.load(weights_only=True)` does, without torch, and without all tensors in memory at once.
"""

import collections
import json
import pickle
import struct
import zipfile
from pathlib import Path

import ml_dtypes
import msgpack
import numpy as np

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
    """Flax's `to_bytes`: nested maps of extension type 1, (shape, dtype, bytes) packed again."""
    found: dict[str, Stored] = {}

    def bad(reason: str) -> InputError:
        return InputError(f"{path}: not a Flax checkpoint, or cut short ({reason}): copy it again")

    with open(path, "rb") as file:

        def take(count: int) -> bytes:
            data = file.read(count)
            if len(data) < count:
                raise bad(f"ends at byte {file.tell()}")
            return data

        def number(format: str) -> int:
            return struct.unpack(format, take(struct.calcsize(format)))[0]

        def walk(names: tuple[str, ...]) -> None:
            code = number("B")
            if code & 0xF0 == 0x80 or code in (0xDE, 0xDF):
                count = code & 0x0F if code < 0xDE else number(">H" if code == 0xDE else ">I")
                for _ in range(count):
                    kind = number("B")
                    if kind & 0xE0 != 0xA0 and kind != 0xD9:
                        raise bad("a key is no text")
                    size = kind & 0x1F if kind != 0xD9 else number("B")
                    walk((*names, take(size).decode()))
            elif code in (0xC7, 0xC8, 0xC9):
                size = number({0xC7: "B", 0xC8: ">H", 0xC9: ">I"}[code])
                if number("B") != 1:
                    raise bad(f"{'/'.join(names)} is no array")
                leaf(names, file.tell(), size)
                file.seek(size, 1)
            else:
                raise bad(f"{'/'.join(names) or 'it'} is neither map nor array")

        def leaf(names: tuple[str, ...], start: int, size: int) -> None:
            head = msgpack.Unpacker()
            head.feed(take(min(size, 256)))
            file.seek(start)
            head.read_array_header()
            shape, dtype = tuple(head.unpack()), head.unpack()

            def read() -> np.ndarray:
                with open(path, "rb") as file:
                    file.seek(start)
                    _, _, data = msgpack.unpackb(file.read(size), max_bin_len=size)
                return np.frombuffer(data, np.dtype(dtype)).reshape(shape)

            found["/".join(names)] = Stored(path, "/".join(names), shape, dtype, read, "linen")

        walk(())
        end = file.tell()
    if end > path.stat().st_size:
        raise bad(f"needs {end} bytes, has {path.stat().st_size}")
    return found
