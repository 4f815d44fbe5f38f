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
import re
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
from flax import serialization
from flax.traverse_util import flatten_dict

from durian_jax.convert.names import unwrapped
from durian_jax.weights.storage import Stored, read_safetensors
from input_pipeline.errors import InputError
from input_pipeline.media.contents import describe_instead

_STORAGES = {
    "DoubleStorage": np.float64, "FloatStorage": np.float32, "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16, "LongStorage": np.int64, "IntStorage": np.int32,
    "ShortStorage": np.int16, "CharStorage": np.int8, "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}  # fmt: skip


_TORCH = (".pth", ".pt", ".th", ".ckpt", ".bin")
_INDEX = re.compile(r"\.index(\.\w+)?\.json$")
_TEXT_PICKLE = re.compile(rb"\(|c[\w.]+\n")  # protocol 0: a mark, or the module of a class
_ADAPTER = re.compile(r"lora|hada_w\d|lokr_w\d", re.IGNORECASE)


def open_weights(path: Path, *shards: Path) -> dict[str, Stored]:
    """Tensors of a file, or of several that belong together, by name; reads none yet.

    Read are safetensors and torch archives, which their content tells whatever the name ends in,
    and .msgpack. An index (`*.safetensors.index.json`, `*.bin.index.json`) stands for all its
    parts. Prefixes that all names share are taken off, see `names.unwrapped`.

    Raises:
      InputError: no such file, a folder, damaged, without tensors, of another kind (a pointer of
        git-lfs, a web page, a LoRA), or a pickle that wants to run code.
    """
    tensors = {}
    for file in map(Path, (path, *shards)):
        _check_is_file(file)
        tensors |= _read_index(file) if _INDEX.search(file.name) else _read_file(file)
    if not tensors:
        raise InputError(f"{path}: holds no tensors: download it again")
    if adapter := next((key for key in tensors if _ADAPTER.search(key)), None):
        raise InputError(
            f"{path}: a LoRA ({adapter}): it changes other weights and is none by itself; merge "
            "it into them with diffusers (fuse_lora, save_pretrained) and convert that folder"
        )
    return unwrapped(tensors)


def refuse_other_contents(path: Path, text: bool = True) -> None:
    """InputError: a file is a pointer of git-lfs, a web page or the like, or, if asked, text."""
    if what := describe_instead(path, text):
        raise InputError(f"{path}: {what}")


def _check_is_file(path: Path) -> None:
    if path.is_dir():
        raise InputError(f"{path}: a folder: {_advice(path)}")
    if not path.is_file():
        what = "a link to a file that is gone" if path.is_symlink() else "no such file"
        raise InputError(f"{path}: {what}: check the path, or download it")


def _advice(folder: Path) -> str:
    """What to give in place of a folder."""
    for name in ("config.json", "model_index.json"):
        config = folder / name
        if config.is_file() and (family := read_json(config).get("_class_name")):
            return f"it holds a {family}: convert it as diffusers"
    kinds = (".safetensors", ".msgpack", ".onnx", *_TORCH)
    found = sorted(entry.name for entry in folder.iterdir() if entry.suffix in kinds)
    return f"give a file in it, {' or '.join(found[:3])}" if found else "give a file of weights"


def _read_index(path: Path) -> dict[str, Stored]:
    """All tensors that an index names, of the files beside it."""
    places = read_json(path).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise InputError(f"{path}: the index is damaged, it has no weight_map: download it again")
    tensors = {}
    for part in sorted(set(map(str, places.values()))):
        if not path.with_name(Path(part).name).is_file():
            raise InputError(f"{path}: its part {part} is not there: download it, too")
        tensors |= _read_file(path.with_name(Path(part).name))
    if missing := sorted(places.keys() - tensors.keys()):
        raise InputError(
            f"{path}: {len(missing)} of its tensors are in none of its parts ({missing[0]}): "
            "download it again"
        )
    return tensors


def _read_file(path: Path) -> dict[str, Stored]:
    with open(path, "rb") as file:
        head = file.read(64)
    # A safetensors file begins with the length of its header, which is JSON.
    if head[8:9] == b"{":
        return read_safetensors(path)
    if head.startswith(b"PK"):
        return _read_torch(path)
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    if path.suffix not in (".msgpack", *_TORCH):
        raise InputError(
            f"{path}: unknown kind of file: give .safetensors, .pth, .ckpt, .bin or .msgpack"
        )
    may_be_pickle = path.suffix in _TORCH and _TEXT_PICKLE.match(head)
    refuse_other_contents(path, text=not may_be_pickle)
    return _read_msgpack(path) if path.suffix == ".msgpack" else _read_torch(path)


def read_json(path: Path) -> dict:
    """A JSON object. Raises InputError if the file is missing or holds something else."""
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        if path.is_file():
            refuse_other_contents(path, text=False)
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
        backwards = any(step < 0 for step in stride)
        if 0 not in size and (backwards or not 0 <= offset <= last < count):
            raise ValueError("a tensor reaches beyond its storage")

        def read() -> np.ndarray:
            try:
                data = np.frombuffer(self.archive.read(f"{self.root}/data/{name}"), dtype)
                if len(data) < count:
                    raise ValueError(f"{len(data)} values, its pickle says {count}")
                steps = [step * dtype.itemsize for step in stride]
                return np.lib.stride_tricks.as_strided(data[offset:], size, steps)
            except (zipfile.BadZipFile, ValueError, EOFError) as error:
                raise InputError(f"{self.path}: damaged ({error}): copy it again") from None

        return Stored(self.path, "", tuple(size), dtype.name, read)


def _first(value, *_):
    return value


def _has_tensors(value) -> bool:
    return isinstance(value, dict) and any(isinstance(x, Stored) for x in value.values())


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
    if isinstance(content, dict) and not _has_tensors(content):
        inner = [name for name, value in content.items() if _has_tensors(value)]
        if len(inner) > 1:
            raise InputError(
                f"{path}: holds {len(inner)} sets of weights ({', '.join(map(str, inner[:3]))}): "
                "save the one you mean"
            )
        content = content[inner[0]] if inner else None
    if not _has_tensors(content):
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
