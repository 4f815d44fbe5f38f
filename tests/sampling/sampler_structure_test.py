"""What the sampler must not do: repeat work that is constant, or change the result by sparing it.

The program is read as JAX traces it; its result is compared with a literal sampler that does
everything the long way.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from durian_jax.diffusion import solvers
from durian_jax.diffusion.process import Discrete
from durian_jax.diffusion.solvers import Sampling, Schedule
from durian_jax.sampling import sampler
from durian_jax.systems.durian.model import build
from durian_jax.systems.system import init_params
from tests import parameters

# Sizes that no two axes share, so that a shape tells what it is of.
FRAMES, SIDE, HEADS, HEAD_SIZE, GUIDANCE = 3, 7 * 2, 2, 20, 2.5
TOKENS, BANK = SIDE**2, 2 * SIDE**2
MODEL = {
    "resolution": SIDE * 2, "autoencoder": "patchify", "kl": None, "patch": 2,
    "channels": (HEADS * HEAD_SIZE, 48), "layers_per_block": 1, "attention_levels": (0,),
    "heads": HEADS, "norm_groups": 4, "context_dim": 12, "temporal": True, "temporal_heads": 2,
    "max_frames": 4, "keypoint_channels": (5, 9), "dtype": "float32",
    "clip": {"hidden_size": 16, "intermediate_size": 24, "layers": 1, "heads": 2, "image_size": 16,
             "patch_size": 4, "projection_dim": 12, "dtype": "float32"},
    "arcface": {"layers": (1, 1), "widths": (6, 10), "image_size": 16, "embedding": 14,
                "dtype": "float32"},
}  # fmt: skip
# Level 0 makes compiling quick; the arithmetic stays the same.
QUICK = {"xla_backend_optimization_level": "0", "xla_llvm_disable_expensive_passes": True}
PROCESS = Discrete()


def _schedule(**settings):
    return Schedule.build(PROCESS, Sampling(**{"steps": 3, "guidance": GUIDANCE} | settings))


@pytest.fixture(scope="module")
def model():
    return build(MODEL)


@pytest.fixture(scope="module")
def batch(model):
    rng = np.random.default_rng(0)
    found = {
        name: rng.integers(0, 256, blank.shape).astype(blank.dtype)
        for name, blank in model.blank_batch(1, FRAMES).items()
        if name not in ("video", "id")
    }
    found["keypoints"] = rng.uniform(0, SIDE * 2, found["keypoints"].shape).astype(np.float32)
    return found


@pytest.fixture(scope="module")
def params(model):
    return parameters.fill(jax.eval_shape(lambda: init_params(model, jax.random.key(0))))


def _encode(model, params, batch):
    return sampler.encode_clip(model, params, batch), sampler.encode_frames(model, params, batch)


def _equations(jaxpr):
    """All equations, those of inner programs included, each with the program it stands in."""
    for equation in jaxpr.eqns:
        yield jaxpr, equation
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_program):
            if _is_program(value):
                yield from _equations(getattr(value, "jaxpr", value))


def _is_program(value):
    return isinstance(value, core.ClosedJaxpr | core.Jaxpr)


@pytest.fixture(scope="module")
def loop(batch, params):
    """The body of the denoising loop, in bfloat16, after checks that it is the only one."""
    model = build(MODEL | {"dtype": "bfloat16"})

    def run(params, conditions, features, latents, schedule):
        start = solvers.SamplerState.start(latents)
        return sampler.denoise(
            model, params, start, conditions, features, schedule, process=PROCESS
        )

    conditions, features = jax.eval_shape(lambda p: _encode(model, p, batch), params)
    latents = jax.ShapeDtypeStruct((1, FRAMES, *model.latent_shape), np.float32)
    traced = jax.jit(run).trace(params, conditions, features, latents, _schedule())
    assert traced.lower().as_text().count("stablehlo.while") == 1
    scans = [e for _, e in _equations(traced.jaxpr.jaxpr) if e.primitive.name == "scan"]
    assert len(scans) == 1 and scans[0].params["length"] == 3
    return scans[0].params["jaxpr"].jaxpr


def _products(program, name):
    return [(p, e) for p, e in _equations(program) if e.primitive.name == name]


def test_references_are_projected_before_the_loop_and_never_copied_to_the_frames(loop):
    # Every product of the loop that walks over reference tokens is one of attention: with heads.
    products = [e for _, e in _products(loop, "dot_general")]
    over_bank = [e for e in products if any(BANK in v.aval.shape for v in e.invars)]
    assert over_bank, "attention reads no references at all"
    for equation in over_bank:
        (_, _), (heads, _) = equation.params["dimension_numbers"]
        assert heads, f"a projection of reference tokens: {equation}"
    copies = [
        v.aval.shape
        for _, equation in _equations(loop)
        for v in equation.outvars
        if {BANK, HEAD_SIZE} <= set(v.aval.shape) and FRAMES in v.aval.shape
    ]
    assert not copies


def test_a_bfloat16_model_multiplies_bfloat16_numbers(loop):
    for name in ("dot_general", "conv_general_dilated"):
        found = _products(loop, name)
        assert found
        wide = [e for _, e in found if any(v.aval.dtype == np.float32 for v in e.invars)]
        assert not wide, wide[:3]


def test_convolutions_take_pictures_as_they_lie(loop):
    for program, equation in _products(loop, "conv_general_dilated"):
        numbers = equation.params["dimension_numbers"]
        assert numbers.lhs_spec == numbers.out_spec == (0, 3, 1, 2)  # NHWC
        assert numbers.rhs_spec == (3, 2, 0, 1)  # HWIO
        turned = [e for e in program.eqns if e.primitive.name == "transpose"]
        near = {v for e in turned for v in (*e.invars, *e.outvars)}
        assert not near & {v for v in (*equation.invars, *equation.outvars)}


@pytest.fixture(scope="module")
def lean(model):
    """The sampler, compiled at most once for all tests."""

    def run(params, batch, seeds, schedule):
        return sampler.sample(model, params, batch, seeds, schedule, process=PROCESS)

    return jax.jit(run, compiler_options=QUICK)


def test_seeds_guidance_steps_and_masks_are_data(lean, params, batch):
    first = lean(params, batch, jnp.array([1], jnp.uint32), _schedule())
    other = batch | {name: ~batch[name] for name in ("portrait_mask", "attribute_mask")}
    changes = [
        (batch, 2, _schedule()),
        (other, 1, _schedule()),
        (batch, 1, _schedule(guidance=4.0)),
        (batch, 1, _schedule(guidance_interval=(0.5, 1.0))),
        (batch, 1, _schedule(solver="dpm++", guidance_rescale=0.5)),
    ]
    for changed, seed, schedule in changes:
        video = lean(params, changed, jnp.array([seed], jnp.uint32), schedule)
        assert np.isfinite(video).all() and np.abs(video - first).max() > 1e-3
    assert lean._cache_size() == 1


def _literal(model, params, batch, noise, steps):
    """Every step the long way, as Animate Anyone's code takes it; float64 between the steps."""
    banks = []

    def note_banks(call, arguments, keywords, context):
        if context.method_name == "project_references":
            banks.extend(arguments[0])
        return call(*arguments, **keywords)

    def encode(params):
        banks.clear()
        with nn.intercept_methods(note_banks):
            conditions, features = _encode(model, params, batch)
        return list(banks), conditions.context[0], features.keypoints

    def attend(call, arguments, keywords, context):
        """Self-attention of [unconditional, conditional] frames, cross-attention in full."""
        module, name = context.module, context.method_name
        if name == "_attend_context":
            x, tokens = arguments
            attention = module.attn2
            return _read(attention, module.norm2(x), jnp.repeat(tokens, FRAMES, 0))
        if name == "__call__" and context.module.name == "attn1":
            (x,) = arguments
            bank = jnp.repeat(seen.pop(0), len(x), 0)
            mixed = _read(module, x, jnp.concatenate([x, bank], 1))
            return mixed.at[:FRAMES].set(_read(module, x[:FRAMES], x[:FRAMES]))
        return call(*arguments, **keywords)

    def predict(params, banks, token, features, z, t):
        seen.extend(banks)

        def denoise(model):
            pair, t_pair = jnp.concatenate([z, z]), jnp.broadcast_to(t, 2)
            context = jnp.concatenate([jnp.zeros_like(token), token])
            added = jnp.concatenate([features[0]] * 2)
            return model.denoiser(pair, t_pair, context, None, added)

        with nn.intercept_methods(attend):
            without, with_ = jnp.split(model.apply({"params": params}, method=denoise), 2)
        assert not seen
        return without + GUIDANCE * (with_ - without)

    seen = []
    with jax.default_matmul_precision("highest"):
        constant = jax.jit(encode, compiler_options=QUICK)(params)
        step = jax.jit(predict, compiler_options=QUICK)
        z = np.asarray(noise[0], np.float64)
        times = [round(1000 - i * 1000 / steps) - 1 for i in range(steps)]
        for now, after in zip(times, [*times[1:], None], strict=True):
            alpha, following = PROCESS.alphas_cumprod[now], 1.0
            if after is not None:
                following = PROCESS.alphas_cumprod[after]
            v = np.asarray(step(params, *constant, z.astype(np.float32), now), np.float64)
            clean = alpha**0.5 * z - (1 - alpha) ** 0.5 * v
            eps = (1 - alpha) ** 0.5 * z + alpha**0.5 * v
            z = following**0.5 * clean + (1 - following) ** 0.5 * eps
    return z


def _read(attention, x, tokens):
    """Textbook attention: every frame's own keys, all logits at once."""
    query, key, value = (
        y.reshape(*y.shape[:2], attention.heads, -1)
        for y in (attention.to_q(x), attention.to_k(tokens), attention.to_v(tokens))
    )
    weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", query, key) / query.shape[-1] ** 0.5)
    return attention.to_out[0](jnp.einsum("bhqk,bkhd->bqhd", weights, value).reshape(x.shape))


def test_the_lean_sampler_equals_a_literal_one(lean, model, params, batch):
    seeds = jnp.array([1], jnp.uint32)
    noise = sampler.initial_noise(model, PROCESS, seeds, jnp.arange(FRAMES))
    latents = _literal(model, params, batch, noise, 3)
    expected = jax.jit(lambda z: sampler.decode(model, params, z))(latents[None].astype("f4"))
    found = lean(params, batch, seeds, _schedule())
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)
