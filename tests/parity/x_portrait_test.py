"""X-Portrait against its official code: the weights converted, the inputs the same.

The whole networks and two trajectories need a checkpoint of 16 MB with what the official code made
of it; XPORTRAIT_ORACLE names the folder. What is small enough of it lies in the fixtures.
"""

import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import load_file, save_file

from durian_jax.convert import importer
from durian_jax.convert.names import match
from durian_jax.convert.sources import ldm
from durian_jax.diffusion import solvers, windows
from durian_jax.diffusion.process import make_process
from durian_jax.diffusion.solvers import Sampling, Schedule
from durian_jax.models.attention import References
from durian_jax.models.temporal import MotionModule
from durian_jax.sampling import sampler
from durian_jax.systems.system import build
from durian_jax.systems.x_portrait.model import Controls, Sources
from durian_jax.weights.storage import Stored
from tests.parity import x_portrait_drawn
from tests.parity.conftest import QUICK
from tests.parity.folders import FIXTURES

NETWORK, GUIDED = 1e-5, 3e-5  # the limits of the project
INPUTS = ("noisy", "source", "driving", "local", "context")  # of the peer
ORACLE = os.environ.get("XPORTRAIT_ORACLE")
whole = pytest.mark.skipif(not ORACLE, reason="XPORTRAIT_ORACLE names no folder")


def error(ours, theirs) -> float:
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


@pytest.fixture
def report(record_property):
    """Measured errors show with `pytest -rP` and in the JUnit report."""

    def check(name, ours, theirs, limit):
        measured = error(ours, theirs)
        record_property(name, measured)
        print(f"{name}: {measured:.1e}")
        assert measured <= limit, f"{name}: {measured:.2e} exceeds {limit}"

    return check


def last(x):
    """[..., C, h, w] -> [..., h, w, C], float32."""
    return np.moveaxis(x, -3, -1).astype(np.float32)


class Official:
    """The converted checkpoint and the official inputs and outputs."""

    def __init__(self, folder: Path):
        joined = importer.join([importer.SOURCES["x-portrait"](folder)])
        self.io = load_file(folder / "io.safetensors")
        context = self.io["input/context"][0]
        side = 8 * self.io["input/source"].shape[-1]
        fields = joined.config["model"] | {
            "dtype": "float32", "resolution": side, "prompt_tokens": len(context),
        }  # fmt: skip
        self.system = build({"system": "x_portrait", "model": fields})
        leaves = {
            f"{network}/{path}": np.float32(stored.read())
            for network, tensors in joined.networks.items()
            for path, stored in tensors.items()
        }
        self.params = unflatten_dict(leaves | {"prompt/embedding": context}, sep="/")
        self.process = make_process(joined.config["diffusion"])
        settings = json.loads((folder / "config.json").read_text())["settings"]
        self.steps = {
            "trajectory": settings["ddim_steps"], "wrap": settings["wrap"]["ddim_steps"],
        }  # fmt: skip
        self.sampling = Sampling.from_settings(joined.config["sample"]).changed(
            guidance=float(settings["guidance"]), window=settings["window"],
            overlap=settings["overlap"],
        )  # fmt: skip
        self.times = settings["timesteps"]

    def sources(self, *names):
        latents = np.stack([last(self.io[f"input/{name}"][0]) for name in names])
        return Sources(jnp.asarray(latents[None]))

    def pictures(self, count, names=("driving", "local")):
        return tuple(last(self.io[f"input/{name}"][:count])[None] for name in names)

    def run(self, function, *arguments):
        """`function(bound system, *arguments)` at full precision."""

        def apply(params, *arguments):
            return self.system.apply({"params": params}, *arguments, method=function)

        with jax.default_matmul_precision("highest"):
            return jax.jit(apply, compiler_options=QUICK)(self.params, *arguments)


def controls(model, driving, local):
    """As `encode_frames`, of pictures in [-1, 1]."""

    def features(network, pictures):
        return network.encode_pictures(pictures[0])[None]

    return Controls(features(model.control, driving), features(model.local_control, local))


@pytest.fixture(scope="module")
def official():
    return Official(Path(ORACLE))


@whole
def test_reference_encoder(official, report):
    def bank(model, clip, t):
        return model.portrait_encoder.capture(clip.latents[:, 0], t, model.prompt())

    for t in official.times:
        found = official.run(bank, official.sources("source"), np.array([t]))
        for site, tokens in enumerate(found):
            report(f"bank t={t} {site}", tokens, official.io[f"bank/t{t}/{site:02}"], NETWORK)
        assert len(found) == sum(key.startswith(f"bank/t{t}/") for key in official.io)


@whole
def test_controls(official, report):
    noisy = last(official.io["input/noisy"])

    def residuals(model, noisy, t, driving, local):
        frames = controls(model, driving, local)
        return (
            model.control.control(noisy, t, frames.whole[0], model.prompt()),
            model.local_control.control(noisy, t, frames.local[0], model.prompt()),
        )

    t = official.times[0]
    found = official.run(residuals, noisy, np.array([t]), *official.pictures(len(noisy)))
    for name, tensors in zip(("control", "local_control"), found):
        for site, tensor in enumerate(tensors):
            wanted = last(official.io[f"{name}/t{t}/{site:02}"])
            report(f"{name} {site}", tensor, wanted, NETWORK)


@whole
@pytest.mark.parametrize(
    ("name", "sources"),
    [
        ("conditional", ("source",)),
        ("two_references", ("source", "source2")),
        ("unconditional", ()),
    ],
)
def test_denoiser(official, report, name, sources):
    noisy = last(official.io["input/noisy"])[None]

    def predict(model, noisy, t, clip, driving, local):
        if not sources:
            return model.predict(noisy, t, None, None, ())
        frames = controls(model, driving, local)
        return model.predict(noisy, t, model.at_time(clip, t), frames, model.parts)

    for t in official.times:
        clip = official.sources(*(sources or ("source",)))
        found = official.run(predict, noisy, np.array([t]), clip, *official.pictures(len(noisy[0])))
        report(f"{name} t={t}", found[0], last(official.io[f"eps/t{t}/{name}"]), NETWORK)


@whole
@pytest.mark.parametrize("network", [None, "control", "local_control"])
def test_one_control_or_none(official, report, network):
    noisy = last(official.io["input/noisy"])
    name = {None: "reference", "control": "global", "local_control": "local"}[network]
    pictures = dict(zip(("control", "local_control"), official.pictures(len(noisy))))

    def predict(model, noisy, t, clip, pictures):
        context, residuals = model.prompt(), None
        if network:
            trunk = getattr(model, network)
            features = trunk.encode_pictures(pictures[network][0])
            residuals = trunk.control(noisy, t, features, context)
        tokens = model.at_time(clip, t).references
        references = tuple(References(one, jnp.ones((1, 1, 1))) for one in tokens)
        return model.denoiser(noisy, t, context, references, None, residuals)

    t = official.times[0]
    found = official.run(predict, noisy, np.array([t]), official.sources("source"), pictures)
    report(name, found, last(official.io[f"eps/t{t}/{name}_only"]), NETWORK)


@whole
def test_guided_value(official, report):
    noisy = last(official.io["input/noisy"])[None]
    frames = official.run(controls, *official.pictures(len(noisy[0])))

    for t in official.times:
        schedule = Schedule.build(official.process, official.sampling)
        now = schedule.step(0).replace(times=np.int32(t))
        found = _predict(official, noisy, official.sources("source"), frames, now)
        report(f"guided t={t}", found[0], last(official.io[f"eps/t{t}/guided"]), GUIDED)


def _predict(official, z, clip, frames, now):
    def predict(params, z, clip, frames, now):
        told = sampler.at_time(official.system, params, clip, now)
        return sampler.predict(official.system, params, z, told, frames, now)

    if not hasattr(official, "predict"):
        official.predict = jax.jit(predict, compiler_options=QUICK)
    with jax.default_matmul_precision("highest"):
        return official.predict(official.params, z, clip, frames, now)


@whole
def test_the_peer_of_the_benchmark_is_the_official_network(official, report):
    """benchmarks/x_portrait times ours against it."""
    torch = pytest.importorskip("torch")
    from benchmarks.x_portrait_peer import XPortrait

    state = torch.load(Path(ORACLE) / "model_state.th", weights_only=True)
    peer, io = XPortrait(official.system.config).eval(), official.io
    peer.load({key: x.float() for key, x in state.get("state_dict", state).items()})
    inputs = {name: torch.from_numpy(io[f"input/{name}"].astype("f4")) for name in INPUTS}
    noisy, source, driving, local, context = inputs.values()
    frames = driving[: len(noisy)], local[: len(noisy)]
    for t in official.times:
        with torch.no_grad():
            found = peer.step(noisy, t, source, *frames, context, official.sampling.guidance)
        report(f"peer, t={t}", found.numpy(), io[f"eps/t{t}/guided"], GUIDED)


@whole
@pytest.mark.parametrize("name", ["trajectory", "wrap"])
def test_trajectory(official, report, name):
    io, process = official.io, official.process
    steps = official.steps[name]
    sampling = official.sampling.changed(steps=steps)
    schedule = Schedule.build(process, sampling)
    np.testing.assert_array_equal(schedule.times, io[f"{name}/timesteps"])
    np.testing.assert_allclose(schedule.signal_next**2, io[f"{name}/alphas_next"], rtol=1e-6)
    count = len(io[f"{name}/start"])
    source, noise = (last(io[f"input/{kind}"]) for kind in ("source", "noise"))
    start = sampler.noised(process, source[:1][None], noise[None, :count])
    report("start", start[0], last(io[f"{name}/start"]), NETWORK)
    frames = official.run(controls, *official.pictures(count))
    clip, found = official.sources("source"), []

    def predict(z, places, step):
        window = jax.tree.map(lambda x: x[:, places], frames)
        return _predict(official, z, clip, window, schedule.step(step))

    def advance(z, clean, prediction, places, step):
        at = solvers.SamplerState(z, clean, jnp.zeros(1, jnp.uint32), places)
        after = solvers.advance(process, at, jnp.asarray(prediction), schedule.step(step))
        return after.latents, after.clean

    offsets = io[f"{name}/offsets"]
    walk = windows.Circular(count, sampling.window, sampling.overlap, lambda i: int(offsets[i]))
    for part in windows.denoise_windows(
        walk, len(schedule), lambda places: np.asarray(start)[:, places], predict, advance
    ):
        found.append(part[0])
    report(name, np.concatenate(found), last(io[f"{name}/latents"][-1]), GUIDED)


@pytest.fixture(scope="module")
def small():
    """Official outputs of parts, see x_portrait_fixture."""
    return load_file(FIXTURES / "x_portrait.safetensors")


def test_text_tower(small, report, tmp_path):
    prefix = "text/cond_stage_model.transformer."
    tower = {k.removeprefix("text/"): x for k, x in small.items() if k.startswith(prefix)}
    save_file(tower, tmp_path / "text.safetensors", {"config": '{"num_attention_heads": 4}'})
    source = importer.SOURCES["prompt"](tmp_path / "text.safetensors")
    assert source.fields == {"prompt_tokens": 77, "context_dim": 32}
    found = source.weights["prompt"]["weight"].read()
    report("text tower", found, small["text/context"][0], NETWORK)


def test_motion_module(small, report):
    """The third of the way down, whose every frame is normalised by itself."""
    weights = {
        f"{ldm._motion('input', 0)}{key.removeprefix('motion/')}": Stored(
            FIXTURES, key, x.shape, str(x.dtype), lambda x=x: x
        )
        for key, x in small.items()
        if key.startswith("motion/")
    }
    pairs = ldm.unet_pairs({"channels": (64,), "layers_per_block": 1, "attention_levels": ()})
    ours = {
        key.removeprefix("down_blocks.0.motion_modules.0."): stored
        for key, stored in ldm.renamed(weights, pairs).items()
    }
    module, x = MotionModule(64, 8, 32, max_frames=24), last(small["motion_input"])[None]
    shapes = flatten_dict(jax.eval_shape(module.init, jax.random.key(0), x)["params"], sep="/")
    found = match("motion", {path: leaf.shape for path, leaf in shapes.items()}, ours)
    leaves = {path: np.float32(stored.read()) for path, stored in found.items()}
    with jax.default_matmul_precision("highest"):
        made = jax.jit(module.apply, compiler_options=QUICK)(
            {"params": unflatten_dict(leaves, sep="/")}, x
        )
    report("motion module", made[0], last(small["motion_output"]), NETWORK)


@pytest.mark.parametrize(("name", "steps"), [("trajectory", 4), ("wrap", 2)])
def test_step_list(small, name, steps):
    process = make_process({"prediction": "eps", "zero_terminal_snr": False})
    schedule = Schedule.build(process, Sampling(steps, spacing="leading"))
    np.testing.assert_array_equal(schedule.times, small[f"{name}/timesteps"])
    np.testing.assert_allclose(schedule.signal_next**2, small[f"{name}/alphas_next"], rtol=1e-6)
    np.testing.assert_allclose(
        process.alphas_cumprod[schedule.times], small[f"{name}/alphas"], rtol=1e-6
    )


def test_a_whole_model_computes_what_it_did_when_it_agreed(small, report):
    with jax.default_matmul_precision("highest"):
        found = x_portrait_drawn.outputs()
    # Four networks, one behind the other: processors that add in another order differ by 2.3e-5.
    for name, x in found.items():
        report(name, x, small[f"whole/{name}"], GUIDED)
