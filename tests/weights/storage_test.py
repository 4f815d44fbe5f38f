"""Folders of weights: written whole, read lazily, found by path, hub id or name."""

import tracemalloc

import numpy as np
import pytest
from huggingface_hub import constants
from safetensors.numpy import load_file, save_file

from durian_jax import Animator
from durian_jax.convert.names import to_linen, transposed
from durian_jax.convert.sources.files import open_weights
from durian_jax.weights import loading, storage
from input_pipeline.errors import InputError
from tests.parity import folders

PARAMS = {
    "denoiser": {"conv_in": {"kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4)}},
    "clip": {"scale": np.float32([1, 2, 3]), "empty": np.zeros((0, 3), np.float32)},
}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def _write(path, params=PARAMS, **facts):
    networks = ((name, storage.flat(tree)) for name, tree in params.items())
    storage.write(path, networks, {"config": {"model": {}}, **facts})
    return path


def test_what_was_written_comes_back(tmp_path):
    folder = _write(tmp_path / "new" / "folder", sources=["here"])
    found, manifest = loading.load(folder)
    for one, other in ((found, PARAMS), (load_file(folder / "clip.safetensors"), PARAMS["clip"])):
        assert one.keys() == other.keys()
    np.testing.assert_array_equal(
        found["denoiser"]["conv_in"]["kernel"], PARAMS["denoiser"]["conv_in"]["kernel"]
    )
    assert found["clip"]["empty"].shape == (0, 3)
    assert manifest["sources"] == ["here"] and manifest["format"] == 1


def test_tensors_are_read_when_asked_for(tmp_path):
    folder = _write(tmp_path / "folder")
    found = storage.stored(folder)
    assert found["clip/scale"].shape == (3,) and found["clip/scale"].layout == "linen"
    (folder / "clip.safetensors").unlink()
    np.testing.assert_array_equal(
        found["denoiser/conv_in/kernel"].read(), PARAMS["denoiser"]["conv_in"]["kernel"]
    )
    with pytest.raises(InputError, match=r"clip.safetensors: not a readable"):
        storage.stored(folder)


@pytest.mark.parametrize("kind", ["safetensors", "torch"])
def test_memory_is_that_of_a_tensor_not_of_a_file(kind, tmp_path):
    size, count = 2**20, 16
    arrays = {f"layer_{i}": np.full((size // 256, 256), i, np.float32) for i in range(count)}
    if kind == "torch":
        path = folders.write_torch(tmp_path / "big.pth", arrays)
    else:
        save_file(arrays, path := tmp_path / "big.safetensors")
    del arrays
    tracemalloc.start()
    tensors = {
        f"{key}/kernel": transposed(stored, "kernel", to_linen, "linen")
        for key, stored in open_weights(path).items()
    }
    storage.write(tmp_path / "folder", [("denoiser", tensors)], {"config": {}})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # One tensor as bytes, as array, and transposed.
    assert peak < 3.5 * 4 * size < 0.3 * path.stat().st_size
    np.testing.assert_array_equal(
        storage.load(tmp_path / "folder")[0]["denoiser"]["layer_3"]["kernel"], 3
    )


def test_a_folder_is_complete_or_not_there(tmp_path):
    def networks():
        yield "denoiser", storage.flat(PARAMS["denoiser"])
        raise InputError("the second file is damaged")

    with pytest.raises(InputError, match="second file"):
        storage.write(tmp_path / "folder", networks(), {"config": {}})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content,message",
    [("{", "damaged"), ("[]", "damaged"), ('{"format": 1}', "damaged"),
     ('{"format": 9, "config": {}, "files": {}}', "format 9, this version reads 1")],
)  # fmt: skip
def test_bad_manifests(content, message, tmp_path):
    (tmp_path / "durian.json").write_text(content)
    with pytest.raises(InputError, match=message):
        loading.load(tmp_path)


def test_nothing_there(tmp_path):
    with pytest.raises(InputError, match=r"a hub id USER/NAME@REVISION or a shipped name \(small"):
        Animator.load(tmp_path / "nowhere")
    with pytest.raises(InputError, match="nowhere: no checkpoint here"):
        Animator.load("nowhere")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The hub's local cache with USER/NAME in it, and no network: its real client looks there."""
    cache = tmp_path / "hub"
    repository = cache / "models--user--name"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.parent.mkdir(parents=True)
    _write(snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return snapshot


@pytest.mark.parametrize("name", ["user/name", "user/name@main", f"user/name@{COMMIT}"])
def test_hub_ids(name, hub):
    assert storage.locate(name) == hub
    np.testing.assert_array_equal(loading.load(name)[0]["clip"]["scale"], [1, 2, 3])


def test_hub_files_must_match_their_hash(hub):
    data = bytearray((hub / "clip.safetensors").read_bytes())
    data[-1] ^= 1
    (hub / "clip.safetensors").write_bytes(data)
    with pytest.raises(
        InputError, match=r"clip.safetensors: damaged or changed.*download it again"
    ):
        storage.locate("user/name")


def test_hub_repositories_of_another_kind(hub):
    (hub / "durian.json").unlink()
    with pytest.raises(InputError, match=r"not a folder of Durian weights: it has no durian.json"):
        storage.locate("user/name")


def test_unknown_hub_ids(hub):
    for name in ("user/other", "user/name@gone"):
        with pytest.raises(InputError, match="not available from the hub"):
            storage.locate(name)


def test_paths_are_no_hub_ids(tmp_path, monkeypatch):
    """A missing run in an existing folder is never looked for on the hub."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(InputError, match="runs/stage2: no checkpoint here"):
        storage.locate("runs/stage2")


@pytest.fixture
def packaged(tmp_path, monkeypatch):
    """A folder of weights that is part of the package under the name "little"."""
    folder = _write(tmp_path / "shipped" / "little")
    monkeypatch.setattr(storage, "_PACKAGED", folder.parent)
    monkeypatch.setitem(storage.SHIPPED, "little", storage._sha256(folder / "durian.json"))
    return folder


def test_shipped_weights_are_found_by_name(packaged):
    assert storage.locate("little") == packaged


@pytest.mark.parametrize("file", ["durian.json", "denoiser.safetensors"])
def test_shipped_weights_that_were_damaged_are_refused(packaged, file):
    content = bytearray((packaged / file).read_bytes())
    content[-3] ^= 1
    (packaged / file).write_bytes(content)
    with pytest.raises(InputError, match=rf"{file}: damaged.*install the package again"):
        storage.locate("little")


def test_half_precision_halves_the_files_and_comes_back_as_float32(tmp_path):
    kernel = np.float32([[1.5, -0.1], [3e-5, 7.0]])
    networks = [("denoiser", storage.flat({"kernel": kernel}))]
    storage.write(tmp_path / "half", networks, {"config": {}}, "float16")
    assert load_file(tmp_path / "half" / "denoiser.safetensors")["kernel"].dtype == np.float16
    found, _ = storage.load(tmp_path / "half")
    assert found["denoiser"]["kernel"].dtype == np.float32
    np.testing.assert_allclose(found["denoiser"]["kernel"], kernel, rtol=1e-3, atol=1e-7)


def test_what_does_not_fit_into_half_precision_is_refused(tmp_path):
    networks = [("denoiser", storage.flat({"kernel": np.float32([1e5])}))]
    with pytest.raises(InputError, match="kernel does not fit into float16: use float32"):
        storage.write(tmp_path / "half", networks, {"config": {}}, "float16")
    assert not (tmp_path / "half").exists()
