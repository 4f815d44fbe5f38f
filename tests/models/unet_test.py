import dataclasses
import functools
import hashlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from durian_jax.models.attention import References
from durian_jax.models.unet import UNet, UNetConfig

TINY = UNetConfig(
    in_channels=3,
    out_channels=3,
    block_out_channels=(8, 16),
    layers_per_block=1,
    attention_levels=(1,),
    heads=2,
    context_dim=6,
    norm_groups=4,
    temporal=True,
    temporal_heads=2,
    max_frames=4,
    dtype="float32",
)
SITES = 4  # One on the way down, the middle, two on the way up.


def _abstract(config, method=None):
    """Parameter shapes, {path: shape}."""
    size = 8 * 2 ** len(config.block_out_channels)
    x = jax.ShapeDtypeStruct((1, size, size, config.in_channels), jnp.float32)
    context = jax.ShapeDtypeStruct((1, 1, config.context_dim), jnp.float32)
    variables = jax.eval_shape(
        lambda x, context: UNet(config).init(
            jax.random.key(0), x, jnp.zeros(1, jnp.int32), context, method=method
        ),
        x,
        context if config.context_dim else None,
    )
    leaves = jax.tree_util.tree_leaves_with_path(variables["params"])
    return {"/".join(key.key for key in path): leaf.shape for path, leaf in leaves}


def _count(shapes):
    return sum(int(np.prod(shape)) for shape in shapes.values())


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 4, 4, 3)).astype(np.float32)
    context = rng.standard_normal((2, 2, 6)).astype(np.float32)
    return x, np.array([10, 900]), context


@pytest.fixture(scope="module")
def spatial():
    """The compiled network without its motion modules."""
    return jax.jit(UNet(dataclasses.replace(TINY, temporal=False)).apply)


@pytest.fixture(scope="module")
def params(fill, inputs):
    return fill(jax.eval_shape(UNet(TINY).init, jax.random.key(0), *inputs))


def test_full_size_parameter_counts():
    """Counts of Stable Diffusion 1.5 and of AnimateDiff v2's motion modules."""
    denoiser = _abstract(UNetConfig(temporal=True))
    motion = {name: shape for name, shape in denoiser.items() if "motion_modules" in name}
    assert _count(denoiser) - _count(motion) == 859_520_964
    assert _count(motion) == 453_209_280
    assert len({name.split("/norm/")[0] for name in motion if "/norm/" in name}) == 21
    # No output head; the mask channel adds 3 * 3 * 320 weights to the first convolution.
    encoder = _abstract(UNetConfig(in_channels=5, out_channels=0), "capture")
    assert _count(encoder) == 859_508_800 + 2_880


def test_full_size_names_and_shapes_are_those_of_diffusers():
    """Checkpoint conversion is a table only as long as this holds.

    The digest covers the 1,232 names and shapes of diffusers' UNetMotionModel at this size, in
    torch's layout; it was compared with a published checkpoint's key list. If it changes, a
    module or parameter was renamed, added or reshaped: undo that, or extend durian_jax/convert
    first and then replace the digest by the one printed here.
    """

    def torch_layout(name, shape):
        *modules, leaf = name.split("/")
        leaf = {"kernel": "weight", "scale": "weight"}.get(leaf, leaf)
        modules = [re.sub(r"(?<!linear)_(\d+)$", r".\1", module) for module in modules]
        if len(shape) == 4:
            shape = (shape[3], shape[2], *shape[:2])
        return (
            ".".join([*modules, leaf]) + " " + str(list(shape[::-1] if len(shape) == 2 else shape))
        )

    lines = sorted(torch_layout(*item) for item in _abstract(UNetConfig(temporal=True)).items())
    assert len(lines) == 1232
    assert "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight [320, 768]" in lines
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == (
        "c5bf818a0de3a1ff80e15e018ff7a34eaac65a691afb6dff0e5d750deeea2e77"
    )


def test_no_context_means_no_cross_attention_parameters():
    names = _abstract(dataclasses.replace(TINY, context_dim=0))
    assert not [name for name in names if "attn2" in name and "motion_modules" not in name]
    assert not [name for name in names if "norm2" in name and "attentions" in name]


def test_captured_tokens_reach_the_matching_site(params, inputs, spatial):
    """Self-attention over a bank equals plain attention on the concatenated tokens.

    Lending a network its own tokens doubles every key, which must change nothing; lending those
    of another picture must.
    """
    model = UNet(dataclasses.replace(TINY, temporal=False))
    x, timesteps, context = inputs

    @jax.jit
    def with_bank(params, lender):
        bank = model.apply(params, lender, timesteps, context, method="capture")
        tokens = model.apply(params, bank, method="project_references")
        tokens = jax.tree.map(lambda x: x[None], tokens)
        references = tuple(References(site, jnp.ones((1, 4, 1))) for site in tokens)
        return bank, model.apply(params, x, timesteps, context, references)

    alone = spatial(params, x, timesteps, context)
    bank, doubled = with_bank(params, x)
    assert [tokens.shape for tokens in bank] == [(4, 4, 16)] * SITES
    np.testing.assert_allclose(doubled, alone, rtol=0, atol=2e-6)
    _, other = with_bank(params, x[::-1])
    assert np.abs(other - alone).max() > 0.01


CONTROL = dataclasses.replace(
    TINY, block_out_channels=(8,), attention_levels=(0,), temporal=False, out_channels=0,
    control_channels=(3, 5),
)  # fmt: skip


@pytest.fixture(scope="module")
def trunk(inputs, fill):
    """What makes an untrained control trunk, with the rest of it already filled, as ControlNets
    start from a trained network; its residuals."""
    module, (x, timesteps, context) = UNet(CONTROL), inputs
    pictures = np.random.default_rng(1).random((4, 8, 8, 3), np.float32)
    call = x, timesteps, pictures, context

    def residuals(module, x, timesteps, pictures, context):
        return module.control(x, timesteps, module.encode_pictures(pictures), context)

    init = functools.partial(module.init, jax.random.key(0), *call, method=residuals)
    params = fill(jax.eval_shape(init))["params"]
    # Under jit only what is returned gets drawn.
    own = jax.jit(lambda: {k: v for k, v in init()["params"].items() if "controlnet" in k})()
    run = jax.jit(functools.partial(module.apply, method=residuals))
    return own, run({"params": params | own}, *call), params


def test_an_untrained_control_trunk_changes_nothing(trunk):
    own, residuals, params = trunk
    # After the first convolution, the only layer, and the middle block.
    assert [residual.shape for residual in residuals] == [(4, 4, 4, 8)] * 3
    assert not any(residual.any() for residual in residuals)
    assert sorted(own) == [
        "controlnet_cond_embedding", "controlnet_down_blocks_0", "controlnet_down_blocks_1",
        "controlnet_mid_block",
    ]  # fmt: skip
    assert not own["controlnet_cond_embedding"]["conv_out"]["kernel"].any()
    assert own["controlnet_cond_embedding"]["conv_in"]["kernel"].any()
    assert not any(name.startswith(("up_blocks", "conv_out", "conv_norm")) for name in params)


def test_residuals_reach_the_output_each_on_its_own(params, inputs):
    """Zero residuals change nothing; each of the five moves the output, and another way."""
    model = UNet(dataclasses.replace(TINY, temporal=False))
    x, timesteps, context = inputs
    shapes = [(4, 4, 4, 8)] * 2 + [(4, 2, 2, 8)] + [(4, 2, 2, 16)] * 2
    which = np.eye(6, 5, dtype=np.float32)  # the last row is none of them

    @jax.jit
    def outputs(params):
        def one(row):
            residuals = tuple(scale * jnp.ones(shape) for scale, shape in zip(row, shapes))
            return model.apply(params, x, timesteps, context, residuals=residuals)

        return jax.lax.map(one, which), model.apply(params, x, timesteps, context)

    moved, alone = outputs(params)
    np.testing.assert_allclose(moved[5], alone, rtol=0, atol=2e-6)
    for i in range(5):
        assert all(np.abs(moved[i] - moved[j]).max() > 0.01 for j in range(6) if j != i)


def test_residuals_of_another_trunk_are_refused(trunk, params, inputs):
    model = UNet(dataclasses.replace(TINY, temporal=False))
    with pytest.raises(ValueError, match="3 residuals, but 5 fit"):
        jax.eval_shape(lambda: model.apply(params, *inputs, residuals=trunk[1]))


def test_frames_are_independent_without_motion_modules(params, inputs, spatial):
    x, timesteps, context = inputs
    other = x.copy()
    other[1] += 1  # The second frame of the first clip.
    changed = np.abs(
        spatial(params, other, timesteps, context) - spatial(params, x, timesteps, context)
    ).max((1, 2, 3))
    assert changed[1] > 0.01
    assert changed[[0, 2, 3]].max() == 0


def _loss(config, inputs):
    return lambda params: jnp.square(UNet(config).apply(params, *inputs)).sum()


def _rematerialised(config, inputs, params):
    """Number of rematerialised modules in the traced program."""
    program = str(jax.make_jaxpr(_loss(config, inputs))(params))
    return len(re.findall(r"\b(?:checkpoint|remat\d?)\[", program))


def test_remat_covers_the_levels_it_names(params, inputs):
    """Residual blocks, transformers and motion modules; the middle goes with the last level."""
    counts = [
        _rematerialised(dataclasses.replace(TINY, remat=remat), inputs, params)
        for remat in ((), ("full", "none"), ("none", "attention"), ("full", "full"))
    ]
    # Level 0: 3 residual blocks, 3 motion modules. Level 1: 3 transformers more, and the middle's
    # two residual blocks, transformer and motion module.
    assert counts == [0, 6, 13, 19]


def test_remat_keeps_less_for_the_same_loss_and_gradients(fill, inputs):
    config = dataclasses.replace(
        TINY, block_out_channels=(8,), attention_levels=(0,), context_dim=0
    )
    params = fill(jax.eval_shape(UNet(config).init, jax.random.key(0), *inputs))
    kept, value, grads = {}, None, None
    for policy in ("none", "attention", "full"):
        loss = _loss(dataclasses.replace(config, remat=(policy,)), inputs)
        residuals = jax.eval_shape(lambda p, loss=loss: jax.vjp(loss, p)[1], params)
        kept[policy] = sum(leaf.size for leaf in jax.tree.leaves(residuals))
        value_again, grads_again = jax.jit(jax.value_and_grad(loss))(params)
        if policy == "none":
            value, grads = value_again, grads_again
        np.testing.assert_allclose(value_again, value, rtol=1e-5)
        largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(grads))
        for one, other in zip(jax.tree.leaves(grads_again), jax.tree.leaves(grads)):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6 * largest)
    assert kept["none"] > 2 * kept["attention"] > 2 * kept["full"]


def test_bfloat16_computes_from_float32_parameters_to_float32_output(params, inputs, spatial):
    model = UNet(dataclasses.replace(TINY, temporal=False, dtype="bfloat16"))
    fresh = jax.eval_shape(model.init, jax.random.key(0), *inputs)
    assert {leaf.dtype for leaf in jax.tree.leaves(fresh)} == {jnp.dtype("float32")}
    out = jax.jit(model.apply)(params, *inputs)
    exact = spatial(params, *inputs)
    assert out.dtype == jnp.float32
    error = np.sqrt(np.square(out - exact).mean() / np.square(exact).mean())
    assert 1e-4 < error < 0.03


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm_groups": 3}, "norm_groups=3 does not divide the width 8"),
        ({"heads": 5}, "heads=5 does not divide the width 8"),
        ({"temporal_heads": 3}, "temporal_heads=3 does not divide the width 8"),
        (
            {"attention_levels": (0, 2)},
            r"attention_levels names level 2, but there are levels 0..1",
        ),
        ({"remat": ("full",)}, r"name one of none, full, attention for each of 2 levels"),
        ({"remat": ("full", "half")}, r"name one of"),
        ({"control_channels": (3, 5)}, "a control trunk has no output: out_channels=3"),
        ({"dtype": "float16"}, "dtype must be 'bfloat16' or 'float32', not 'float16'"),
    ],
)
def test_bad_shapes_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **change)
