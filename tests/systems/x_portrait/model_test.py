"""What X-Portrait's model takes, hides and shares; its numbers are compared in tests/parity."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from durian_jax.systems.system import build, check_batch, init_params
from durian_jax.systems.x_portrait.config import XPortraitConfig
from tests.parity import x_portrait_drawn as drawn
from tests.parity.conftest import QUICK

# One level compiles in half the time.
FLAT = {"channels": [8]}


@pytest.fixture(scope="module")
def run():
    """A function of (inputs, z, t, keep, parts) to the prediction of the drawn model."""
    model = drawn.system(**FLAT)
    params = drawn.params(model)

    @functools.partial(jax.jit, static_argnums=4, compiler_options=QUICK)
    def predict(inputs, z, t, keep, parts):
        def method(module):
            clip = module.at_time(module.encode_clip(inputs), t) if parts else None
            frames = module.encode_frames(inputs) if parts else None
            return module.predict(z, t, clip, frames, parts, keep)

        return model.apply({"params": params}, method=method)

    def call(inputs=None, z=None, t=drawn.TIMES, keep=None, parts=model.parts):
        inputs = drawn.batch() if inputs is None else inputs
        return np.asarray(predict(inputs, drawn.noisy() if z is None else z, t, keep, parts))

    return call


def test_a_dropped_clip_is_unconditional_and_the_other_is_not(run):
    """References and controls go together; the context stays."""
    whole, nothing = run(), run(parts=())
    dropped = run(keep=np.array([[True], [False]]))
    np.testing.assert_allclose(dropped[0], whole[0], atol=1e-5)
    np.testing.assert_allclose(dropped[1], nothing[1], atol=1e-5)
    assert np.abs(whole - nothing).max((1, 2, 3, 4)).min() > 0.1


@pytest.mark.parametrize("name", ["portrait", "references", "control", "local_control"])
def test_everything_in_the_batch_is_seen(run, name):
    inputs = drawn.batch()
    inputs[name] = 255 - inputs[name]
    assert np.abs(run(inputs) - run()).max((1, 2, 3, 4)).min() > 1e-3


def test_the_portrait_is_read_at_the_time_of_the_step():
    model = drawn.system(**FLAT)
    params = drawn.params(model)

    @functools.partial(jax.jit, compiler_options=QUICK)
    def told(t):
        def method(module):
            return module.at_time(module.encode_clip(drawn.batch()), t).references[0].key

        return model.apply({"params": params}, method=method)

    early, late = told(jnp.array([900, 900])), told(jnp.array([900, 5]))
    np.testing.assert_array_equal(early[0, 0], late[0, 0])
    assert np.abs(early[0, 1] - late[0, 1]).max() > 1e-3


def test_gradients_reach_all_but_the_dead_parameters():
    """With a context of one token, which attention need not search."""
    model = drawn.system(prompt_tokens=1, **FLAT)
    params = drawn.params(model)
    z = drawn.noisy()
    inputs = {k: v for k, v in drawn.batch().items() if k != "references"}

    @functools.partial(jax.jit, compiler_options=QUICK)
    def gradients(params):
        def loss(params):
            return jnp.square(model.apply({"params": params}, inputs, z, drawn.TIMES)).sum()

        return jax.tree.map(lambda x: jnp.abs(x).max(), jax.grad(loss)(params))

    leaves = jax.tree_util.tree_leaves_with_path(gradients(params))
    silent = {"/".join(key.key for key in path) for path, leaf in leaves if leaf == 0}
    names = {"/".join(key.key for key in path) for path, _ in leaves}
    dead = {name for name in names if any(re.match(p, name) for p in model.dead_parameters())}
    assert silent == dead and any("motion_modules" in name for name in names)


def test_every_frame_has_its_own_time_without_motion_modules():
    model = drawn.system(temporal=False, **FLAT)
    params = drawn.params(model)
    t = np.array([[900, 300, 5], [40, 40, 700]])
    inputs = drawn.batch()

    @functools.partial(jax.jit, compiler_options=QUICK)
    def predict(inputs, z, t):
        return model.apply({"params": params}, inputs, z, t, jnp.array([[True], [False]]))

    whole = predict(inputs, drawn.noisy(), t)
    one = {name: x[:, 1:2] if name.endswith("control") else x for name, x in inputs.items()}
    np.testing.assert_allclose(
        whole[:, 1:2], predict(one, drawn.noisy()[:, 1:2], t[:, 1:2]), atol=2e-5
    )


def test_the_contract_is_what_initialises_it():
    model = drawn.system()
    shapes = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    assert sorted(shapes) == sorted(model.networks)
    batch = {name: np.asarray(x) for name, x in model.blank_batch(2, 3).items()}
    check_batch(batch | {"references": drawn.batch()["references"]}, model, "DATASET")


def test_without_local_control_eyes_and_mouth_alone_are_not_looked_at():
    model, whole = drawn.system(local_control=False, **FLAT), drawn.system(**FLAT)
    params = drawn.params(model)
    assert sorted(params) == sorted(model.networks)
    assert set(drawn.params(whole)) - set(params) == {"local_control"}

    @functools.partial(jax.jit, compiler_options=QUICK)
    def predict(inputs):
        return model.apply({"params": params}, inputs, drawn.noisy(), drawn.TIMES)

    inputs = drawn.batch()
    base = predict(inputs)
    for name, seen in (("local_control", False), ("control", True)):
        changed = predict(inputs | {name: 255 - inputs[name]})
        assert (np.abs(changed - base).max() > 1e-3) == seen
    assert model.align(params).keys() == params.keys()


def test_aligned_encoders_start_as_the_denoiser():
    model = drawn.system(**FLAT)
    params = drawn.params(model)
    aligned = model.align(params)
    kernel = ("down_blocks_0", "resnets_0", "conv1", "kernel")

    def of(tree, network):
        for name in (network, *kernel):
            tree = tree[name]
        return tree

    for network in ("portrait_encoder", "control", "local_control"):
        np.testing.assert_array_equal(of(aligned, network), of(params, "denoiser"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"control_channels": [4, 8, 8]}, "control_channels shrink the picture 4 times"),
        ({"prompt_tokens": 0}, "prompt_tokens=0 of context_dim=6"),
        ({"keypoint_channels": [4]}, "model has no field 'keypoint_channels'"),
        ({"clip": None}, "model has no field 'clip'"),
    ],
)
def test_bad_configs_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        build({"system": "x_portrait", "model": drawn.MODEL | change})


def test_default_config_is_the_published_size():
    config = XPortraitConfig()
    assert (config.max_frames, config.prompt_tokens, config.latent_shape) == (24, 77, (64, 64, 4))
