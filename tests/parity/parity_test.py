"""Every network against PyTorch: the weights converted, the inputs the same, the outputs stored.

Errors are ||ours - torch|| / ||torch||. `generate.py` writes the fixtures; if a number here breaks
after a change of a network, the network is wrong until the fixtures say why they had to change.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from durian_jax.convert import importer
from durian_jax.convert.names import match
from durian_jax.convert.shapes import network_shapes
from durian_jax.diffusion import solvers
from durian_jax.diffusion.process import Discrete
from durian_jax.models.attention import Attention, KeyValue, References
from durian_jax.models.unet import UNet
from durian_jax.sampling import sampler
from durian_jax.systems.durian.config import DurianConfig
from durian_jax.systems.durian.model import Durian, Frames, build
from durian_jax.systems.x_portrait.config import XPortraitConfig
from durian_jax.systems.x_portrait.model import XPortrait
from durian_jax.weights import loading
from durian_jax.weights.storage import Stored
from tests.parity import drawn, folders
from tests.parity.conftest import MODEL, QUICK

NETWORK, TRAJECTORY, HALF = 1e-5, 1e-4, 2e-2  # the limits of the project


def error(ours, torch) -> float:
    ours, torch = np.asarray(ours, np.float64), np.asarray(torch, np.float64)
    assert ours.shape == torch.shape
    return float(np.linalg.norm(ours - torch) / np.linalg.norm(torch))


@pytest.fixture(autouse=True)
def report(record_property, capsys):
    """Measured errors show with `pytest -rP` and in the JUnit report."""

    def check(name, ours, torch, limit):
        measured = error(ours, torch)
        record_property(name, measured)
        print(f"{name}: {measured:.1e}")
        assert measured <= limit, f"{name}: {measured:.2e} exceeds {limit}"

    return check


def test_autoencoder(run, scene, outputs, report):
    def moments(model, pictures):
        return model.autoencoder.moments(pictures.astype(jnp.float32) / 127.5 - 1)

    mean, logvar = run(moments, scene["portrait"])
    report("encode, mean", mean, outputs["autoencoder/mean"], NETWORK)
    report("encode, log-variance", logvar, outputs["autoencoder/logvar"], NETWORK)
    decoded = run("decode_video", scene["noise"][:, 0])
    report("decode", decoded, outputs["autoencoder/decoded"], NETWORK)


@pytest.fixture(scope="module")
def unet(tmp_path_factory):
    """The plain UNet of the fixtures as the denoiser that `--from diffusers` makes of it."""
    folder = folders.write_model(tmp_path_factory.mktemp("unet") / "unet", "unet")
    source = importer.SOURCES["diffusers"](folder)
    config = DurianConfig.from_dict(MODEL | {"temporal": False})
    told = {name: source.fields[name] for name in source.fields if name in MODEL}
    assert told == {name: getattr(config, name) for name in told} and len(told) == 6
    # One call with time steps per frame: each frame is a clip.
    weights = source.weights["denoiser"]
    found = importer.match("denoiser", network_shapes(Durian(config), "denoiser"), weights)
    leaves = {path: stored.read() for path, stored in found.items()}
    fields = {"in_channels": 4, "out_channels": 4, "context_dim": 10}
    return UNet(config.unet(**fields)), {"params": unflatten_dict(leaves, sep="/")}


def test_unet(unet, scene, outputs, report):
    network, variables = unet
    times = np.array([40] * 3 + [900] * 3)
    noisy = scene["noise"].reshape(-1, 8, 8, 4)
    with jax.default_matmul_precision("highest"):
        ours = jax.jit(network.apply, compiler_options=QUICK)(
            variables, noisy, times, scene["context"]
        )
    report("UNet2DConditionModel", ours, outputs["unet/sample"], NETWORK)


def test_capture_at_every_site(unet, scene, outputs, report):
    network, variables = unet
    noisy, now = scene["noise"].reshape(-1, 8, 8, 4), np.zeros(6, np.int32)
    capture = jax.jit(functools.partial(network.apply, method="capture"), compiler_options=QUICK)
    with jax.default_matmul_precision("highest"):
        captured = capture(variables, noisy, now, scene["context"])
    assert len(captured) == sum(name.startswith("unet/site_") for name in outputs) == 4
    for site, tokens in enumerate(captured):
        report(f"site {site}", tokens, outputs[f"unet/site_{site}"], NETWORK)


@pytest.fixture(scope="module")
def control():
    """The ControlNet of the fixtures in a control trunk."""
    config = XPortraitConfig.from_dict(
        {
            name: MODEL[name]
            for name in MODEL
            if name not in ("clip", "arcface", "keypoint_channels")
        }
        | {"control_channels": MODEL["keypoint_channels"]}
    )
    shapes = network_shapes(XPortrait(config), "control")
    weights = {
        key: Stored(folders.FIXTURES, key, array.shape, "float32", lambda array=array: array)
        for key, array in folders.tensors("controlnet").items()
    }
    found = match("control", shapes, weights)
    network, _ = XPortrait(config).bind({}).control.unbind()
    leaves = {path: stored.read() for path, stored in found.items()}
    return network, {"params": unflatten_dict(leaves, sep="/")}


def test_controlnet(control, unet, scene, outputs, report):
    """Residuals at every level, and what the UNet makes of them."""
    (trunk, trunk_variables), (network, variables) = control, unet
    noisy, pictures = scene["noise"].reshape(-1, 8, 8, 4), scene["keypoint_pictures"]
    some = noisy[2:4], np.array([40, 900])
    context, pictures = scene["context"][2:4], pictures.reshape(-1, 16, 16, 3)[2:4]

    @functools.partial(jax.jit, compiler_options=QUICK)
    def controlled(trunk_variables, variables):
        features = trunk.apply(trunk_variables, pictures, method="encode_pictures")
        residuals = trunk.apply(trunk_variables, *some, features, context, method="control")
        return residuals, network.apply(variables, *some, context, residuals=residuals)

    with jax.default_matmul_precision("highest"):
        residuals, sample = controlled(trunk_variables, variables)
    assert len(residuals) == sum(name.startswith("control/residual_") for name in outputs) == 5
    for site, residual in enumerate(residuals):
        report(f"residual {site}", residual, outputs[f"control/residual_{site}"], NETWORK)
    report("UNet with residuals", sample, outputs["control/sample"], NETWORK)


@pytest.mark.parametrize("count", range(4))
def test_attention_with_references(count, outputs, report):
    layer = Attention(12, 3)
    weights = {
        "to_q": drawn.tensor("attention/to_q.weight", (12, 12)),
        "to_k": drawn.tensor("attention/to_k.weight", (12, 12)),
        "to_v": drawn.tensor("attention/to_v.weight", (12, 12)),
        "to_out_0": drawn.tensor("attention/to_out.0.weight", (12, 12)),
    }
    params = {name: {"kernel": weight.T} for name, weight in weights.items()}
    params["to_out_0"]["bias"] = drawn.tensor("attention/to_out.0.bias", (12,))
    tokens = drawn.numbers("tokens", (4, 6, 12)).astype("f4")
    bank = drawn.numbers("bank", (2, 18, 12)).astype("f4")[:, : 6 * count]
    with jax.default_matmul_precision("highest"):
        references = None
        if count:
            projected = layer.apply({"params": params}, bank, method="keys_values")
            tokens_of_bank = KeyValue(projected.key[None], projected.value[None])
            references = References(tokens_of_bank, jnp.ones((1, 2, 1)))
        ours = layer.apply({"params": params}, tokens, references=references)
    report(f"attention, {count} references", ours, outputs[f"attention/{count}"], NETWORK)


def test_motion_unet_of_diffusers(run, scene, outputs, report):
    def denoise(model, noisy, context):
        return model.denoiser(noisy.reshape(-1, 8, 8, 4), jnp.full(2, 500), context)

    ours = run(denoise, scene["noise"], scene["context"], temporal_norm="clip")
    torch = outputs["denoiser/pooled"]
    report("UNetMotionModel", ours.reshape(torch.shape), torch, NETWORK)
    # AnimateDiff's own norms, which the two-reference denoiser below has, make a difference.
    assert error(torch, outputs["denoiser/per_frame"]) > 1e-2


def test_keypoint_encoder(run, scene, outputs, report):
    def encode(model, pictures):
        return model.keypoint_encoder(pictures.reshape(-1, 16, 16, 3))

    ours = run(encode, scene["keypoint_pictures"])
    report("keypoint encoder", ours, outputs["keypoint_encoder"], NETWORK)


def test_arcface(run, scene, outputs, report):
    def embed(model, faces):
        return model.arcface(faces.astype(jnp.float32) / 127.5 - 1)

    report("ArcFace", run(embed, scene["face"]), outputs["arcface"], NETWORK)


def test_arcface_from_onnx(run, tmp_path, scene, outputs, report):
    """A graph whose normalisations the exporter has folded away."""

    def embed(model, faces):
        return model.arcface(faces.astype(jnp.float32) / 127.5 - 1)

    source = folders.FIXTURES / "arcface.onnx"
    importer.convert([("arcface", source)], tmp_path / "checkpoint")
    weights, manifest = loading.load(tmp_path / "checkpoint")
    shape = manifest["config"]["model"]["arcface"]
    assert {name: shape[name] for name in MODEL["arcface"]} | {"dtype": "float32"} == MODEL[
        "arcface"
    ]
    report(
        "ArcFace from ONNX", run(embed, scene["face"], weights=weights), outputs["arcface"], NETWORK
    )


def test_clip(run, scene, outputs, report):
    def look(model, pictures):
        return model.clip(pictures.reshape(-1, 16, 16, 3) / 255.0).reshape(2, 2, -1)

    report("CLIP", run(look, scene["attribute"]), outputs["clip"], NETWORK)


@pytest.fixture(scope="module")
def conditions(run, scene):
    """(banks before the denoiser projects them, conditions, keypoint features)."""

    def encode(model, batch):
        banks, project = [], type(model.denoiser).project_references

        def keep(self, bank):
            banks.append(bank)
            return project(self, bank)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(model.denoiser), "project_references", keep)
            conditions = model.encode_clip(batch)
        pictures = batch["keypoint_pictures"].reshape(-1, 16, 16, 3)
        features = model.keypoint_encoder(pictures).reshape(2, 3, 8, 8, -1)
        return banks[0], conditions, Frames(features)

    return run(encode, scene)


def test_reference_banks(conditions, outputs, report):
    for site, bank in enumerate(conditions[0]):
        report(f"bank {site}", bank, outputs[f"durian/bank_{site}"], NETWORK)


@pytest.mark.parametrize("dtype,limit", [("float32", NETWORK), ("bfloat16", HALF)])
def test_two_reference_denoiser(dtype, limit, run, conditions, scene, outputs, report):
    _, known, features = conditions
    arguments = scene["noise"], jnp.full(2, 500), known, features
    ours = run("predict", *arguments, static=[("references",)], dtype=dtype)
    report(f"two-reference denoiser, {dtype}", ours, outputs["durian/denoised"], limit)


@pytest.mark.slow
def test_everything_in_bfloat16(run, scene, outputs, report):
    def denoise(model, batch):
        conditions = model.encode_clip(batch)
        pictures = batch["keypoint_pictures"].reshape(-1, 16, 16, 3)
        features = model.keypoint_encoder(pictures).reshape(2, 3, 8, 8, -1)
        return model.predict(
            batch["noise"], jnp.full(2, 500), conditions, Frames(features), model.parts
        )

    half = {"dtype": "bfloat16"}
    parts = {name: MODEL[name] | half for name in ("kl", "clip", "arcface")}
    ours = run(denoise, scene, **half, **parts)
    report("encoders and denoiser, bfloat16", ours, outputs["durian/denoised"], HALF)


def test_whole_trajectory(params, conditions, scene, outputs, report):
    model, process = build(MODEL), Discrete()
    schedule = solvers.Schedule.build(process, solvers.Sampling(steps=4, guidance=2.0))

    @functools.partial(jax.jit, compiler_options=QUICK)
    def sample(params, noise, known, features):
        latents = sampler.denoise(
            model, params, solvers.SamplerState.start(noise), known, features, schedule,
            process=process,
        ).latents  # fmt: skip
        return latents, sampler.decode(model, params, latents)

    with jax.default_matmul_precision("highest"):
        latents, video = sample(params, scene["noise"], *conditions[1:])
    report("4 steps, latents", latents, outputs["durian/latents"], TRAJECTORY)
    report("4 steps, video", video, outputs["durian/video"], TRAJECTORY)


def test_single_reference_model_of_moore(run, tmp_path, scene, outputs, report):
    """Animate Anyone's three files, with the autoencoder and CLIP of diffusers folders."""
    pairs = [("moore", folders.write_moore(tmp_path / "moore"))]
    for network in ("autoencoder", "clip"):
        pairs.append(("diffusers", folders.write_model(tmp_path / network, network)))
    importer.convert(pairs, tmp_path / "checkpoint")
    weights, manifest = loading.load(tmp_path / "checkpoint")
    fields = manifest["config"]["model"] | {"dtype": "float32"}
    for part in ("kl", "clip"):
        fields[part] |= {"dtype": "float32"}

    def denoise(model, batch):
        conditions = model.encode_clip(batch)
        pictures = batch["keypoint_pictures"].reshape(-1, 16, 16, 3)
        features = model.keypoint_encoder(pictures).reshape(2, 3, 8, 8, -1)
        return model.predict(
            batch["noise"], jnp.full(2, 300), conditions, Frames(features), model.parts
        )

    # No attributes: N = 0.
    batch = scene | {name: scene[name][:, :0] for name in ("attribute", "attribute_mask")}
    ours = run(denoise, batch, weights=weights, system="animate_anyone", **fields)
    report("Moore, single reference", ours, outputs["moore/denoised"], NETWORK)


class _StandIn:
    """A smooth model for the schedulers alone, the same as in generate.py."""

    parts = ("references",)
    timed = False
    history = 0

    def apply(self, variables, z, t, clip, frames, parts, method):
        angle = t[0].astype(jnp.float32) / 250
        return 0.7 * jnp.sin(z + angle) - 0.2 * z * jnp.cos(angle)


class _AlmostZero(Discrete):
    """diffusers' DPM-Solver++ cannot divide by an alpha_bar of 0 and takes 2^-24 for it, a signal
    of 2.4e-4 in the first step. Given the same, the solvers agree."""

    @property
    def alphas_cumprod(self):
        return np.maximum(super().alphas_cumprod, 2.0**-24)


@pytest.mark.parametrize("steps", [4, 10, 25])
@pytest.mark.parametrize("prediction", ["v", "eps"])
@pytest.mark.parametrize("solver", ["ddim", "dpm++"])
def test_schedulers(solver, prediction, steps, outputs, report):
    """DDIMScheduler and DPMSolverMultistepScheduler; v with zero terminal SNR, trailing steps."""
    name = f"schedulers/{solver.removesuffix('++')}{'_eps' if prediction == 'eps' else ''}_{steps}"
    kind = Discrete if solver == "ddim" else _AlmostZero
    process = kind(prediction=prediction, zero_terminal_snr=prediction == "v")
    sampling = solvers.Sampling(steps=steps, solver=solver, guidance=1.0)
    schedule = solvers.Schedule.build(process, sampling)
    assert schedule.times.tolist() == outputs[f"{name}_timesteps"].tolist()
    start = (1.7 * drawn.numbers("start", (3, 5))).astype("f4")[:, None, None, None]
    end = sampler.denoise(
        _StandIn(), {}, solvers.SamplerState.start(jnp.asarray(start)), None, None, schedule,
        process=process,
    )  # fmt: skip
    report(name, end.latents[:, 0, 0, 0], outputs[name], TRAJECTORY)
