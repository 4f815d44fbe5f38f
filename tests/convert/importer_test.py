"""`durian convert --from`: what the checkpoint holds, and what bad sources get."""

import hashlib
import json
import shutil

import jax
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from safetensors.numpy import load_file, save_file

from configs import durian, small, tiny
from durian_jax.cli.main import main
from durian_jax.convert import importer
from durian_jax.convert.names import to_torch, torch_key
from durian_jax.convert.shapes import network_shapes
from durian_jax.convert.source import Source
from durian_jax.models.clip import ClipConfig
from durian_jax.models.temporal import frame_positions
from durian_jax.systems.durian.config import DurianConfig
from durian_jax.systems.durian.model import Durian
from durian_jax.systems.system import build
from durian_jax.training import train_step
from durian_jax.weights import loading, storage
from input_pipeline.errors import InputError
from tests.convert import other_weights
from tests.parity import folders


def convert(out, *pairs):
    """Parameters by path, and durian.json, of a conversion."""
    importer.convert(list(pairs), out)
    params, manifest = loading.load(out)
    leaves = other_weights.leaves(params)
    assert all(leaf.dtype == np.float32 for leaf in leaves.values())
    return leaves, manifest


def complete(leaves, manifest):
    """Whether the parameters are exactly those of the config."""
    shapes = other_weights.parameter_shapes(manifest["config"])
    wanted = {f"{net}/{path}": s for net, tree in shapes.items() for path, s in tree.items()}
    return {name: leaf.shape for name, leaf in leaves.items()} == wanted


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return other_weights.write_diffusers(tmp_path_factory.mktemp("diffusers") / "sd")


@pytest.fixture(scope="module")
def from_diffusers(pipeline, tmp_path_factory):
    return convert(tmp_path_factory.mktemp("out") / "ckpt", ("diffusers", pipeline))


def test_diffusers_gives_three_unets(from_diffusers):
    leaves, manifest = from_diffusers
    assert complete(leaves, manifest) and not manifest["absent"]
    assert manifest["drawn"] == ["keypoint_encoder"]
    for path, array in other_weights.linen("denoiser", "^(?!.*motion)").items():
        np.testing.assert_array_equal(leaves[f"denoiser/{path}"], array)
        if path == "conv_in/kernel":
            for name in ("portrait_encoder", "attribute_encoder"):
                np.testing.assert_array_equal(leaves[f"{name}/{path}"][:, :, :4], array)
                np.testing.assert_array_equal(leaves[f"{name}/{path}"][:, :, 4], 0)
        elif not path.startswith(("conv_norm_out", "conv_out")):
            np.testing.assert_array_equal(leaves[f"attribute_encoder/{path}"], array)
    for network in ("autoencoder", "clip"):
        for path, array in other_weights.linen(network).items():
            np.testing.assert_array_equal(leaves[f"{network}/{path}"], array)


def test_training_starts_from_it(from_diffusers):
    leaves, manifest = from_diffusers
    shapes = other_weights.parameter_shapes(manifest["config"])
    wanted = jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, np.float32),
        {name: unflatten_dict(tree, sep="/") for name, tree in shapes.items()},
        is_leaf=lambda x: isinstance(x, tuple),
    )
    line = train_step.check_fit(unflatten_dict(leaves, sep="/"), wanted, "START")
    assert line == f"weights: {len(leaves)} of {len(leaves)} tensors from START"


def test_a_prompt_makes_it_a_start_for_x_portrait(pipeline, tmp_path):
    context = np.arange(3 * other_weights.CONTEXT, dtype=np.float32).reshape(3, -1)
    save_file({"context": context}, tmp_path / "context.safetensors")
    leaves, manifest = convert(
        tmp_path / "start", ("diffusers", pipeline / "unet"), ("diffusers", pipeline / "vae"),
        ("prompt", tmp_path / "context.safetensors"),
    )  # fmt: skip
    assert complete(leaves, manifest) and not manifest["absent"]
    assert manifest["config"]["system"] == "x_portrait"
    kernel = "conv_in/kernel"
    for network in ("portrait_encoder", "control", "local_control"):
        np.testing.assert_array_equal(leaves[f"{network}/{kernel}"], leaves[f"denoiser/{kernel}"])


def test_config_follows_the_sources(from_diffusers):
    model = DurianConfig.from_dict(from_diffusers[1]["config"]["model"])
    assert (model.channels, model.attention_levels) == ((16, 24, 40), (1, 2))
    assert (model.heads, model.context_dim, model.norm_groups) == (2, 14, 8)
    assert (model.resolution, model.factor) == (16, 2)
    assert model.kl.block_out_channels == (12, 18) and model.clip.hidden_size == 12
    assert model.arcface is None and not model.temporal


def test_flax_folders_give_the_same(from_diffusers, tmp_path):
    leaves, manifest = convert(
        tmp_path / "ckpt", ("diffusers-flax", other_weights.write_flax(tmp_path / "flax"))
    )
    assert manifest["config"] == from_diffusers[1]["config"]
    jax.tree.map(np.testing.assert_array_equal, leaves, from_diffusers[0])


def test_all_sources_together_leave_nothing_open(pipeline, tmp_path):
    folders.write_torch(
        tmp_path / "mm.ckpt", {f"module.{k}": v for k, v in other_weights.motion().items()}
    )
    arcface = other_weights.torch("arcface") | {"bn1.num_batches_tracked": np.array(3)}
    folders.write_torch(tmp_path / "r.pth", arcface)
    leaves, manifest = convert(
        tmp_path / "ckpt",
        ("diffusers", pipeline), ("animatediff", tmp_path / "mm.ckpt"),
        ("arcface", tmp_path / "r.pth"),
    )  # fmt: skip
    assert complete(leaves, manifest) and not manifest["absent"]
    assert sorted(manifest["drawn"]) == ["face_projection", "keypoint_encoder"]
    for network, pattern in (("denoiser", ""), ("arcface", ""), ("portrait_encoder", "attn2")):
        for path, array in other_weights.linen(network, pattern).items():
            if network != "portrait_encoder":
                np.testing.assert_array_equal(leaves[f"{network}/{path}"], array)
            else:
                np.testing.assert_array_equal(
                    leaves[f"{network}/{path}"], leaves[f"attribute_encoder/{path}"]
                )


@pytest.mark.parametrize("motion_in", [None, "motion_module.pth", "denoising_unet.pth"])
def test_moore_gives_a_single_reference_model(motion_in, tmp_path):
    folder = other_weights.write_moore(tmp_path / "moore", motion_in)
    leaves, manifest = convert(tmp_path / "ckpt", ("moore", folder))
    model = manifest["config"]["model"]
    assert manifest["config"]["system"] == "animate_anyone"
    assert model["temporal"] == (motion_in is not None)
    assert not motion_in or (model["temporal_heads"] == 4 and model["max_frames"] == 6)
    assert manifest["absent"] == ["autoencoder", "clip"]
    pattern = "" if motion_in else "^(?!.*motion)"
    wanted = {f"denoiser/{p}": a for p, a in other_weights.linen("denoiser", pattern).items()}
    for path, array in other_weights.linen("attribute_encoder").items():
        array = array[:, :, :4] if path == "conv_in/kernel" else array
        wanted[f"portrait_encoder/{path}"] = array
    wanted |= {
        f"keypoint_encoder/{p}": a for p, a in other_weights.linen("keypoint_encoder").items()
    }
    assert leaves.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(leaves[name], array)


def test_moore_with_the_autoencoder_and_clip_of_diffusers(pipeline, tmp_path):
    leaves, manifest = convert(
        tmp_path / "ckpt", ("moore", other_weights.write_moore(tmp_path / "moore")),
        ("diffusers", pipeline / "vae"), ("diffusers", pipeline / "image_encoder"),
    )  # fmt: skip
    assert complete(leaves, manifest) and not manifest["absent"]


def test_motion_modules_alone(tmp_path):
    # Four levels and norms over 32 channels are all that a file of motion modules cannot tell.
    config = DurianConfig(
        channels=(32, 32, 64, 64), layers_per_block=1, temporal=True, arcface=None,
        clip=ClipConfig(layers=1),
    )  # fmt: skip
    shapes = network_shapes(Durian(config), "denoiser")
    motion = {path: shape for path, shape in shapes.items() if "motion_modules" in path}
    weights = {torch_key(path): np.zeros(shape[::-1], np.float32) for path, shape in motion.items()}
    table = "mid_block.motion_modules.0.transformer_blocks.0.pos_embed.pe"
    weights[table] = frame_positions(24, 64)[None]
    path = folders.write_torch(tmp_path / "mm.ckpt", {"state_dict": weights})
    leaves, manifest = convert(tmp_path / "ckpt", ("animatediff", path))
    assert leaves.keys() == {f"denoiser/{path}" for path in motion}
    model = manifest["config"]["model"]
    assert (model["max_frames"], model["channels"]) == (24, [32, 32, 64, 64])
    assert "denoiser (but for its motion modules)" in manifest["absent"]


@pytest.mark.parametrize("module", [durian, small, tiny])
@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_configs_of_runs_are_understood(module, stage):
    config = module.get_config(stage).to_dict()
    fields = json.loads(json.dumps(config.pop("model")))
    joined = importer.join([Source("RUN", fields, {}, config)])
    known = {name: joined.config["model"][name] for name in fields if name not in _PARTS}
    assert known == {name: fields[name] for name in fields if name not in _PARTS}
    assert joined.config["sample"] == config["sample"]


_PARTS = ("kl", "clip", "arcface")


def test_motion_modules_join_a_run(from_diffusers, pipeline, tmp_path):
    importer.convert([("diffusers", pipeline)], tmp_path / "stage1")
    path = folders.write_torch(tmp_path / "mm.ckpt", other_weights.motion())
    leaves, manifest = convert(
        tmp_path / "stage2", ("durian", tmp_path / "stage1"), ("animatediff", path)
    )
    assert complete(leaves, manifest) and manifest["config"]["model"]["temporal"]
    for name, array in from_diffusers[0].items():
        np.testing.assert_array_equal(leaves[name], array)


def test_every_key_of_a_full_size_controlnet():
    """The digest covers the 340 keys and shapes of diffusers' ControlNetModel at the size of
    Stable Diffusion 1.5. If it changes, a parameter was renamed, added or reshaped: undo that."""
    shapes = network_shapes(build({"system": "x_portrait", "model": {}}), "control")
    keys = {
        torch_key(path): to_torch(np.broadcast_to(np.float32(0), shape), path).shape
        for path, shape in shapes.items()
    }
    assert len(keys) == 340 and sum(map(np.prod, keys.values())) == 361_279_120
    lines = "\n".join(f"{key} {list(shape)}" for key, shape in sorted(keys.items()))
    assert hashlib.sha256(lines.encode()).hexdigest() == (
        "78789a4f9eff0f093581a40e4b710a815f8dce63d2d8575d2eca8cefc3f65893"
    )


def test_the_vision_half_of_a_whole_clip(tmp_path):
    folder = tmp_path / "clip"
    folder.mkdir()
    vision = {
        name: value for name, value in other_weights.CLIP_JSON.items() if name != "architectures"
    }
    values = {
        "architectures": ["CLIPModel"], "projection_dim": other_weights.CONTEXT,
        "vision_config": vision | {"projection_dim": 512}, "text_config": {"hidden_size": 9},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(values))
    text = {
        "text_model.final_layer_norm.bias": np.zeros(9, np.float32),
        "text_projection.weight": np.zeros((14, 9), np.float32),
        "logit_scale": np.zeros((), np.float32),
        "vision_model.embeddings.position_ids": np.arange(5)[None],
    }
    folders.write_torch(folder / "pytorch_model.bin", other_weights.torch("clip") | text)
    leaves, manifest = convert(tmp_path / "ckpt", ("diffusers", folder))
    assert leaves.keys() == {f"clip/{path}" for path in other_weights.linen("clip")}
    assert manifest["config"]["model"]["clip"]["projection_dim"] == other_weights.CONTEXT


# What bad sources get: one line that names file and key, exit code 2, no output.


def fails(capsys, out, *pairs) -> str:
    arguments = ["convert", f"--out={out}"]
    for kind, path in pairs:
        arguments += [f"--from={kind}", f"--source={path}"]
    capsys.readouterr()
    assert main(arguments) == 2
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("durian convert: ")]
    assert len(lines) == 1 and error.endswith(lines[0] + "\n") and "Traceback" not in error
    assert not out.exists() and not list(out.parent.glob(f".{out.name}*"))
    return lines[0]


@pytest.fixture
def broken(pipeline, tmp_path):
    """A copy of the pipeline whose unet file a function may change."""
    folder = tmp_path / "sd"
    shutil.copytree(pipeline, folder)
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"

    def change(edit):
        weights = load_file(file)
        edit(weights)
        save_file(weights, file)
        return folder

    change.file, change.folder = file, folder
    return change


def _wrapped(weights, prefix):
    return {f"{prefix}{key}": np.ascontiguousarray(array) for key, array in weights.items()}


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "unet.", "model.unet.", "module._orig_mod.", "ema_model."]
)
def test_prefixes_that_all_keys_share_are_taken_off(
    prefix, broken, from_diffusers, tmp_path, capsys
):
    save_file(_wrapped(load_file(broken.file), prefix), broken.file)
    leaves, _ = convert(tmp_path / "ckpt", ("diffusers", broken.folder))
    jax.tree.map(np.testing.assert_array_equal, leaves, from_diffusers[0])


def test_prefixes_in_other_kinds_of_sources(from_diffusers, tmp_path):
    moore = other_weights.write_moore(tmp_path / "moore")
    wrapped = _wrapped(other_weights.torch("keypoint_encoder"), "pose_guider.")
    folders.write_torch(moore / "pose_guider.pth", wrapped)
    inner = other_weights.torch("arcface")
    inner = {key.replace("layer1.", "layer1._fsdp_wrapped_module."): x for key, x in inner.items()}
    folders.write_torch(tmp_path / "r.pth", {"net": _wrapped(inner, "_fsdp_wrapped_module.")})
    leaves, _ = convert(
        tmp_path / "ckpt", ("moore", moore),
    )  # fmt: skip
    for path, array in other_weights.linen("keypoint_encoder").items():
        np.testing.assert_array_equal(leaves[f"keypoint_encoder/{path}"], array)
    leaves, _ = convert(tmp_path / "face", ("arcface", tmp_path / "r.pth"))
    for path, array in other_weights.linen("arcface").items():
        np.testing.assert_array_equal(leaves[f"arcface/{path}"], array)


def test_tensors_that_are_not_finite_are_noted(broken, tmp_path, capsys):
    def damage(weights):
        weights["conv_in.bias"][3] = np.nan
        weights["conv_out.bias"] = np.full(4, np.inf, np.float16)

    convert(tmp_path / "ckpt", ("diffusers", broken(damage)))
    (note,) = [line for line in capsys.readouterr().out.splitlines() if "NaN" in line]
    assert note == (
        f"note: {broken.file}: NaN or infinite: conv_in.bias (1 of 16 values), conv_out.bias (4 of "
        "4 values)"
    )
    storage.write_safetensors(
        tmp_path / "half", storage.flat({"a": np.float32([np.inf, np.nan, 1])}), {}, "float16"
    )
    with pytest.raises(InputError, match="a does not fit into float16"):
        storage.write_safetensors(
            tmp_path / "half", storage.flat({"a": np.float32([np.inf, 1e9])}), {}, "float16"
        )


def test_a_folder_of_the_hubs_cache_stands_for_its_snapshot(pipeline, tmp_path, capsys):
    cache = tmp_path / "models--user--name"
    shutil.copytree(pipeline / "image_encoder", cache / "snapshots" / "aaa")
    for given in (cache, cache / "snapshots", cache / "snapshots" / "aaa"):
        shutil.rmtree(tmp_path / "ckpt", ignore_errors=True)
        leaves, _ = convert(tmp_path / "ckpt", ("diffusers", given))
        assert leaves.keys() == {f"clip/{path}" for path in other_weights.linen("clip")}
    (cache / "snapshots" / "bbb").mkdir()
    line = fails(capsys, tmp_path / "out", ("diffusers", cache))
    assert f"{cache}: 2 snapshots in this folder of the hub's cache: name one" in line
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("aaa")
    convert(tmp_path / "main", ("diffusers", cache))
    shutil.move(tmp_path / "main", cache / "snapshots" / "aaa" / "ours")
    shutil.rmtree(cache / "snapshots" / "bbb")
    shutil.move(cache / "snapshots" / "aaa" / "ours", cache / "snapshots" / "ccc")
    (cache / "refs" / "main").write_text("ccc")
    assert loading.load(cache)[0].keys() == {"clip"}


def test_truncated_safetensors(broken, tmp_path, capsys):
    broken.file.write_bytes(broken.file.read_bytes()[:-100])
    line = fails(capsys, tmp_path / "out", ("diffusers", broken.folder))
    assert f"{broken.file}: not a readable safetensors file" in line


def test_half_precision_becomes_float32(broken, tmp_path):
    def halve(weights):
        for key, array in weights.items():
            weights[key] = array.astype(np.float16)

    leaves, _ = convert(tmp_path / "ckpt", ("diffusers", broken(halve)))
    wanted = other_weights.linen("denoiser")["conv_in/kernel"].astype(np.float16)
    np.testing.assert_array_equal(leaves["denoiser/conv_in/kernel"], wanted)


@pytest.mark.parametrize(
    "edit,message",
    [
        (lambda w: w.pop("mid_block.resnets.0.norm1.bias"),
         "1 missing (mid_block.resnets.0.norm1.bias)"),
        (lambda w: w.update(add_embedding=np.zeros(3, np.float32)),
         "1 without a place in the model (add_embedding)"),
        (lambda w: w.update({"conv_in.weight": np.zeros((16, 4, 5, 5), np.float32)}),
         "conv_in.weight is (16, 4, 5, 5), the model has (16, 4, 3, 3)"),
        (lambda w: w.update({"conv_in.bias": np.zeros(16, np.int32)}), "conv_in.bias is int32"),
        (lambda w: w.update({"conv_in.bias": np.zeros(16, np.float64)}), "conv_in.bias is float64"),
    ],
)  # fmt: skip
def test_keys_shapes_and_dtypes(edit, message, broken, tmp_path, capsys):
    line = fails(capsys, tmp_path / "out", ("diffusers", broken(edit)))
    assert str(broken.file) in line and message in line


def test_a_pickle_with_code_in_it(tmp_path, capsys):
    folder = other_weights.write_moore(tmp_path / "moore")
    (folder / "denoising_unet.pth").write_bytes(b"cos\nsystem\n(S'touch x'\ntR.")
    line = fails(capsys, tmp_path / "out", ("moore", folder))
    assert "denoising_unet.pth" in line and "not executed" in line


def test_damage_found_while_writing_leaves_nothing(tmp_path, capsys):
    folder = other_weights.write_moore(tmp_path / "moore")
    data = (folder / "reference_unet.pth").read_bytes()
    array = other_weights.moore_reference()["mid_block.resnets.0.conv1.weight"]
    where = data.index(np.ascontiguousarray(array).tobytes())
    (folder / "reference_unet.pth").write_bytes(data[:where] + b"\xff" + data[where + 1 :])
    line = fails(capsys, tmp_path / "out", ("moore", folder))
    assert "reference_unet.pth: damaged" in line


def _edit_json(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    "part,changes,message",
    [
        ("unet", {"_class_name": "FluxTransformer2DModel"}, "FluxTransformer2DModel is none of"),
        ("unet", {"attention_head_dim": [2, 4, 8]}, "attention_head_dim is [2, 4, 8]"),
        ("unet", {"in_channels": 9}, "in_channels 9, out_channels 4"),
        ("unet", {"addition_embed_type": "text_time"}, "addition_embed_type is 'text_time'"),
        ("unet", {"norm_num_groups": 7}, "norm_groups=7 does not divide"),
        ("unet", {"up_block_types": ["UpBlock2D"] * 3}, "do not mirror"),
        ("unet", {"block_out_channels": 5}, "unusable values"),
        ("unet", {"norm_num_groups": "many"}, "sd: "),
        ("vae", {"norm_num_groups": 0}, "sd: "),
        ("image_encoder", {"vision_config": 3}, "unusable values"),
        ("vae", {"latent_channels": 16}, "the UNet has 4 channels, the autoencoder 16"),
        ("image_encoder", {"hidden_act": "gelu"}, "hidden_act is 'gelu'; only 'quick_gelu'"),
        ("image_encoder", {"projection_dim": 20}, "projection_dim=20 differs from context_dim=14"),
    ],
)
def test_configs_that_do_not_fit(part, changes, message, broken, tmp_path, capsys):
    _edit_json(broken.folder / part, **changes)
    line = fails(capsys, tmp_path / "out", ("diffusers", broken.folder))
    assert message in line and str(broken.folder) in line


def test_folders_of_another_kind(pipeline, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    text = "text_encoder/config.json: a CLIPTextModel is none of"
    moore = other_weights.write_moore(tmp_path / "moore")
    one = {"first_stage_model.a.b": np.ones(1, np.float32)}
    original = folders.write_torch(
        tmp_path / "sd.ckpt", one | {"model.diffusion_model.a": np.ones(1, np.float32)}
    )
    control = tmp_path / "control"
    control.mkdir()
    (control / "config.json").write_text('{"_class_name": "ControlNetModel"}')
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "config.json").write_text('{"_class_name": "MotionAdapter"}')
    sd = tmp_path / "sd"
    sd.mkdir()
    (sd / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    (tmp_path / "lora").mkdir()
    lora = {"up.lora_A.weight": np.ones((1, 2), np.float32)}
    save_file(lora, tmp_path / "lora" / "adapter_model.safetensors")
    for kind, path, message in [
        ("diffusers", tmp_path / "empty", "no model here"),
        ("diffusers", tmp_path / "nowhere", "no such folder"),
        ("diffusers", pipeline / "text_encoder", text),
        ("diffusers", control, "a ControlNetModel: only x_portrait has such networks"),
        ("diffusers", moore, "config.json: a model without a name is none of the models"),
        ("diffusers-flax", pipeline, "no Flax weights"),
        ("moore", pipeline / "unet", "a UNet2DConditionModel folder, not Moore's"),
        ("moore", tmp_path / "empty", "denoising_unet.pth: no such file"),
        ("animatediff", moore / "reference_unet.pth", "no motion modules"),
        ("arcface", moore / "pose_guider.pth", "no iResNet"),
        ("arcface", moore, "a folder: give a file in it, denoising_unet.pth or motion_module.pth"),
        ("animatediff", adapter, "a folder: it holds a MotionAdapter: convert it as diffusers"),
        ("ldm", sd, "a folder: it holds a StableDiffusionPipeline: convert it as diffusers"),
        ("diffusers", moore / "pose_guider.pth", "pose_guider.pth: a file: give a model folder"),
        ("diffusers", original, "a single file as of the first Stable Diffusion"),
        (
            "diffusers",
            adapter.parent / "lora",
            "lora/adapter_model.safetensors: a LoRA (up.lora_A.",
        ),
        ("durian", tmp_path / "empty", "no checkpoint here"),
        ("onnx", moore, "--from onnx: unknown source: choose diffusers"),
    ]:
        assert message in fails(capsys, tmp_path / "out", (kind, path))


def test_motion_modules_without_a_middle(tmp_path, capsys):
    weights = {k: v for k, v in other_weights.motion().items() if not k.startswith("mid_block")}
    path = folders.write_torch(tmp_path / "mm_v1.ckpt", weights)
    assert "mid_block" in fails(capsys, tmp_path / "out", ("animatediff", path))


def test_sources_that_contradict_each_other(pipeline, tmp_path, capsys):
    line = fails(
        capsys, tmp_path / "out", ("diffusers", pipeline), ("diffusers", pipeline / "unet")
    )
    assert "conv_in.bias is also in" in line
    path = folders.write_torch(tmp_path / "mm.ckpt", folders_motion())
    line = fails(capsys, tmp_path / "out", ("diffusers", pipeline), ("animatediff", path))
    assert f"{path}: channels is (12, 24), but (16, 24, 40) in {pipeline}" in line


def folders_motion():
    """Motion modules of the parity fixtures, of other widths."""
    return {k: v for k, v in folders.tensors("denoiser").items() if "motion_modules" in k}


def test_an_output_that_is_there_is_kept(pipeline, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("keep")
    assert main(["convert", "--from=diffusers", f"--source={pipeline}", f"--out={out}"]) == 2
    assert "already there" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    "arguments,message",
    [
        ([], "give --from KIND --source PATH"),
        (["--from=moore"], "1 --from, 0 --source"),
        (["--to=diffusers"], "goes with --checkpoint"),
        (["--to=diffusers", "--checkpoint=a", "--from=moore", "--source=b"], "not with --from"),
    ],
)
def test_options_that_do_not_go_together(arguments, message, tmp_path, capsys):
    assert main(["convert", *arguments, f"--out={tmp_path / 'out'}"]) == 2
    assert message in capsys.readouterr().err


def test_an_incomplete_checkpoint_does_not_animate(tmp_path):
    from durian_jax import Animator

    importer.convert([("moore", other_weights.write_moore(tmp_path / "moore"))], tmp_path / "ckpt")
    with pytest.raises(InputError, match="has no autoencoder, clip: convert it again"):
        Animator.load(tmp_path / "ckpt")


def test_what_it_lacks_is_joined_to_a_checkpoint_of_ours(pipeline, tmp_path):
    importer.convert([("moore", other_weights.write_moore(tmp_path / "moore"))], tmp_path / "ckpt")
    leaves, manifest = convert(
        tmp_path / "whole", ("durian", tmp_path / "ckpt"), ("diffusers", pipeline / "vae"),
        ("diffusers", pipeline / "image_encoder"),
    )  # fmt: skip
    assert complete(leaves, manifest) and not manifest["absent"]
    assert manifest["config"]["system"] == "animate_anyone"
