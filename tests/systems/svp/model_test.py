"""What the model of Stable Video-Driven Portraits takes, hides and shares; the numbers of its
transformer are compared in tests/parity."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from durian_jax.systems.svp.config import SVPConfig
from durian_jax.systems.system import build, check_batch, init_params
from durian_jax.training import flops
from input_pipeline.errors import InputError
from tests.parameters import fill
from tests.parity import drawn
from tests.parity.conftest import QUICK

MODEL = {
    "resolution": 16, "autoencoder": "patchify", "kl": None, "patch": 2, "max_frames": 4,
    "history": 2, "prompt_tokens": 2, "dtype": "float32",
    "transformer": {
        "layers": 2, "heads": 2, "head_dim": 8, "context_dim": 6, "pooled_dim": 5,
        "positions": 12, "position_base": 12, "dual_layers": [0], "video_layers": [0, 1],
    },
}  # fmt: skip
CLIPS, FRAMES = 2, 3
TIMES = np.float32([801, 57])


def system(**fields):
    values = MODEL | fields
    values["transformer"] = MODEL["transformer"] | fields.get("transformer", {})
    return build({"system": "svp", "model": values})


def params(model):
    """Everything drawn, nothing zero: neither gates nor modulations."""
    return fill(jax.eval_shape(lambda: init_params(model, jax.random.key(0))))


def batch(clips=CLIPS, frames=FRAMES):
    return {
        "portrait": drawn.picture("portrait", (clips, 16, 16, 3)),
        "driving": drawn.picture("driving", (clips, frames, 16, 16, 3)),
        "history": drawn.picture("history", (clips, 2, 16, 16, 3)),
    }


def noisy(frames=FRAMES):
    return drawn.numbers("noisy", (CLIPS, frames, 8, 8, 12)).astype("f4")


@pytest.fixture(scope="module")
def run():
    """A function of (inputs, z, keep, parts, transformer fields) to the prediction."""

    @functools.cache
    def made(parts, fields):
        model = system(transformer=dict(fields))
        weights = params(model)

        def method(module, inputs, z, keep):
            clip = module.encode_clip(inputs)
            if "history" in parts:
                clip["history"] = module.encode_history(module.encode_video(inputs["history"]))
            return module.predict(z, TIMES, clip, module.encode_frames(inputs), parts, keep)

        @functools.partial(jax.jit, compiler_options=QUICK)
        def predict(inputs, z, keep):
            return model.apply({"params": weights}, inputs, z, keep, method=method)

        return predict

    def call(inputs=None, z=None, keep=None, parts=("source", "driving", "history"), **fields):
        inputs, z = batch() if inputs is None else inputs, noisy() if z is None else z
        return np.asarray(made(parts, tuple(fields.items()))(inputs, z, keep))

    return call


def test_a_dropped_part_is_one_that_is_not_there(run):
    """Each takes those after it along."""
    nothing, driven, whole = run(parts=()), run(parts=("source", "driving")), run()
    for first, second in ((whole, driven), (driven, nothing)):
        assert np.abs(first - second).max((1, 2, 3, 4)).min() > 1e-3
    dropped = run(keep=np.array([[False, True, True], [True, True, False]]))
    np.testing.assert_allclose(dropped[0], nothing[0], atol=2e-5)
    np.testing.assert_allclose(dropped[1], driven[1], atol=2e-5)
    kept = run(keep=np.array([[True, False, True], [True, True, True]]))
    assert min(np.abs(kept[0] - other[0]).max() for other in (nothing, driven, whole)) > 1e-3
    np.testing.assert_allclose(kept[1], whole[1], atol=2e-5)


@pytest.mark.parametrize("name", ["portrait", "driving", "history"])
def test_everything_in_the_batch_is_seen(run, name):
    inputs = batch()
    inputs[name] = 255 - inputs[name]
    assert np.abs(run(inputs) - run()).max((1, 2, 3, 4)).min() > 1e-4


@pytest.mark.parametrize("kind", ["full", "factorised"])
def test_frames_read_each_other_and_clips_do_not(run, kind):
    """A change at one place of the last frame of the first clip."""
    z = noisy()
    z[0, -1, 0, 0] += 1
    moved = np.abs(run(z=z, video_attention=kind) - run(video_attention=kind)).max(-1)
    assert moved[0].max((1, 2)).min() > 1e-5 and not moved[1].any()


def test_history_and_frames_are_told_apart_by_their_order(run):
    inputs = batch()
    inputs["history"] = inputs["history"][:, ::-1]
    assert np.abs(run(inputs) - run()).max() > 1e-5
    turned = batch()
    turned["driving"] = turned["driving"][:, ::-1]
    back = run(turned, noisy()[:, ::-1])[:, ::-1]
    assert np.abs(back - run()).max() > 1e-5


def test_gradients_reach_all_but_the_dead_parameters():
    model = system()
    weights, inputs = params(model), batch()

    @functools.partial(jax.jit, compiler_options=QUICK)
    def gradients(weights):
        def loss(weights):
            return jnp.square(model.apply({"params": weights}, inputs, noisy(), TIMES)).sum()

        return jax.tree.map(lambda x: jnp.abs(x).max(), jax.grad(loss)(weights))

    leaves = flatten_dict(gradients(weights), sep="/")
    silent = {name for name, leaf in leaves.items() if leaf == 0}
    dead = {n for n in leaves if any(re.match(p, n) for p in model.dead_parameters())}
    assert silent == dead and dead


def test_every_frame_has_its_own_time_without_video_attention():
    model = system(history=0, transformer={"video_layers": []})
    weights, t = params(model), np.float32([[900, 300, 5], [40, 40, 700]])
    assert model.parts == ("source", "driving") and not model.temporal

    @functools.partial(jax.jit, compiler_options=QUICK)
    def predict(inputs, z, t):
        return model.apply(
            {"params": weights}, inputs, z, t, jnp.array([[True, True], [True, False]])
        )

    inputs = {name: x for name, x in batch().items() if name != "history"}
    other = t.copy()
    other[0, 1] = 450
    moved = np.abs(predict(inputs, noisy(), other) - predict(inputs, noisy(), t)).max((2, 3, 4))
    assert moved[0, 1] > 1e-3 and (moved > 0).sum() == 1


def test_the_contract_is_what_initialises_it():
    model = system()
    shapes = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    assert sorted(shapes) == sorted(model.networks)
    blank = {name: np.asarray(x) for name, x in model.blank_batch(2, 3).items()}
    check_batch(blank, model, "DATASET")
    del blank["history"]
    with pytest.raises(InputError, match="DATASET: the batch has no 'history', uint8"):
        check_batch(blank, model, "DATASET")
    del blank["video"]  # as at inference
    check_batch(blank, model, "inputs")
    without = jax.eval_shape(lambda: init_params(system(history=0), jax.random.key(0)))
    assert jax.tree.map(np.shape, without) == jax.tree.map(np.shape, shapes)


def test_work_of_a_step_by_hand():
    """A frame's products at full size but for the layers, against the count of the jaxpr."""
    fields = {"layers": 2, "dual_layers": [0], "video_layers": [0, 1]}
    model = build({"system": "svp", "model": {"transformer": fields, "dtype": "float32"}})
    z = jax.ShapeDtypeStruct((1, 4, 64, 64, 16), jnp.float32)
    weights = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    clip = {"source": jax.ShapeDtypeStruct((1, 1, 64, 64, 16), jnp.float32)}

    def predict(weights, z, clip):
        return model.apply(
            {"params": weights}, z, jnp.zeros(1), clip, z, ("source", "driving"), method="predict"
        )

    found = flops.count(predict, weights, z, clip).model
    frames, wide, seen, text, width = 4, 3 * 1024, 3 * 1024 + 333, 333, 1536
    linear = 24 * width**2  # a token's projections and feed-forward
    each = linear * (2 * wide + 2 * text)  # both streams, in both blocks
    each -= text * (18 + 2) * width**2  # but for the last block's text
    each += 8 * width**2 * wide + 2 * 8 * width**2 * 1024  # second attention, and video
    each += 2 * 2 * seen**2 * width + 2 * 2 * wide * seen * width
    each += 4 * wide**2 * width + 2 * 4 * 1024 * (1024 * frames) * width
    assert abs(found / (frames * each) - 1) < 0.01


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"history": 5}, "history=5: use 0 to max_frames=4"),
        ({"transformer": {"video_layers": []}}, "history=2 is read by video attention alone"),
        ({"transformer": {"video_layers": [2]}}, "video_layers has 2: use 0 to 1"),
        ({"transformer": {"video_attention": "all"}}, "video_attention='all': choose full or fac"),
        ({"transformer": {"positions": 11}}, "positions=11 are too few for 3 pictures of 4"),
        ({"resolution": 18}, "resolution=18 is not a multiple of 4, the pixels of a token"),
        ({"prompt_tokens": 0}, "prompt_tokens=0"),
        ({"channels": [4]}, "model has no field 'channels'"),
    ],
)
def test_bad_configs_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        system(**change)


def test_default_config_is_the_published_size():
    config = SVPConfig()
    assert (config.max_frames, config.history, config.latent_shape) == (16, 3, (64, 64, 16))
    assert config.transformer.width == 1536
