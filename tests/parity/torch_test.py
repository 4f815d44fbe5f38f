"""Against PyTorch itself, where the [torch] extra is installed; `-m slow`.

Exports load in diffusers and transformers and compute the same; full-size networks with random
weights go through `durian convert` and agree.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from safetensors.numpy import load_file

from durian_jax.convert import exporter, importer
from durian_jax.systems.durian.model import build
from durian_jax.weights.storage import read_safetensors
from tests.parity import drawn, folders

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.slow
ENCODERS = ("portrait_encoder", "attribute_encoder")


@pytest.fixture(scope="module")
def exported(converted, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "folder"
    exporter.to_diffusers(converted, out)
    return out


@torch.no_grad()
def test_exports_load_and_compute_the_same(exported, scene, outputs):
    from tests.parity import generate, reference

    nets = {
        "denoiser": diffusers.UNetMotionModel,
        "portrait_encoder": diffusers.UNet2DConditionModel,
        "attribute_encoder": diffusers.UNet2DConditionModel,
        "autoencoder": diffusers.AutoencoderKL,
        "clip": transformers.CLIPVisionModelWithProjection,
    }
    for name, kind in nets.items():
        nets[name], report = kind.from_pretrained(
            exported / folders.EXPORT[name], output_loading_info=True
        )
        assert not any(report.values()), (name, report)
    for name, module in {
        "keypoint_encoder": reference.KeypointEncoder((5, 9), 12),
        "face_projection": reference.FaceProjection(14, 10),
        "arcface": reference.IResNet([2, 1], [6, 10], 16, 14),
    }.items():
        file = next((exported / folders.EXPORT[name]).glob("*.safetensors"))
        weights = {key: torch.from_numpy(array) for key, array in load_file(file).items()}
        missing, extra = module.load_state_dict(weights, strict=False)
        assert not extra and all(key.endswith("num_batches_tracked") for key in missing)
        nets[name] = module.eval()
    for name, module in nets.items():
        state = module.state_dict()
        added = ("conv_norm_out.", "conv_out.") if name in ENCODERS else ()
        for key, array in folders.tensors(name).items():
            if not key.startswith(added or ("?",)) and not key.endswith("num_batches_tracked"):
                np.testing.assert_array_equal(state[key].numpy(), array)
    reference.normalise_per_frame(nets["denoiser"])
    whole = generate.TwoReferences(nets, scene)
    denoised = generate.last(whole(generate.first(scene["noise"]), 500))
    # The weights are the same bits; the order of sums is torch's affair.
    wanted = outputs["durian/denoised"]
    assert np.linalg.norm(denoised - wanted) <= 1e-5 * np.linalg.norm(wanted)


def _build(name):
    """A full-size network: Stable Diffusion 1.5's UNet and autoencoder, CLIP ViT-L/14."""
    if name == "clip":
        config = transformers.CLIPVisionConfig(
            hidden_size=1024, intermediate_size=4096, projection_dim=768, num_hidden_layers=24,
            num_attention_heads=16, image_size=224, patch_size=14,
        )  # fmt: skip
        return transformers.CLIPVisionModelWithProjection(config)
    if name == "autoencoder":
        return diffusers.AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, sample_size=512,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        )  # fmt: skip
    return diffusers.UNet2DConditionModel(sample_size=64, cross_attention_dim=768)


def _run_torch(name, model, x):
    x = torch.from_numpy(np.moveaxis(x, -1, 1).copy())
    if name == "clip":
        return model(x).image_embeds.numpy()
    if name == "autoencoder":
        return np.moveaxis(model.decode(model.encode(x).latent_dist.mean).sample.numpy(), 1, -1)
    context = torch.from_numpy(drawn.numbers("context", (1, 4, 768))).float()
    return np.moveaxis(model(x, 500, context).sample.numpy(), 1, -1)


def _run_ours(name, model, x):
    if name == "clip":
        tower = model.clip
        return tower.visual_projection(tower.vision_model(x))
    if name == "autoencoder":
        return model.autoencoder.decode(model.autoencoder.encode(x))
    context = jnp.asarray(drawn.numbers("context", (1, 4, 768)), jnp.float32)
    return model.denoiser(x, jnp.full(1, 500), context)


@pytest.mark.parametrize(
    "name,shape",
    [("denoiser", (1, 16, 16, 4)), ("autoencoder", (1, 128, 128, 3)), ("clip", (1, 224, 224, 3))],
)
@torch.no_grad()
def test_full_size(name, shape, tmp_path):
    torch.manual_seed(0)
    module = _build(name).eval()
    for parameter in module.parameters():
        # Norms and biases away from one and zero, no tensor at zero.
        parameter += (0.1 if parameter.ndim == 1 else 0.001) * torch.randn_like(parameter)
    module.save_pretrained(tmp_path / "model")
    x = drawn.numbers(name, shape).astype("f4")
    wanted = _run_torch(name, module, x)
    del module

    joined = importer.join([importer.SOURCES["diffusers"](tmp_path / "model")])
    leaves = {path: stored.read() for path, stored in joined.networks[name].items()}
    fields = joined.config["model"] | {"dtype": "float32"}
    for part in ("kl", "clip"):
        fields[part] |= {"dtype": "float32"}
    model = build(fields)
    params = {name: unflatten_dict(leaves, sep="/")}

    def apply(params, x):
        return model.apply({"params": params}, x, method=lambda m, x: _run_ours(name, m, x))

    with jax.default_matmul_precision("highest"):
        ours = np.asarray(jax.jit(apply)(params, x))
    error = np.linalg.norm(ours - wanted) / np.linalg.norm(wanted)
    print(f"full size {name}: {error:.1e}")
    assert error <= 1e-5


def test_torch_reads_the_archives_that_the_tests_write(tmp_path):
    state = {"a": np.arange(12, dtype=np.float32).reshape(3, 4), "b": np.float16([1, 2])}
    path = folders.write_torch(tmp_path / "a.pth", state)
    found = torch.load(path, weights_only=True)
    for key, array in state.items():
        np.testing.assert_array_equal(found[key].numpy(), array)


def test_torch_reads_our_safetensors(converted):
    from safetensors.torch import load_file as load_torch

    file = converted / "denoiser.safetensors"
    ours, theirs = read_safetensors(file), load_torch(file)
    assert ours.keys() == theirs.keys()
    np.testing.assert_array_equal(ours["conv_in/kernel"].read(), theirs["conv_in/kernel"].numpy())
