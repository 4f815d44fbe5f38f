"""`durian convert --to`: what lands in the folder, and that it comes back bit for bit."""

import hashlib
import json
import shutil

import jax
import numpy as np
import pytest
import safetensors
from safetensors.numpy import load_file

from durian_jax.cli.main import main
from durian_jax.convert import exporter, importer
from durian_jax.distributed import sharding
from durian_jax.training import checkpoint
from durian_jax.training.state import init_state, make_optimizer
from durian_jax.weights import loading, storage
from input_pipeline.errors import InputError
from tests.convert import other_weights
from tests.parity import folders
from tests.parity.conftest import MODEL

SETTINGS = {
    "diffusion": {"prediction": "x0", "zero_terminal_snr": True},
    "sample": {"steps": 7, "guidance": 2.5, "window": 8, "overlap": 2},
    "data": {"path": "/somewhere/portraits"},
}


@pytest.fixture(scope="module")
def model(converted, tmp_path_factory):
    """The parity model with the settings of a run."""
    folder = tmp_path_factory.mktemp("model") / "weights"
    shutil.copytree(converted, folder)
    manifest = json.loads((folder / "durian.json").read_text())
    manifest["config"] = {"model": MODEL, **SETTINGS}
    (folder / "durian.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "folder"
    exporter.to_diffusers(model, out)
    return out


@pytest.fixture(scope="module")
def run(converted, tmp_path_factory):
    """A training run of small networks; the average is twice the raw weights."""
    names = ("keypoint_encoder", "face_projection")
    params = {name: loading.load(converted)[0][name] for name in names}
    params = jax.device_put(params, sharding.replicated(sharding.make_mesh()))
    state = init_state(params, ("keypoint_",), (), make_optimizer(10, 1e-4, 1, 0.0, 1.0))
    state = state.replace(ema=jax.tree.map(lambda leaf: 2 * leaf, state.ema))
    workdir = tmp_path_factory.mktemp("run")
    checkpoints = checkpoint.Checkpoints(workdir)
    checkpoints.save(state, {"batch": 0}, {"config": {"model": MODEL, **SETTINGS}})
    checkpoints.close()
    return workdir


def _same(a, b):
    a, b = other_weights.leaves(a), other_weights.leaves(b)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])


@pytest.mark.parametrize("network,folder", folders.EXPORT.items())
def test_files_have_the_keys_of_the_libraries_own(network, folder, exported):
    file = next((exported / folder).glob("*.safetensors"))
    wanted = {k: v for k, v in folders.KEYS[network].items() if "num_batches" not in k}
    with safetensors.safe_open(file, "np") as opened:
        assert opened.metadata() == {"format": "pt"}
        found = {key: opened.get_slice(key).get_shape() for key in opened.keys()}  # noqa: SIM118
    assert found == wanted
    # Everything in our config.json is what the library itself would have written.
    ours, theirs = (
        json.loads((exported / folder / "config.json").read_text()),
        folders.config(network),
    )
    known = {k: v for k, v in ours.items() if k in theirs}
    assert not theirs or known == {k: theirs[k] for k in known}
    assert not theirs or len(known) >= 0.9 * len(ours)


def test_what_is_added_changes_nothing(exported):
    weights = load_file(exported / "portrait_encoder" / "diffusion_pytorch_model.safetensors")
    np.testing.assert_array_equal(weights["conv_norm_out.weight"], 1)
    for key in ("conv_norm_out.bias", "conv_out.weight", "conv_out.bias"):
        np.testing.assert_array_equal(weights[key], 0)
    added = json.loads((exported / "durian.json").read_text())["export"]["portrait_encoder"][
        "added"
    ]
    assert len(added) == 4


def test_there_and_back_is_the_same_bit_for_bit(model, exported, tmp_path):
    importer.convert([("diffusers", exported)], tmp_path / "back")
    params, manifest = loading.load(tmp_path / "back")
    _same(params, loading.load(model)[0])
    assert manifest["config"]["diffusion"]["prediction"] == "x0"
    assert manifest["config"]["sample"] == SETTINGS["sample"]
    assert manifest["config"]["model"]["temporal_norm"] == "frame"


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("kind", ["safetensors", "diffusers"])
def test_a_run_leaves_with_averaged_or_raw_weights(kind, raw, run, converted, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["convert", f"--to={kind}", f"--checkpoint={run}", f"--out={out}"]
    assert main(arguments + ["--raw"] * raw) == 0
    if kind == "diffusers":
        importer.convert([("diffusers", out)], tmp_path / "back")
        out = tmp_path / "back"
    found, trained = loading.load(out)[0], loading.load(converted)[0]["keypoint_encoder"]
    averaged = jax.tree.map(lambda leaf: leaf if raw else 2 * leaf, trained)
    _same(found["keypoint_encoder"], averaged)
    _same(found["face_projection"], loading.load(converted)[0]["face_projection"])


def test_model_card(exported):
    card = (exported / "README.md").read_text()
    for words in (
        "UNetMotionModel.from_pretrained", "denoiser/diffusion_pytorch_model.safetensors",
        "averaged weights", "## Training data", "portraits", "## Scores", "## Licence",
        "every frame by itself", "library_name: durian_jax",
    ):  # fmt: skip
        assert words in card, words
    assert "/somewhere" not in card and "{" not in card


def test_hashes_are_those_of_the_files(exported):
    files = json.loads((exported / "durian.json").read_text())["files"]
    assert len(files) == len(list(exported.rglob("*.safetensors"))) == 8
    for file, digest in files.items():
        assert hashlib.sha256((exported / file).read_bytes()).hexdigest() == digest


def test_models_without_contexts_and_motion(tmp_path):
    """Patches of pixels, no CLIP, no ArcFace, as in configs/small.py: diffusers' classes want
    cross-attention all the same."""
    config = other_weights.MODEL | {
        "autoencoder": "patchify", "patch": 2, "kl": None, "clip": None, "arcface": None,
        "temporal": False, "context_dim": 0, "channels": [16, 24], "attention_levels": [1],
    }  # fmt: skip
    shapes = other_weights.parameter_shapes({"model": config})
    params = {
        network: {path: np.full(shape, 0.5, np.float32) for path, shape in tree.items()}
        for network, tree in shapes.items()
    }
    facts = {"config": {"model": config, **SETTINGS}}
    tensors = {n: storage.flat(p) for n, p in params.items()}
    storage.write(tmp_path / "ours", tensors.items(), facts)
    exporter.to_diffusers(tmp_path / "ours", tmp_path / "there")
    weights = load_file(tmp_path / "there/denoiser/diffusion_pytorch_model.safetensors")
    prefix = "down_blocks.1.attentions.0.transformer_blocks.0"
    assert weights[f"{prefix}.attn2.to_k.weight"].shape == (24, 1)
    np.testing.assert_array_equal(weights[f"{prefix}.attn2.to_out.0.weight"], 0)
    np.testing.assert_array_equal(weights[f"{prefix}.norm2.weight"], 1)
    importer.convert([("diffusers", tmp_path / "there")], tmp_path / "back")
    _same(loading.load(tmp_path / "back")[0], loading.load(tmp_path / "ours")[0])


def test_a_single_reference_network_comes_back_as_one(tmp_path):
    model = {n: x for n, x in other_weights.MODEL.items() if n != "arcface"}
    config = {"system": "animate_anyone", "model": model | {"arcface": None}, **SETTINGS}
    params = {
        network: {path: np.full(shape, 0.5, np.float32) for path, shape in tree.items()}
        for network, tree in other_weights.parameter_shapes(config).items()
    }
    tensors = {n: storage.flat(p) for n, p in params.items()}
    storage.write(tmp_path / "ours", tensors.items(), {"config": config})
    exporter.to_diffusers(tmp_path / "ours", tmp_path / "there")
    importer.convert([("diffusers", tmp_path / "there")], tmp_path / "back")
    weights, facts = loading.load(tmp_path / "back")
    assert facts["config"]["system"] == "animate_anyone" and not facts.get("absent")
    _same(weights, loading.load(tmp_path / "ours")[0])


def test_a_missing_added_key_is_named(exported, tmp_path):
    shutil.copytree(exported, tmp_path / "cut")
    file = tmp_path / "cut/attribute_encoder/diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    del weights["conv_out.bias"]
    safetensors.numpy.save_file(weights, file)
    with pytest.raises(InputError, match=r"attribute_encoder: conv_out.bias is missing"):
        importer.convert([("diffusers", tmp_path / "cut")], tmp_path / "out")


def test_an_export_is_no_checkpoint(exported):
    with pytest.raises(InputError, match="an export for diffusers: convert it from diffusers fir"):
        loading.load(exported)
