"""X-Portrait's checkpoint comes in and leaves key for key; what is none of it is named."""

import hashlib

import numpy as np
import pytest
from safetensors.numpy import save_file

from durian_jax.cli.main import main
from durian_jax.convert import importer
from durian_jax.convert.names import to_torch, torch_key
from durian_jax.convert.shapes import network_shapes
from durian_jax.convert.sources import ldm, x_portrait
from durian_jax.convert.sources.files import open_weights
from durian_jax.systems.system import build
from durian_jax.weights import loading, storage
from tests.convert import other_weights
from tests.parity import drawn, folders

MODEL = {
    "resolution": 16, "channels": [32, 64], "layers_per_block": 1, "attention_levels": [0],
    "heads": 4, "context_dim": 12, "temporal": True, "temporal_heads": 2, "max_frames": 6,
    "control_channels": [5, 7], "prompt_tokens": 3, "dtype": "float32",
    "kl": {"block_out_channels": [32, 64], "layers_per_block": 1},
}  # fmt: skip
SETTINGS = {"diffusion": x_portrait.DIFFUSION, "sample": x_portrait.SAMPLE}


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """A folder of weights of a small X-Portrait."""
    config = {"system": "x_portrait", "model": MODEL, **SETTINGS}
    shapes = other_weights.parameter_shapes(config)
    params = {
        network: {path: drawn.tensor(f"{network}/{path}", shape) for path, shape in tree.items()}
        for network, tree in shapes.items()
    }
    folder = tmp_path_factory.mktemp("ours") / "weights"
    tensors = {network: storage.flat(tree) for network, tree in params.items()}
    storage.write(folder, tensors.items(), {"config": config})
    return folder


@pytest.fixture(scope="module")
def theirs(ours, tmp_path_factory):
    folder = tmp_path_factory.mktemp("theirs") / "official"
    assert main(["convert", "--to=x-portrait", f"--checkpoint={ours}", f"--out={folder}"]) == 0
    return folder


def _convert(out, *pairs):
    options = [text for kind, path in pairs for text in (f"--from={kind}", f"--source={path}")]
    return main(["convert", *options, f"--out={out}"])


def test_what_leaves_comes_back_bit_for_bit(ours, theirs, tmp_path):
    assert _convert(tmp_path / "back", ("x-portrait", theirs)) == 0
    (before, _), (after, facts) = loading.load(ours), loading.load(tmp_path / "back")
    before, after = other_weights.leaves(before), other_weights.leaves(after)
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)
    assert not facts["absent"] and not facts["drawn"]
    assert facts["config"]["system"] == "x_portrait"
    assert facts["config"]["sample"]["spacing"] == "leading"
    told = facts["config"]["model"]
    assert {name: told[name] for name in MODEL if name not in ("resolution", "dtype", "kl")} == {
        name: value for name, value in MODEL.items() if name not in ("resolution", "dtype", "kl")
    }


def test_each_key_has_its_network_or_its_reason_to_be_dropped(theirs, capsys):
    weights = open_weights(theirs / "model_state.th")
    source = x_portrait.read(theirs)
    used = {tensor.key for tree in source.weights.values() for tensor in tree.values()} - {
        "context"
    }
    dropped = weights.keys() - used
    assert used <= weights.keys()
    for key in dropped:
        assert key in x_portrait.SCHEDULE or key.startswith("appearance_control_model.input_hint")
    assert "dropped are 8 of the reference network's input_hint_block" in capsys.readouterr().out


def test_full_size_names_are_those_of_the_published_checkpoint():
    """Its 3,082 keys but for the text tower's 197, by the digest of names and shapes."""
    state = official_shapes()
    lines = "\n".join(f"{key} {list(shape)}" for key, shape in sorted(state.items()))
    assert len(state) == 3082 - 197
    assert hashlib.sha256(lines.encode()).hexdigest() == (
        "4d04569cb6b770e6224094eb46d47c6dbdc11289000339f5b804f7dd98680c1a"
    )


def official_shapes() -> dict[str, tuple[int, ...]]:
    """Key -> shape of what `write` makes of a full-size model; reads nothing."""
    system = build({"system": "x_portrait", "model": {"temporal": True}})
    networks = {
        network: {
            path: storage.Stored(None, path, shape, "float32", None, "linen")
            for path, shape in network_shapes(system, network).items()
        }
        for network in system.networks
    }
    config = {"model": importer._plain(system.config), **SETTINGS}
    return {key: tensor.shape for key, tensor in x_portrait.state(config, networks).items()}


def _file(path, weights):
    return folders.write_torch(path, {"state_dict": weights})


@pytest.fixture(scope="module")
def tensors(theirs):
    """The official state dict as arrays."""
    return {key: one.read() for key, one in open_weights(theirs / "model_state.th").items()}


def test_bad_checkpoints_are_named(tensors, tmp_path, capsys):
    whole = dict(tensors)
    only = {key: x for key, x in whole.items() if key.startswith((ldm.UNET, ldm.VAE))}
    plain = {key: x for key, x in only.items() if "motion" not in key}
    lacking = {key: x for key, x in whole.items() if "middle_block_out.0.bias" not in key}
    unet = "model.diffusion_model.input_blocks.0.0.weight"
    other = whole | {"alphas_cumprod": np.linspace(1, 0, 1000, dtype=np.float32)}
    for name, weights, message in [
        (
            "sd",
            plain,
            "has no appearance_control_model.*: not X-Portrait's checkpoint; Stable Diff",
        ),
        ("ema", whole | {"model_ema.decay": np.ones(1, np.float32)}, "model_ema.decay: averaged"),
        (
            "unet",
            {key: x for key, x in plain.items() if key.startswith(ldm.UNET)},
            "input_blocks.0.0.weight: one network alone, not X-Portrait's checkpoint: Stable Diff",
        ),
        ("more", whole | {"lora.x": np.ones(1, np.float32)}, "lora.x"),
        ("less", {k: x for k, x in whole.items() if k != unet}, f"{unet} is missing"),
        ("zero", lacking, "do not fit control: 1 missing (controlnet_mid_block.bias)"),
        ("schedule", other, "alphas_cumprod is another noise schedule"),
    ]:
        path = _file(tmp_path / f"{name}.th", weights)
        assert _convert(tmp_path / "out", ("x-portrait", path)) == 2
        line = capsys.readouterr().err
        assert str(path) in line and message in line and line.count("\n") == 1
        assert not (tmp_path / "out").exists()
    cut = tmp_path / "cut.th"
    cut.write_bytes((tmp_path / "zero.th").read_bytes()[:-5000])
    assert _convert(tmp_path / "out", ("x-portrait", cut)) == 2
    assert "not a torch archive, or cut short" in capsys.readouterr().err


def test_a_checkpoint_without_autoencoder_and_text_is_joined_with_others(tensors, tmp_path):
    networks = x_portrait.NETWORKS.values()
    core = {k: x for k, x in tensors.items() if k.startswith(tuple(networks)) and ldm.VAE not in k}
    first = _file(tmp_path / "model.th", core)
    stable = {k: x for k, x in tensors.items() if k.startswith(ldm.VAE)}
    vae = _file(tmp_path / "vae.ckpt", stable)
    context = drawn.numbers("context", (1, 5, 12)).astype("f4")
    save_file({"context": context}, tmp_path / "context.safetensors")
    sources = (
        ("x-portrait", first), ("ldm", vae), ("prompt", tmp_path / "context.safetensors"),
    )  # fmt: skip
    assert _convert(tmp_path / "alone", sources[0]) == 0
    assert storage.read_manifest(tmp_path / "alone")["absent"] == ["prompt", "autoencoder"]
    assert _convert(tmp_path / "all", *sources) == 0
    params, facts = loading.load(tmp_path / "all")
    assert not facts["absent"] and facts["config"]["model"]["prompt_tokens"] == 5
    np.testing.assert_array_equal(params["prompt"]["embedding"], context[0])


def test_plain_checkpoints_in_the_same_layout_become_the_networks_of_diffusers(tensors, tmp_path):
    stable = {
        key: x
        for key, x in tensors.items()
        if key.startswith((ldm.UNET, ldm.VAE)) and "motion" not in key
    }
    path = _file(tmp_path / "sd.ckpt", stable)
    assert _convert(tmp_path / "out", ("ldm", path)) == 0
    params, facts = loading.load(tmp_path / "out")
    found = other_weights.leaves(params["denoiser"])
    assert facts["config"]["system"] == "durian"
    assert facts["config"]["model"]["channels"] == MODEL["channels"]
    name = ldm.translator(ldm.unet_pairs(facts["config"]["model"]))
    theirs = {
        name(key[len(ldm.UNET) :]): x
        for key, x in stable.items()
        if key[: len(ldm.UNET)] == ldm.UNET
    }
    assert theirs.keys() == {torch_key(path) for path in found}
    for path, array in found.items():
        np.testing.assert_array_equal(to_torch(array, path), theirs[torch_key(path)])


def test_training_starts_from_stable_diffusion(tensors, tmp_path, capsys):
    """The prompt says what it shall become; every network starts as the one U-Net."""
    stable = {
        key: x
        for key, x in tensors.items()
        if key.startswith((ldm.UNET, ldm.VAE)) and "motion" not in key
    }
    context = drawn.numbers("context", (5, 12)).astype("f4")
    save_file({"context": context}, tmp_path / "context.safetensors")
    sources = (
        ("ldm", _file(tmp_path / "sd.ckpt", stable)), ("prompt", tmp_path / "context.safetensors"),
    )  # fmt: skip
    assert _convert(tmp_path / "out", *sources) == 0
    trunk = "(but for the denoiser's way down)"
    drawn_line = f"note: drawn at random: control {trunk}, local_control {trunk}\n"
    assert drawn_line in capsys.readouterr().out
    params, facts = loading.load(tmp_path / "out")
    assert facts["config"]["system"] == "x_portrait" and not facts["absent"]
    shapes = other_weights.parameter_shapes(facts["config"])
    leaves = other_weights.leaves(params)
    assert {name: leaf.shape for name, leaf in leaves.items()} == {
        f"{network}/{path}": shape
        for network, tree in shapes.items()
        for path, shape in tree.items()
    }
    np.testing.assert_array_equal(leaves["prompt/embedding"], context)
    for name, leaf in leaves.items():
        network, _, path = name.partition("/")
        if "controlnet_" in path:
            # Nothing is added to the denoiser before it is trained.
            zero = "controlnet_cond_embedding" not in path or "/conv_out/" in path
            assert zero or path.endswith("bias") or leaf.any()
            assert not (zero and leaf.any()), name
        elif network in ("portrait_encoder", "control", "local_control"):
            np.testing.assert_array_equal(leaf, leaves[f"denoiser/{path}"])


def test_other_systems_do_not_leave_this_way(tmp_path, capsys):
    code = main(["convert", "--to=x-portrait", "--checkpoint=small", f"--out={tmp_path / 'out'}"])
    assert code == 2 and "no control among these weights" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
