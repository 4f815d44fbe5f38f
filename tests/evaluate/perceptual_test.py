"""Each wrapper on a tiny random network in a file of the format that the field uses."""

import json
import sys
import types

import numpy as np
import pytest

from durian_jax.cli.main import main
from durian_jax.evaluate import perceptual, scores
from durian_jax.evaluate.perceptual import frechet_distance
from input_pipeline.errors import InputError


@pytest.fixture(scope="module")
def answer(case_set, landmarker):
    """A function of frames [F, S, S, 3] to an Answer to the first case; default, the truth."""
    case = case_set.cases[0]
    pictures = case_set.load(case)
    reference = scores.find_reference(case, pictures, landmarker)
    baselines = scores.baseline_frames(case, pictures, reference)

    def make(frames="truth"):
        frames = baselines[frames] if isinstance(frames, str) else frames
        track = scores.find_track(frames, landmarker)
        return scores.Answer(frames, track, case, pictures, reference)

    return make


def test_frechet_distance_of_gaussians_in_closed_form():
    rng = np.random.default_rng(0)
    white = np.linalg.qr(rng.normal(size=(60, 5)) - 0.0)[0]
    white -= white.mean(0)
    # Columns made orthonormal after centring: the covariance is exactly diagonal.
    white = np.linalg.qr(white)[0] * np.sqrt(59)
    first = white * [1, 2, 3, 4, 5] + 1
    second = white * [2, 2, 1, 4, 7] + [3, 1, 1, 1, 0]
    # |m1 - m2|^2 + sum (s1 - s2)^2 for commuting covariances.
    assert frechet_distance(first, second) == pytest.approx(4 + 1 + (1 + 0 + 4 + 0 + 4), rel=1e-9)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_agrees_with_the_matrix_square_root():
    linalg = pytest.importorskip("scipy.linalg")
    rng = np.random.default_rng(1)
    first = rng.normal(size=(50, 6)) @ rng.normal(size=(6, 6))
    second = rng.normal(size=(40, 6)) @ rng.normal(size=(6, 6)) + 0.5
    s1, s2 = np.cov(first.T), np.cov(second.T)
    expected = np.square(first.mean(0) - second.mean(0)).sum()
    expected += np.trace(s1 + s2 - 2 * linalg.sqrtm(s1 @ s2).real)
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_with_fewer_samples_than_features():
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=(5, 20)), rng.normal(1, 2, size=(7, 20))
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(second, first))
    assert frechet_distance(first, first + 0.5) == pytest.approx(20 * 0.25)


@pytest.fixture(scope="module")
def lpips_model():
    """`lpips.LPIPS` on a random AlexNet; the package wants torchvision only for its trunk."""
    torch = pytest.importorskip("torch")
    nn = torch.nn

    def alexnet(**_):
        pool = nn.MaxPool2d(3, 2)
        layers = [nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), pool]
        layers += [nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), pool]
        layers += [nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()]
        layers += [nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()]
        layers += [nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), pool]
        return types.SimpleNamespace(features=nn.Sequential(*layers))

    stand_in = types.ModuleType("torchvision")
    stand_in.models = types.ModuleType("torchvision.models")
    stand_in.models.alexnet = alexnet
    modules = {"torchvision": stand_in, "torchvision.models": stand_in.models}
    with pytest.MonkeyPatch.context() as patch:
        for name, module in modules.items():
            patch.setitem(sys.modules, name, module)
        lpips = pytest.importorskip("lpips")
        torch.manual_seed(0)
        return lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_lpips_agrees_with_its_package(lpips_model, answer, tmp_path, suffix):
    import torch

    path = tmp_path / f"alex{suffix}"
    if suffix == ".pth":
        torch.save(lpips_model.state_dict(), path)
    else:
        from safetensors.torch import save_file

        state = {k: v for k, v in lpips_model.state_dict().items() if not k.startswith("lins.")}
        save_file(state, path)
    (network,) = perceptual.load({"lpips": str(path)})
    given = answer("paste")
    truth = given.pictures.truth.video / np.float32(255)
    with torch.inference_mode():
        first, second = (
            torch.from_numpy(frames).permute(0, 3, 1, 2) * 2 - 1 for frames in (given.frames, truth)
        )
        expected = float(lpips_model(first, second).mean())
    assert expected > 1e-4
    assert network.value(given) == pytest.approx(expected, rel=1e-4)
    assert network.value(answer()) == 0


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


def test_fid_is_zero_for_the_truth_and_grows_with_the_error(tmp_path, answer):
    (network,) = perceptual.load({"fid": str(_scripted(tmp_path, "fid"))})
    for method in ("truth", "paste", "copy"):
        assert network.score(method, answer(method)) == {}
    cells = network.over_all()
    assert cells["truth"]["mean"] == pytest.approx(0, abs=1e-9) and cells["truth"]["samples"] == 6
    assert 0 < cells["paste"]["mean"] < cells["copy"]["mean"]


def test_fid_resizes_as_clean_fid_does():
    # Pillow's bicubic on floats, one channel at a time: no rounding to 8 bits in between.
    image = np.random.default_rng(0).random((64, 64, 3)) * 255
    found = perceptual._clean_resize(image, 299)
    assert found.shape == (299, 299, 3) and found.min() >= 0 and found.max() <= 255
    assert (found % 1 > 1e-3).mean() > 0.9
    np.testing.assert_allclose(perceptual._clean_resize(np.full((64, 64, 3), 7.25), 299), 7.25)


def test_fvd_needs_clips_of_16_frames(tmp_path, answer, case_set):
    (network,) = perceptual.load({"fvd": str(_scripted(tmp_path, "fvd"))})
    network.score("paste", answer("paste"))
    assert network.over_all()["paste"] == {"not_available": "needs 2 clips of 16 frames"}
    rng = np.random.default_rng(0)
    found = [network._features(rng.random((20, 64, 64, 3), np.float32)) for _ in range(2)]
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
def test_similarity_of_the_attribute_looks_at_the_attribute_alone(tmp_path, answer, name):
    (network,) = perceptual.load({name: str(_transformer(tmp_path, name))})
    truth, paste = answer(), answer("paste")
    assert -1 <= network.value(paste) <= 1
    # Far from the attribute nothing counts.
    changed = truth.frames.copy()
    changed[:, -20:] = 0
    assert network.value(answer(changed)) == pytest.approx(network.value(truth), abs=1e-3)
    # Pasted pixels look more like the attribute than the portrait's own.
    assert network.value(paste) > network.value(answer("copy"))


@pytest.fixture
def face_network(tmp_path):
    """An ONNX file: mean colour of a 4 x 4 grid of the aligned face."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
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


def test_identity_compares_aligned_faces(face_network, answer):
    (network,) = perceptual.load({"arcface": str(face_network)})
    copy = network.value(answer("copy"))
    assert copy == pytest.approx(1, abs=0.01)
    assert network.value(answer()) < copy
    frames = answer("copy").frames.copy()
    frames[1] = 0.5
    # A frame without a face is no likeness at all.
    assert network.value(answer(frames)) == pytest.approx(copy * 5 / 6, abs=0.01)


def test_weights_fill_the_columns_of_the_report(face_network, case_folder, tmp_path):
    scripted = _scripted(tmp_path, "fid")
    folder = tmp_path / "grey"
    folder.mkdir()
    for name in ("0000", "0001"):
        np.save(folder / f"{name}.npy", np.full((6, 128, 128, 3), 0.5))
    code = main(
        ["evaluate", "--protocol=counterfactual", f"--cases={case_folder}", "--groups=hair",
         f"--predictions={folder}", f"--out={tmp_path / 'report'}",
         f"--weights=arcface={face_network}", f"--weights=fid={scripted}"]
    )  # fmt: skip
    assert code == 0
    facts = json.loads((tmp_path / "report" / "report.json").read_text())
    cells = {(row["group"], row["method"]): row["metrics"] for row in facts["rows"]}
    assert cells["all", "grey"]["arcface"]["mean"] == 0
    assert cells["all", "copy"]["arcface"]["mean"] > cells["all", "grey"]["arcface"]["mean"]
    assert cells["all", "truth"]["fid"]["mean"] == pytest.approx(0, abs=1e-9)
    assert cells["hair", "grey"]["fid"] == {"not_available": "only over all cases"}
    assert cells["all", "grey"]["clip"] == {"not_available": "no weights given"}
    assert facts["networks"]["fid"]["weights"] == str(scripted)


@pytest.mark.parametrize("name", ["lpips", "fid", "fvd", "arcface", "clip", "dino"])
def test_files_of_another_kind_are_refused_in_one_line(name, tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("transformers" if name in ("clip", "dino") else "onnxruntime")
    source = tmp_path / "weights.pt"
    if name in ("clip", "dino"):
        source.mkdir()
    else:
        source.write_text("no network")
    with pytest.raises(InputError) as failure:
        perceptual.load({name: str(source)})
    assert f"--weights {name}={source}: " in str(failure.value)
    assert "\n" not in str(failure.value)


def test_a_missing_package_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "file.onnx").write_text("")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"onnxruntime is not installed: pip install .*\[eval\]"):
        perceptual.load({"arcface": str(tmp_path / "file.onnx")})
