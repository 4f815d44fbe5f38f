"""Folders of weights: durian.json and one safetensors file per network.

What `durian convert` writes, and what may be shared: no code in it, read without orbax, one tensor
at a time if need be. `durian.json` holds the config of the model, where the weights come from, and
the SHA-256 of every file. Tensors have our own names, "conv_in/kernel", and are float32, or
float16 where a folder shall be small.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import safetensors
from flax.traverse_util import flatten_dict, unflatten_dict

from durian_jax.weights.hub_cache import snapshot
from input_pipeline.errors import InputError
from input_pipeline.media.contents import describe_instead
from input_pipeline.media.files import folder_beside

MANIFEST = "durian.json"
EXPORT = "export"  # Entry of an export's durian.json: folder of each network, keys added.
FORMAT = 1
# Folders of weights that are part of the package, and the SHA-256 of their durian.json.
_PACKAGED = Path(__file__).parents[1] / "shipped"
SHIPPED = {"small": "70a5d1c551148b9316c226a57e6f88c745fe60c5f856667b1f3c0c1ffa96c1f4"}
# What is used where no checkpoint is named, and what is said then.
DEFAULT = "small"
NOTE = "small model, trained on synthetic people: demonstration quality"

_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64",
    "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Stored:
    """A tensor in a file, read when it is asked for.

    Attributes:
      file, key: where it lies; errors name both.
      shape, dtype: what it is, known without reading it; dtype as numpy and ml_dtypes call it.
      read: returns it as a numpy array.
      layout: the order of axes: "torch" for [out, in, ...], "linen" for [..., in, out].
    """

    file: Path
    key: str
    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]
    layout: str = "torch"


def read_safetensors(path: Path, layout: str = "torch") -> dict[str, Stored]:
    """Tensors of a safetensors file by name. Raises InputError if it is damaged."""

    # Opened anew for each tensor: a file kept open counts all that was read of it as memory.
    def read(key: str) -> np.ndarray:
        with safetensors.safe_open(path, "numpy") as file:
            return file.get_tensor(key)

    found = {}
    try:
        with safetensors.safe_open(path, "numpy") as file:
            for key in file.keys():  # noqa: SIM118 (it is no dict)
                view = file.get_slice(key)
                dtype = _DTYPES.get(view.get_dtype(), view.get_dtype())
                reader = _Reader(read, key)
                found[key] = Stored(path, key, tuple(view.get_shape()), dtype, reader, layout)
    except (safetensors.SafetensorError, OSError) as error:
        if path.is_file() and (what := describe_instead(path)):
            raise InputError(f"{path}: {what}") from None
        raise InputError(
            f"{path}: not a readable safetensors file ({error}): copy or download it again"
        ) from None
    return found


@dataclasses.dataclass(frozen=True)
class _Reader:
    read: Callable[[str], np.ndarray]
    key: str

    def __call__(self) -> np.ndarray:
        return self.read(self.key)


def write_safetensors(
    path: Path, tensors: dict[str, Stored], metadata: dict[str, str], dtype: str = "float32"
) -> str:
    """Writes tensors one by one, as the library's own writer cannot; returns the SHA-256.

    Args:
      tensors: by the name they get; each is read, checked against its shape, written, dropped.
      dtype: of all in the file, "float32" or "float16".

    Raises:
      InputError: a value that float16 cannot hold.
    """
    header, end = {"__metadata__": metadata}, 0
    kind = next(short for short, name in _DTYPES.items() if name == dtype)
    for name, stored in tensors.items():
        size = np.dtype(dtype).itemsize * int(np.prod(stored.shape, dtype=np.int64))
        start, end = end, end + size
        header[name] = {"dtype": kind, "shape": stored.shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with open(path, "wb") as file:

        def write(data) -> None:
            file.write(data)
            digest.update(data)

        write(len(text).to_bytes(8, "little") + text)
        for name, stored in tensors.items():
            array = np.ascontiguousarray(stored.read(), np.float32)
            largest = np.abs(array).max(initial=0, where=np.isfinite(array))
            if largest > np.finfo(dtype).max:
                raise InputError(f"{stored.file}: {name} does not fit into {dtype}: use float32")
            array = array.astype(dtype)
            assert array.shape == tuple(stored.shape), f"{name}: {array.shape}, not {stored.shape}"
            write(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def write(
    path: Path,
    networks: Iterable[tuple[str, dict[str, Stored]]],
    facts: dict,
    dtype: str = "float32",
) -> None:
    """Writes a folder of weights, complete or not at all.

    Args:
      path: a new folder.
      networks: (top-level name, tensors by the rest of their path) pairs.
      facts: what else goes into durian.json: `config`, `sources` and the like, in plain values.
      dtype: of the tensors, see `write_safetensors`.
    """
    with folder_beside(path) as folder:
        files = {}
        for network, tensors in networks:
            file = f"{network}.safetensors"
            files[file] = write_safetensors(folder / file, tensors, {"format": "durian"}, dtype)
        manifest = {"format": FORMAT, **facts, "files": files}
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def read_manifest(folder: Path) -> dict:
    """durian.json of a folder. Raises InputError if it is damaged or of another format."""
    path = Path(folder) / MANIFEST
    try:
        manifest = json.loads(path.read_text())
        version, _, _ = (manifest[name] for name in ("format", "config", "files"))
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: damaged ({error}): convert or download the folder again"
        ) from None
    if version != FORMAT:
        raise InputError(f"{path}: format {version}, this version reads {FORMAT}: update")
    return manifest


def stored(folder: Path) -> dict[str, Stored]:
    """All tensors of a folder by their full path, "denoiser/conv_in/kernel"; reads nothing yet."""
    found, manifest = {}, read_manifest(folder)
    if EXPORT in manifest:
        raise InputError(f"{folder}: an export for diffusers: convert it from diffusers first")
    for file in manifest["files"]:
        tensors = read_safetensors(Path(folder) / file, "linen")
        prefix = file.removesuffix(".safetensors")
        found |= {f"{prefix}/{key}": tensor for key, tensor in tensors.items()}
    return found


def load(folder: Path) -> tuple[dict, dict]:
    """(parameter tree of float32 numpy arrays, durian.json) of a folder; InputError if damaged."""
    leaves = {path: np.float32(tensor.read()) for path, tensor in stored(folder).items()}
    return unflatten_dict(leaves, sep="/"), read_manifest(folder)


def is_folder(path: str | Path) -> bool:
    """Whether a folder of weights lies here."""
    return (Path(path) / MANIFEST).is_file()


def flat(params: dict, file: str = "") -> dict[str, Stored]:
    """The leaves of a parameter tree by their path, as if they lay in a file."""
    return {
        path: Stored(Path(file), path, leaf.shape, str(leaf.dtype), lambda leaf=leaf: leaf, "linen")
        for path, leaf in flatten_dict(params, sep="/").items()
    }


def locate(source: str | Path) -> Path:
    """The local folder of a run or of weights: a path, a hub id or the name of a shipped one.

    A hub id reads USER/NAME or USER/NAME@REVISION, where the revision is a branch, tag or commit;
    its files are downloaded once and compared with the hashes in their durian.json.

    Raises:
      InputError: nothing there, no connection, or a file that differs from its hash.
    """
    name, path = str(source), Path(source)
    if path.exists():
        return snapshot(path)
    if name in SHIPPED:
        folder = _PACKAGED / name
        _check_files(folder, SHIPPED[name], "install the package again")
        return folder
    # "runs/stage2" is meant as a path where a folder "runs" exists.
    if re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", name) and not path.parent.is_dir():
        repository, _, revision = name.partition("@")
        return _download(repository, revision or None)
    shipped = ", ".join(SHIPPED)
    raise InputError(
        f"{name}: no checkpoint here: give the workdir of a durian train run, a converted "
        f"folder, a hub id USER/NAME@REVISION or a shipped name ({shipped})"
    )


def _download(repository: str, revision: str | None) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(
            huggingface_hub.snapshot_download(
                repository, revision=revision, allow_patterns=[MANIFEST, "*.safetensors"]
            )
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"{repository}: no such folder, and not available from the hub ({reason}): check name, "
            "revision and connection"
        ) from None
    if not is_folder(folder):
        raise InputError(f"{repository}: not a folder of Durian weights: it has no {MANIFEST}")
    _check_files(folder, None, f"delete {folder} and download it again")
    return folder


def _check_files(folder: Path, manifest_digest: str | None, remedy: str) -> None:
    """Raises InputError where a file of the folder differs from its SHA-256."""

    def check(file: str, digest: str) -> None:
        if not (folder / file).is_file() or _sha256(folder / file) != digest:
            raise InputError(
                f"{folder / file}: damaged or changed, it differs from its SHA-256: {remedy}"
            )

    if manifest_digest is not None:
        check(MANIFEST, manifest_digest)
    for file, digest in read_manifest(folder)["files"].items():
        check(file, digest)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
