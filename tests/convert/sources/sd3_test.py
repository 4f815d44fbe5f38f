"""Stable Diffusion 3 in small: a pipeline's folder to weights of svp, and the plain part back."""

import json

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file

from durian_jax import Animator
from durian_jax.convert import exporter, importer
from durian_jax.convert.names import to_linen, torch_key
from durian_jax.systems.system import build, init_params
from durian_jax.training.train_step import check_fit
from durian_jax.weights import loading, storage
from input_pipeline.errors import InputError
from tests.parity import folders
from tests.parity.sd3_test import TABLE, tensors
from tests.systems.svp import model_test as svp

WHOLE = "diffusion_pytorch_model.safetensors"
SHARDS = "diffusion_pytorch_model-0000{}-of-00002.safetensors"


@pytest.fixture(scope="module")
def positions():
    return load_file(folders.FIXTURES / "sd3.safetensors")["positions"]


def config(name, **changes):
    return json.loads((folders.FIXTURES / f"{name}.config.json").read_text()) | changes


def write_transformer(folder, positions, name="sd3_transformer", **changes):
    """A folder as diffusers shards it: two files and their index."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config(name, **changes)))
    weights = tensors(name) | {TABLE: positions}
    keys, places = sorted(weights), {}
    for number, part in ((1, keys[::2]), (2, keys[1::2])):
        save_file({key: weights[key] for key in part}, folder / SHARDS.format(number))
        places |= dict.fromkeys(part, SHARDS.format(number))
    index = {"metadata": {}, "weight_map": places}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory, positions):
    """The folder of a whole pipeline, with what is of no use here."""
    root = tmp_path_factory.mktemp("sd3") / "stable-diffusion-3.5"
    write_transformer(root / "transformer", positions)
    (root / "vae").mkdir()
    (root / "vae" / "config.json").write_text(json.dumps(config("sd3_vae")))
    save_file(tensors("sd3_vae"), root / "vae" / WHOLE)
    for name, family in (
        ("text_encoder", "CLIPTextModelWithProjection"), ("text_encoder_3", "T5EncoderModel"),
    ):  # fmt: skip
        (root / name).mkdir()
        (root / name / "config.json").write_text(json.dumps({"architectures": [family]}))
    (root / "model_index.json").write_text("{}")
    return root


@pytest.fixture(scope="module")
def prompt(tmp_path_factory):
    path = tmp_path_factory.mktemp("prompt") / "empty.safetensors"
    rng = np.random.default_rng(0)
    text = {"prompt_embeds": (1, 7, 10), "pooled_prompt_embeds": (1, 6)}
    save_file({k: rng.normal(size=s).astype("f4") for k, s in text.items()}, path)
    return path


@pytest.fixture(scope="module")
def converted(pipeline, prompt, tmp_path_factory):
    out = tmp_path_factory.mktemp("converted") / "weights"
    importer.convert([("diffusers", pipeline), ("prompt", prompt)], out)
    return out


def test_a_pipeline_becomes_weights_of_svp(converted, pipeline, prompt):
    params, meta = loading.load(converted)
    values = meta["config"]
    assert values["system"] == "svp" and values["prompt"] == str(prompt)
    assert values["diffusion"]["process"] == "flow" and values["diffusion"]["shift"] == 3.0
    assert values["sample"]["windows"] == "chained"
    assert values["model"]["resolution"] == 16 and values["model"]["prompt_tokens"] == 7
    assert values["model"]["transformer"]["dual_layers"] == [0, 1]
    assert (values["model"]["kl"]["shift"], values["model"]["kl"]["quant_convs"]) == (0.0609, False)
    for network, name in (("denoiser", "sd3_transformer"), ("autoencoder", "sd3_vae")):
        leaves, given = flatten_dict(params[network], sep="/"), tensors(name)
        assert {torch_key(path) for path in leaves} == given.keys()
        for path, leaf in leaves.items():
            np.testing.assert_array_equal(
                leaf, to_linen(given[torch_key(path)], path).reshape(leaf.shape)
            )
    text = load_file(prompt)
    np.testing.assert_array_equal(params["prompt"]["embedding"], text["prompt_embeds"][0])
    np.testing.assert_array_equal(params["prompt"]["pooled"], text["pooled_prompt_embeds"][0])


def test_what_is_ours_is_drawn_when_it_trains_and_missed_when_it_animates(converted):
    params, meta = loading.load(converted)
    model = build(meta["config"])
    wanted = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    assert check_fit(params, wanted, "X").endswith("drawn at random: denoiser (video attention)")
    with pytest.raises(InputError, match=r"has no denoiser \(video attention\)"):
        Animator.load(converted)


def test_without_a_prompt_the_text_is_zero(pipeline, tmp_path):
    importer.convert([("diffusers", pipeline)], tmp_path / "weights")
    params, meta = loading.load(tmp_path / "weights")
    assert meta["config"]["prompt"] == "zeros"
    assert params["prompt"]["embedding"].shape == (333, 10) and not params["prompt"]["pooled"].any()


def test_the_plain_part_goes_back_as_it_came(converted, pipeline, prompt, tmp_path, positions):
    exporter.to_diffusers(converted, tmp_path / "back")
    back = tmp_path / "back"
    weights = load_file(back / "transformer" / WHOLE)
    np.testing.assert_allclose(weights.pop(TABLE), positions, atol=2e-6)
    for found, name in (
        (weights, "sd3_transformer"),
        (load_file(back / "vae" / WHOLE), "sd3_vae"),
    ):
        given = tensors(name)
        assert found.keys() == given.keys()
        for key, array in given.items():
            np.testing.assert_array_equal(found[key], array)
    written = json.loads((back / "transformer" / "config.json").read_text())
    assert written == {k: v for k, v in config("sd3_transformer").items() if k in written}
    vae = json.loads((back / "vae" / "config.json").read_text())
    for name in ("shift_factor", "scaling_factor", "use_quant_conv", "latent_channels"):
        assert vae[name] == config("sd3_vae")[name]
    text, other = load_file(back / "prompt.safetensors"), load_file(prompt)
    np.testing.assert_array_equal(text["prompt_embeds"], other["prompt_embeds"][0])
    again = tmp_path / "again"
    importer.convert([("diffusers", back), ("prompt", back / "prompt.safetensors")], again)
    for one, two in zip(*(jax.tree.leaves(loading.load(x)[0]) for x in (again, converted))):
        np.testing.assert_array_equal(one, two)


def test_other_models_of_the_class_are_read_as_they_are(tmp_path, positions):
    """As 3.5 Large, without second attentions, or 3 Medium, without normalised queries."""
    folder = write_transformer(tmp_path / "large", positions, "sd3_plain")
    joined = importer.join([importer.SOURCES["diffusers"](folder)])
    shape = joined.config["model"]["transformer"]
    assert (shape["dual_layers"], shape["qk_norm"]) == ([], False)
    assert joined.absent == ["denoiser (video attention)", "autoencoder"]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"qk_norm": "layer_norm"}, "config.json: qk_norm is 'layer_norm'; only 'rms_norm'"),
        ({"caption_projection_dim": 9}, "caption_projection_dim is 9; only 24 is supported"),
        ({"sample_size": 16}, "holds other positions than sines and cosines of 24 x 24"),
        ({"num_layers": 4}, "do not fit denoiser"),
        ({"_class_name": "SD3ControlNetModel"}, "a SD3ControlNetModel is none of the models known"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message, tmp_path, positions):
    folder = write_transformer(tmp_path / "sd3", positions, **changes)
    with pytest.raises(InputError, match=message):
        importer.convert([("diffusers", folder)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_shard_is_named(tmp_path, positions):
    folder = write_transformer(tmp_path / "sd3", positions)
    (folder / SHARDS.format(2)).unlink()
    with pytest.raises(InputError, match=r"its part diffusion_pytorch_model-00002-of-00002"):
        importer.convert([("diffusers", folder)], tmp_path / "out")


def test_text_of_another_size_is_refused(pipeline, tmp_path):
    path = tmp_path / "text.safetensors"
    save_file(
        {"prompt_embeds": np.ones((7, 9), "f4"), "pooled_prompt_embeds": np.ones(6, "f4")}, path
    )
    with pytest.raises(InputError, match="do not fit prompt"):
        importer.convert([("diffusers", pipeline), ("prompt", path)], tmp_path / "out")


def test_weights_of_svp_itself_pass_whole_and_leave_without_what_is_ours(tmp_path, capsys):
    """As another folder all of them; to diffusers what it has a class for."""
    model = svp.system()
    settings = {"diffusion": {"process": "flow"}, "sample": {"steps": 2}}
    facts = {"config": {"system": "svp", "model": svp.MODEL, **settings}}
    weights = ((name, storage.flat(tree)) for name, tree in svp.params(model).items())
    storage.write(tmp_path / "own", weights, facts)
    exporter.to_safetensors(tmp_path / "own", tmp_path / "other")
    (one, _), (two, meta) = (loading.load(tmp_path / name) for name in ("own", "other"))
    assert build(meta["config"]).config == model.config
    for first, second in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_array_equal(first, second)
    exporter.to_diffusers(tmp_path / "own", tmp_path / "plain")
    assert "note: left out are the 22 tensors of video attention" in capsys.readouterr().out
    folder = tmp_path / "plain" / "transformer"
    assert not [k for k in load_file(folder / WHOLE) if "video" in k]
    assert not (tmp_path / "plain" / "vae").exists()
