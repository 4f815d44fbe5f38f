"""The two-reference model of the fixtures, converted from its torch tensors."""

import hashlib
import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from durian_jax.convert import importer
from durian_jax.systems.system import build
from durian_jax.weights import loading
from tests.parity import drawn, folders

MODEL = {
    "resolution": 16, "channels": [12, 24], "layers_per_block": 1, "attention_levels": [0],
    "heads": 3, "context_dim": 10, "norm_groups": 4, "temporal": True, "temporal_heads": 2,
    "max_frames": 8, "temporal_norm": "frame", "keypoint_channels": [5, 9], "dtype": "float32",
    "kl": {"block_out_channels": [8, 12], "layers_per_block": 1, "norm_groups": 4, "scaling": 0.3,
           "dtype": "float32"},
    "clip": {"hidden_size": 16, "intermediate_size": 24, "layers": 2, "heads": 2, "image_size": 16,
             "patch_size": 4, "projection_dim": 10, "dtype": "float32"},
    "arcface": {"layers": [2, 1], "widths": [6, 10], "image_size": 16, "embedding": 14,
                "dtype": "float32"},
}  # fmt: skip
# Compiling takes most of the time here; the arithmetic stays the same.
QUICK = {"xla_backend_optimization_level": "0", "xla_llvm_disable_expensive_passes": True}
DIFFUSION = {"prediction": "v", "zero_terminal_snr": True}


@pytest.fixture(scope="session")
def outputs():
    """What PyTorch computed, by name."""
    return load_file(folders.FIXTURES / "outputs.safetensors")


@pytest.fixture(scope="session")
def scene():
    """The inputs that `generate.py` gave PyTorch."""
    return {
        "portrait": drawn.picture("portrait", (2, 16, 16, 3)),
        "portrait_mask": drawn.picture("portrait_mask", (2, 16, 16)) > 128,
        "attribute": drawn.picture("attribute", (2, 2, 16, 16, 3)),
        "attribute_mask": drawn.picture("attribute_mask", (2, 2, 16, 16)) > 128,
        "face": drawn.picture("face", (2, 16, 16, 3)),
        "keypoint_pictures": ((drawn.numbers("kp", (2, 3, 16, 16, 3)) + 1) / 2).astype("f4"),
        "noise": (1.7 * drawn.numbers("noise", (2, 3, 8, 8, 4))).astype("f4"),
        "context": drawn.numbers("context", (6, 2, 10)).astype("f4"),
    }


@pytest.fixture(scope="session")
def export(tmp_path_factory):
    """All networks of the fixtures as `durian convert --to diffusers` lays them out."""
    folder = tmp_path_factory.mktemp("export") / "durian"
    entries, files = {}, {}
    for network, name in folders.EXPORT.items():
        weights = folders.tensors(network)
        weights = {key: value for key, value in weights.items() if value.dtype != np.int64}
        folders.write_model(folder / name, network, weights)
        head = ("conv_norm_out.", "conv_out.") if network.endswith("e_encoder") else ()
        head += ("conv_norm_out.", "conv_out.") if network == "portrait_encoder" else ()
        added = [key for key in weights if key.startswith(head)] if head else []
        entries[network] = {"folder": name, "added": added}
        for file in (folder / name).glob("*.safetensors"):
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            files[f"{name}/{file.name}"] = digest
    sample = {"steps": 4, "guidance": 2.0, "window": 8, "overlap": 2}
    config = {"model": MODEL, "diffusion": DIFFUSION, "sample": sample}
    manifest = {"format": 1, "config": config, "files": files, "export": entries}
    (folder / "durian.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="session")
def converted(export, tmp_path_factory):
    """The folder of weights made from the export."""
    out = tmp_path_factory.mktemp("converted") / "checkpoint"
    importer.convert([("diffusers", export)], out)
    return out


@pytest.fixture(scope="session")
def params(converted):
    return loading.load(converted)[0]


@pytest.fixture(scope="session")
def run(params):
    """A function (method, *arguments, fields={}) to what the model computes at full precision."""

    def call(method, *arguments, weights=None, system="durian", static=(), **fields):
        model = build({"system": system, "model": MODEL | fields})

        def apply(params, *arguments):
            return model.apply({"params": params}, *arguments, *static, method=method)

        with jax.default_matmul_precision("highest"):
            return jax.jit(apply, compiler_options=QUICK)(weights or params, *arguments)

    return call
