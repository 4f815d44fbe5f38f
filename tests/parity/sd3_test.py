"""Stable Diffusion 3's transformer and autoencoder against diffusers, in small.

Errors are ||ours - torch|| / ||torch||; `sd3_generate.py` writes what torch computed.
"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import load_file

from durian_jax.convert.names import match
from durian_jax.diffusion.flow import Flow
from durian_jax.diffusion.solvers import SamplerState, Sampling, Schedule, advance
from durian_jax.models.autoencoder import AutoencoderConfig, AutoencoderKL
from durian_jax.models.mmdit import MMDiT, MMDiTConfig
from durian_jax.models.patches import PositionTable
from durian_jax.weights.storage import Stored
from tests.parameters import fill
from tests.parity import drawn, folders
from tests.parity.conftest import QUICK
from tests.parity.parity_test import NETWORK, error

KEYS = json.loads((folders.FIXTURES / "sd3_keys.json").read_text())
TABLE = "pos_embed.pos_embed"
CONFIG = {
    "layers": 3, "heads": 3, "head_dim": 8, "context_dim": 10, "pooled_dim": 6, "positions": 24,
    "position_base": 4, "dual_layers": (0, 1), "video_layers": (0, 2), "dtype": "float32",
}  # fmt: skip
PLAIN = {"dual_layers": (), "qk_norm": False}
KL = {
    "block_out_channels": (8, 12), "layers_per_block": 1, "latent_channels": 5, "norm_groups": 4,
    "scaling": 1.5305, "shift": 0.0609, "quant_convs": False, "dtype": "float32",
}  # fmt: skip


@pytest.fixture(scope="module")
def outputs():
    return load_file(folders.FIXTURES / "sd3.safetensors")


def inputs(count=4):
    """z [4, h, w, c], times, context and pooled text, as `sd3_generate` draws them."""
    z = (1.7 * drawn.numbers("sd3_noise", (4, 6, 8, 5))).astype("f4")
    context = drawn.numbers("sd3_context", (4, 7, 10)).astype("f4")
    pooled = drawn.numbers("sd3_pooled", (4, 6)).astype("f4")
    return z[:count], np.float32([12.5, 400, 400, 1000])[:count], context, pooled


def tensors(name):
    """Torch key -> weights, without the table of positions."""
    shapes = {key: tuple(shape) for key, shape in KEYS[name].items() if key != TABLE}
    return {key: drawn.tensor(f"{name}/{key}", shape) for key, shape in shapes.items()}


def params(module, name, *arguments, method=None):
    """Parameters of a module that are the drawn tensors of a network."""
    init = functools.partial(module.init, method=method)
    abstract = jax.eval_shape(init, jax.random.key(0), *arguments)["params"]
    own = {path for path in flatten_dict(abstract, sep="/") if "video_attn" in path}
    shapes = {path: leaf.shape for path, leaf in flatten_dict(abstract, sep="/").items()}
    stored = {
        key: Stored(folders.FIXTURES, key, array.shape, "float32", lambda array=array: array)
        for key, array in tensors(name).items()
    }
    plain = {path: shape for path, shape in shapes.items() if path not in own}
    leaves = {path: one.read() for path, one in match(name, plain, stored).items()}
    leaves |= {
        path: leaf for path, leaf in flatten_dict(fill(abstract), sep="/").items() if path in own
    }
    return unflatten_dict(leaves, sep="/")


@functools.cache
def transformer(name, **changes):
    """(module, parameters) of a transformer."""
    module = MMDiT(MMDiTConfig(**CONFIG | changes), channels=5)
    z, t, context, pooled = inputs()
    return module, params(module, name, z[:, None], t, context[:1], pooled[:1])


def run(module, weights, *arguments, method=None, **options):
    """What a module computes at full precision."""
    apply = functools.partial(module.apply, method=method, **options)
    with jax.default_matmul_precision("highest"):
        return jax.jit(apply, compiler_options=QUICK)({"params": weights}, *arguments)


def check(name, ours, torch):
    measured = error(ours, torch)
    print(f"{name}: {measured:.1e}")
    assert measured <= NETWORK, f"{name}: {measured:.2e} exceeds {NETWORK}"


@pytest.mark.parametrize(
    "name, changes", [("sd3_transformer", ()), ("sd3_plain", tuple(PLAIN.items()))]
)
def test_without_what_is_ours_it_is_stable_diffusion(name, changes, outputs):
    """Clips of one frame; a clip with its own text and time each."""
    module, weights = transformer(name, video_layers=(), **dict(changes))
    z, t, context, pooled = inputs()

    def one(variables, z, t, context, pooled):
        return module.apply(variables, z[None, None], t[None], context[None], pooled[None])[0, 0]

    with jax.default_matmul_precision("highest"):
        ours = jax.jit(jax.vmap(one, (None, 0, 0, 0, 0)), compiler_options=QUICK)(
            {"params": weights}, z, t, context, pooled
        )
    check(name, ours, outputs[name])


def test_a_gate_at_zero_leaves_the_frames_alone():
    """Video attention whose gate is zero is none; and it is not zero in the other tests."""
    module, weights = transformer("sd3_transformer")
    z, _, context, pooled = inputs()
    t, arguments = np.float32([300]), (context[:1], pooled[:1])
    flat = flatten_dict(weights)
    closed = unflatten_dict({k: 0 * x if k[-1] == "gate" else x for k, x in flat.items()})
    alone = MMDiT(MMDiTConfig(**CONFIG | {"video_layers": ()}), channels=5)
    without = unflatten_dict({k: x for k, x in flat.items() if "video_attn" not in k})
    ours = run(module, closed, z[None], t, *arguments)
    each = run(alone, without, z[None], t, *arguments)
    np.testing.assert_allclose(ours, each, atol=2e-5)
    seen = run(module, weights, z[None], t, *arguments)
    assert error(seen, ours) > 1e-2


def test_the_table_of_positions_is_that_of_diffusers(outputs):
    table = PositionTable(24, 4 / 24, 24)
    whole = outputs["positions"].reshape(24, 24, 24)
    np.testing.assert_allclose(
        table.window(6, 8), whole[9:15, 8:16].reshape(48, 24), rtol=0, atol=2e-6
    )
    left, right = (table.window(6, 8, place).reshape(6, 8, 24) for place in (-1, 1))
    np.testing.assert_allclose(left, whole[9:15, :8], rtol=0, atol=2e-6)
    np.testing.assert_allclose(right, whole[9:15, 16:], rtol=0, atol=2e-6)


def test_the_autoencoder_shifts_and_has_no_convolutions_at_its_latents(outputs):
    module = AutoencoderKL(AutoencoderConfig(**KL))
    pictures = drawn.numbers("sd3_pictures", (2, 16, 16, 3)).astype("f4")
    weights = params(module, "sd3_vae", pictures, method=lambda m, x: m.decode(m.encode(x)))
    check("encode", run(module, weights, pictures, method="encode"), outputs["sd3_latents"])
    decoded = run(module, weights, jnp.asarray(inputs()[0]), method="decode")
    check("decode", decoded, outputs["sd3_decoded"])


@pytest.mark.parametrize("steps", [4, 10, 40])
def test_the_stock_scheduler(steps, outputs):
    """Every step of FlowMatchEulerDiscreteScheduler, shift 3, on the stand-in of `generate`."""
    process = Flow(shift=3.0)
    schedule = Schedule.build(process, Sampling(steps=steps, guidance=1.0))
    np.testing.assert_allclose(schedule.times, outputs[f"euler_{steps}_timesteps"], rtol=1e-6)
    at = SamplerState.start((1.7 * drawn.numbers("start", (3, 5))).astype("f4")[:, None])
    for i, wanted in enumerate(outputs[f"euler_{steps}"]):
        now = schedule.step(i)
        angle, x = now.times / 250, at.latents
        prediction = 0.7 * jnp.sin(x + angle) - 0.2 * x * jnp.cos(angle)
        at = advance(process, at, prediction, now)
        check(f"step {i}", at.latents[:, 0], wanted)
