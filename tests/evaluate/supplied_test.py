"""Each wrapper on a tiny random network in a file of the format that the field uses."""

import json
import sys

import numpy as np
import onnx
import pytest

from durian_jax.cli.main import main
from durian_jax.evaluate import perceptual, supplied
from input_pipeline.errors import InputError


def _load(**weights):
    (network,), _ = perceptual.load([], {name: str(path) for name, path in weights.items()})
    return network


def _scripted(tmp_path, name):
    """A TorchScript file with the interface of Inception or I3D, and 7 random features."""
    torch = pytest.importorskip("torch")

    class Layers(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = torch.nn.Conv2d(3, 7, 5, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tanh(self.mix(x)).mean((2, 3))[:, :, None, None]

    class Inception(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = Layers()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layers(x)

    class I3d(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = torch.nn.Conv3d(3, 7, 4, 4)

        def forward(
            self, x: torch.Tensor, rescale: bool, resize: bool, return_features: bool
        ) -> torch.Tensor:
            x = x / 127.5 - 1
            return torch.tanh(self.mix(x)).mean((2, 3, 4))

    torch.manual_seed(0)
    path = tmp_path / f"{name}.pt"
    torch.jit.script(Inception() if name == "fid" else I3d()).save(str(path))
    return path


def test_fid_is_zero_for_the_truth_and_grows_with_the_error(tmp_path, prediction):
    network = _load(fid=_scripted(tmp_path, "fid"))
    for method in ("truth", "paste", "copy"):
        assert network.score(method, prediction(method)) == {}
    cells = network.over_all()
    assert cells["truth"]["mean"] == pytest.approx(0, abs=1e-9) and cells["truth"]["samples"] == 6
    assert 0 < cells["paste"]["mean"] < cells["copy"]["mean"]


def test_fid_resizes_as_clean_fid_does():
    # Pillow's bicubic on floats, one channel at a time: no rounding to 8 bits in between.
    image = np.random.default_rng(0).random((64, 64, 3)) * 255
    found = supplied._clean_resize(image, 299)
    assert found.shape == (299, 299, 3) and found.min() >= 0 and found.max() <= 255
    assert (found % 1 > 1e-3).mean() > 0.9
    np.testing.assert_allclose(supplied._clean_resize(np.full((64, 64, 3), 7.25), 299), 7.25)


def test_fvd_needs_clips_of_16_frames(tmp_path, prediction, case_set):
    network = _load(fvd=_scripted(tmp_path, "fvd"))
    network.score("paste", prediction("paste"))
    assert network.over_all()["paste"] == {"not_available": "needs 2 clips of 16 frames"}
    rng = np.random.default_rng(0)
    found = [network.features(rng.random((20, 64, 64, 3), np.float32)) for _ in range(2)]
    assert found[0].shape == (1, 7) and (found[0] != found[1]).any()


def _transformer(tmp_path, name):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    tiny = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    tiny |= {"num_attention_heads": 2, "image_size": 32, "patch_size": 8}
    if name == "clip":
        config = transformers.CLIPVisionConfig(projection_dim=16, **tiny)
        model = transformers.CLIPVisionModelWithProjection(config)
        size = {"shortest_edge": 32}
    else:
        model = transformers.ViTModel(transformers.ViTConfig(**tiny), add_pooling_layer=False)
        size = {"height": 32, "width": 32}
    processors = {"clip": "CLIPImageProcessor", "dino": "ViTImageProcessor"}
    settings = {"size": size, "image_processor_type": processors[name], "do_resize": True}
    settings |= {"do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    settings |= {"do_rescale": True, "rescale_factor": 1 / 255, "do_center_crop": name == "clip"}
    settings |= {"crop_size": {"height": 32, "width": 32}, "resample": 3}
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    return tmp_path


@pytest.mark.parametrize("name", ["clip", "dino"])
def test_similarity_of_the_attribute_looks_at_the_attribute_alone(tmp_path, prediction, name):
    network = _load(**{name: _transformer(tmp_path, name)})
    truth, paste = prediction(), prediction("paste")
    assert -1 <= network.value(paste) <= 1
    # Far from the attribute nothing counts.
    changed = truth.frames.copy()
    changed[:, -20:] = 0
    assert network.value(prediction(changed)) == pytest.approx(network.value(truth), abs=1e-3)
    # Pasted pixels look more like the attribute than the portrait's own.
    assert network.value(paste) > network.value(prediction("copy"))


@pytest.fixture
def face_network(tmp_path):
    """An ONNX file: mean colour of a 4 x 4 grid of the aligned face."""
    helper, kind, grid = onnx.helper, onnx.TensorProto.FLOAT, [28, 28]
    nodes = [
        helper.make_node("AveragePool", ["face"], ["grid"], kernel_shape=grid, strides=grid),
        helper.make_node("Flatten", ["grid"], ["vector"]),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes, "tiny",
        [helper.make_tensor_value_info("face", kind, [1, 3, 112, 112])],
        [helper.make_tensor_value_info("vector", kind, [1, 48])],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "face.onnx"
    onnx.save(model, str(path))
    return path


def test_identity_compares_aligned_faces(face_network, prediction):
    network = _load(arcface=face_network)
    copy = network.value(prediction("copy"))
    assert copy == pytest.approx(1, abs=0.01)
    assert network.value(prediction()) < copy
    frames = prediction("copy").frames.copy()
    frames[1] = 0.5
    # A frame without a face is no likeness at all.
    assert network.value(prediction(frames)) == pytest.approx(copy * 5 / 6, abs=0.01)


def test_weights_fill_the_columns_of_the_report(face_network, case_folder, tmp_path):
    folder = tmp_path / "grey"
    folder.mkdir()
    for name in ("0000", "0001"):
        np.save(folder / f"{name}.npy", np.full((6, 128, 128, 3), 0.5))
    code = main(
        ["evaluate", "--protocol=counterfactual", f"--cases={case_folder}", "--groups=hair",
         f"--predictions={folder}", f"--out={tmp_path / 'report'}", "--networks=none",
         f"--weights=arcface={face_network}"]
    )  # fmt: skip
    assert code == 0
    facts = json.loads((tmp_path / "report" / "report.json").read_text())
    cells = {(row["group"], row["method"]): row["metrics"] for row in facts["rows"]}
    assert cells["all", "grey"]["arcface"]["mean"] == 0
    assert cells["all", "copy"]["arcface"]["mean"] > cells["all", "grey"]["arcface"]["mean"]
    assert cells["all", "grey"]["clip"] == {"not_available": "no weights given"}
    assert cells["all", "grey"]["lpips"] == {"not_available": "left out"}
    assert facts["networks"]["arcface"]["weights"] == str(face_network)


@pytest.mark.parametrize("name", ["fid", "fvd", "arcface", "clip", "dino"])
def test_files_of_another_kind_are_refused_in_one_line(name, tmp_path):
    if name != "arcface":
        pytest.importorskip("torch")
    if name in ("clip", "dino"):
        pytest.importorskip("transformers")
    source = tmp_path / "weights.pt"
    if name in ("clip", "dino"):
        source.mkdir()
    else:
        source.write_text("no network")
    with pytest.raises(InputError) as failure:
        _load(**{name: source})
    assert f"{source}: " in str(failure.value)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("name", ["fid", "fvd", "clip", "dino"])
def test_a_metric_that_torch_computes_names_its_extra(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setitem(sys.modules, "transformers", None)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"not installed: pip install 'durian_jax\[torch\]'"):
        _load(**{name: tmp_path / "file"})


def test_a_missing_package_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "file.onnx").write_text("")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"onnxruntime is not installed: pip install .*\[eval\]"):
        _load(arcface=tmp_path / "file.onnx")
