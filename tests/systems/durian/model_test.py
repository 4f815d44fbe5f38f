"""The invariants of the method (reference pictures in, frames out), on a model of toy size."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from durian_jax.systems.durian.config import DurianConfig
from durian_jax.systems.durian.model import Durian, Frames

TINY = {
    "resolution": 16,
    "autoencoder": "patchify",
    "patch": 4,
    "channels": [8],
    "layers_per_block": 1,
    "attention_levels": [0],
    "heads": 2,
    "context_dim": 6,
    "norm_groups": 4,
    "temporal_heads": 2,
    "max_frames": 4,
    "keypoint_channels": [4, 4, 8],
    "clip": {
        "hidden_size": 8,
        "intermediate_size": 8,
        "layers": 1,
        "heads": 2,
        "image_size": 8,
        "patch_size": 4,
        "projection_dim": 6,
    },
    "arcface": {"layers": [1], "widths": [4], "image_size": 8, "embedding": 8},
    "dtype": "float32",
}
CONFIG = DurianConfig.from_dict(TINY)
B, F, N, SIZE = 2, 2, 2, TINY["resolution"]
SITES = 4


class Model:
    """A Durian of toy size with random parameters, every method compiled once."""

    def __init__(self, config, params):
        self.module, self.params = Durian(config), params
        self._conditions = jax.jit(self._method("encode_clip"))
        self._predict = jax.jit(self._method("predict"), static_argnums=5)

    def _method(self, name):
        return lambda params, *args: self.module.apply({"params": params}, *args, method=name)

    def conditions(self, batch):
        return self._conditions(self.params, batch)

    def denoise(self, inputs, conditions, keep=None, alpha=None):
        latents, timesteps, features = inputs
        parts = () if conditions is None else self.module.parts
        keep = None if keep is None else keep[:, None]
        frames = Frames(features, None if alpha is None else np.float32(alpha))
        return np.asarray(
            self._predict(self.params, latents, timesteps, conditions, frames, parts, keep)
        )


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)

    def picture(*shape):
        return rng.integers(0, 256, (*shape, 3), dtype=np.uint8)

    def mask(*shape):
        return rng.integers(0, 2, shape, dtype=np.uint8)

    return {
        "video": picture(B, F, SIZE, SIZE),
        "keypoints": rng.uniform(0, SIZE, (B, F, 478, 2)).astype(np.float32),
        "portrait": picture(B, SIZE, SIZE),
        "portrait_mask": mask(B, SIZE, SIZE),
        "attribute": picture(B, N, SIZE, SIZE),
        "attribute_mask": mask(B, N, SIZE, SIZE),
        "portrait_keypoints": rng.uniform(0, SIZE, (B, 478, 2)).astype(np.float32),
        "attribute_keypoints": rng.uniform(0, SIZE, (B, N, 478, 2)).astype(np.float32),
        "face": picture(B, 8, 8),
    }


@pytest.fixture(scope="module")
def inputs():
    """Latents, time steps, keypoint features."""
    rng = np.random.default_rng(1)
    latents = rng.standard_normal((B, F, *CONFIG.latent_shape)).astype(np.float32)
    features = rng.standard_normal((B, F, *CONFIG.latent_shape[:2], 8)).astype(np.float32)
    return latents, np.array([20, 700]), features


@pytest.fixture(scope="module")
def params(fill, batch, inputs):
    config = dataclasses.replace(CONFIG, temporal=True)
    init = Durian(config).init
    return fill(jax.eval_shape(init, jax.random.key(0), batch, *inputs[:2])["params"])


@pytest.fixture(scope="module")
def model(params):
    """Stage 1: no motion modules."""
    return Model(CONFIG, params)


def _attributes(batch, *indices):
    """The batch with only these attribute references, in this order."""
    names = ("attribute", "attribute_mask", "attribute_keypoints")
    chosen = {name: batch[name][:, list(indices)] for name in names}
    return batch | chosen


def _towards(batch):
    """The batch that interpolates from the first attribute to the second."""
    second = _attributes(batch, 1)
    names = [name for name in batch if name.startswith("attribute")]
    return _attributes(batch, 0) | {"towards": {name: second[name] for name in names}}


def test_every_part_has_its_parameters_and_only_those(params):
    assert sorted(params) == [
        "arcface", "attribute_encoder", "clip", "denoiser", "face_projection", "keypoint_encoder",
        "portrait_encoder",
    ]  # fmt: skip


def test_references_are_portrait_and_attribute_tokens_at_every_site(model, batch):
    conditions = model.conditions(batch)
    cells = CONFIG.latent_shape[0] * CONFIG.latent_shape[1]
    assert [site.key.shape for site in conditions.references] == [
        (1, B, (1 + N) * cells, 2, 4)
    ] * SITES
    # One attribute less takes away its tokens and leaves the others untouched, but for the order in
    # which a processor adds up batches of other sizes: 3e-6 on some. Another's differ by far more.
    fewer = model.conditions(_attributes(batch, 1))
    for many, few in zip(conditions.references, fewer.references):
        near = {"rtol": 0, "atol": 1e-5}
        np.testing.assert_allclose(many.key[:, :, :cells], few.key[:, :, :cells], **near)
        np.testing.assert_allclose(many.key[:, :, 2 * cells :], few.key[:, :, cells:], **near)
        assert np.abs(many.key[:, :, cells : 2 * cells] - few.key[:, :, cells:]).max() > 1e-2


@pytest.mark.parametrize("name", ["portrait", "portrait_mask", "attribute", "attribute_mask"])
def test_every_reference_input_reaches_the_output(model, batch, inputs, name):
    flipped = batch | {name: np.flip(batch[name], axis=-1 if "mask" in name else -2)}
    plain, other = (model.denoise(inputs, model.conditions(b)) for b in (batch, flipped))
    assert np.abs(plain - other).max() > 1e-3


def test_the_order_of_attributes_does_not_matter(model, batch, inputs):
    both = model.denoise(inputs, model.conditions(batch))
    swapped = model.denoise(inputs, model.conditions(_attributes(batch, 1, 0)))
    np.testing.assert_allclose(swapped, both, rtol=0, atol=2e-6)
    twice = model.denoise(inputs, model.conditions(_attributes(batch, 0, 0)))
    assert np.abs(twice - both).max() > 1e-3


def test_padding_of_the_attributes_changes_nothing(model, batch, inputs):
    three = _attributes(batch, 0, 1, 0)
    bare = model.denoise(inputs, model.conditions(three))
    padded = _attributes(batch, 0, 1, 0, 1)
    counted = model.conditions(padded | {"attribute_count": np.full(B, 3, np.int32)})
    np.testing.assert_allclose(model.denoise(inputs, counted), bare, rtol=0, atol=2e-6)
    assert np.abs(model.denoise(inputs, model.conditions(padded)) - bare).max() > 1e-3
    # Each clip has a number of its own; the program is the same.
    mixed = model.denoise(
        inputs, model.conditions(padded | {"attribute_count": np.array([1, 3], np.int32)})
    )
    alone = model.denoise(inputs, model.conditions(_attributes(batch, 0)))
    np.testing.assert_allclose(mixed[0], alone[0], rtol=0, atol=2e-6)
    np.testing.assert_allclose(mixed[1], bare[1], rtol=0, atol=2e-6)


def test_interpolation_ends_at_the_single_attributes(model, batch, inputs):
    ends = [model.denoise(inputs, model.conditions(_attributes(batch, i))) for i in (0, 1)]
    assert np.abs(ends[0] - ends[1]).max() > 1e-3
    both = model.conditions(_towards(batch))
    for alpha in (0, 1):
        out = model.denoise(inputs, both, alpha=np.full((B, F), alpha))
        np.testing.assert_allclose(out, ends[alpha], rtol=0, atol=2e-6)
    middle = model.denoise(inputs, both, alpha=np.full((B, F), 0.5))
    assert min(np.abs(middle - end).max() for end in ends) > 1e-3


def test_interpolation_may_change_from_clip_to_clip_and_frame_to_frame(model, batch, inputs):
    first, second = (model.conditions(_attributes(batch, i)) for i in (0, 1))
    ends = np.stack([model.denoise(inputs, first), model.denoise(inputs, second)])
    both, alpha = model.conditions(_towards(batch)), np.array([[0, 1], [1, 1]])
    per_frame = model.denoise(inputs, both, alpha=alpha)
    expected = ends[alpha, [[0], [1]], [[0, 1], [0, 1]]]
    np.testing.assert_allclose(per_frame, expected, rtol=0, atol=2e-6)
    # A window over the clip takes along what belongs to its frames.
    last = tuple(x[:, [1]] if x.ndim > 1 else x for x in inputs)
    window = model.denoise(last, both, alpha=alpha[:, [1]])
    np.testing.assert_allclose(window, per_frame[:, [1]], rtol=0, atol=2e-6)


def test_interpolation_needs_equal_numbers_of_references(model, batch):
    others = {name: batch[name] for name in batch if name.startswith("attribute")}
    with pytest.raises(ValueError, match="banks of 32 and 48 tokens"):
        model.conditions(_attributes(batch, 0) | {"towards": others})


def test_a_dropped_clip_is_unconditional(model, batch, inputs):
    conditions = model.conditions(batch)
    kept, nothing = model.denoise(inputs, conditions), model.denoise(inputs, None)
    assert np.abs(kept - nothing).max() > 1e-2
    out = model.denoise(inputs, conditions, np.array([True, False]))
    np.testing.assert_allclose(out[0], kept[0], rtol=0, atol=2e-6)
    np.testing.assert_allclose(out[1], nothing[1], rtol=0, atol=2e-6)


def test_stage_two_starts_as_stage_one_frame_by_frame(params, model, batch, inputs):
    """Fresh motion modules, i.e. with the zero output they are initialised with."""
    stage_two = Model(dataclasses.replace(CONFIG, temporal=True), params)
    conditions = model.conditions(batch)
    plain = model.denoise(inputs, conditions)
    moving = stage_two.denoise(inputs, conditions)
    assert np.abs(moving - plain).max() > 1e-2

    def fresh(path, leaf):
        names = [key.key for key in path]
        inside = any("motion_modules" in name for name in names) and "proj_out" in names
        return np.zeros_like(leaf) if inside else leaf

    stage_two.params = jax.tree_util.tree_map_with_path(fresh, params)
    # Two programs that XLA fuses in its own way each: rounding differs, nothing else.
    error = stage_two.denoise(inputs, conditions) - plain
    assert np.linalg.norm(error) < 3e-7 * np.linalg.norm(plain)
    # Stage 1 treats frames as pictures of their own.
    for frame in range(F):
        alone = (inputs[0][:, [frame]], inputs[1], inputs[2][:, [frame]])
        out = model.denoise(alone, conditions)
        np.testing.assert_allclose(out, plain[:, [frame]], rtol=0, atol=2e-6)


def test_gradients_reach_all_but_the_dead_parameters(fill, batch, inputs):
    """In training, where a clip has one attribute photo."""
    model = Durian(dataclasses.replace(CONFIG, temporal=True))
    batch = {name: x[:, :1] if name.startswith("attribute") else x for name, x in batch.items()}
    params = fill(jax.eval_shape(model.init, jax.random.key(0), batch, *inputs[:2]))

    @jax.jit
    def gradients(params):
        return jax.grad(lambda p: jnp.square(model.apply(p, batch, *inputs[:2])).sum())(params)

    leaves = jax.tree_util.tree_leaves_with_path(gradients(params)["params"])
    largest = {"/".join(key.key for key in path): np.abs(leaf).max() for path, leaf in leaves}
    largest = {n: x for n, x in largest.items() if not n.startswith(("clip/", "arcface/"))}
    assert all(np.isfinite(value) for value in largest.values())
    silent = {name for name, value in largest.items() if value == 0}
    dead = {n for n in largest if any(re.match(p, n) for p in model.dead_parameters())}
    assert silent == dead and any("motion_modules" in name for name in largest)


def test_bfloat16_keeps_float32_parameters_latents_and_output(batch, inputs):
    model = Durian(DurianConfig.from_dict(TINY | {"dtype": "bfloat16"}))
    out, params = jax.eval_shape(model.init_with_output, jax.random.key(0), batch, *inputs[:2])
    latents = jax.eval_shape(
        lambda params: model.apply(params, batch["video"], method="encode_video"), params
    )
    assert {leaf.dtype for leaf in jax.tree.leaves((out, params, latents))} == {
        jnp.dtype("float32")
    }
    conditions = jax.eval_shape(
        lambda params: model.apply(params, batch, method="encode_clip"), params
    )
    assert conditions.references[0].key.dtype == jnp.bfloat16


def test_video_survives_the_latents(model, batch):
    variables = {"params": model.params}
    latents = model.module.apply(variables, batch["video"], method="encode_video")
    assert latents.shape == (B, F, *CONFIG.latent_shape)
    video = model.module.apply(variables, latents, method="decode_video")
    np.testing.assert_array_equal(np.round((video + 1) * 127.5), batch["video"])


def test_default_config_is_the_full_size():
    config = DurianConfig()
    assert config.latent_shape == (64, 64, 4)
    assert config == DurianConfig.from_dict({})
    # Parts take the model's dtype unless they name their own.
    mixed = DurianConfig.from_dict({"dtype": "float32", "clip": {"dtype": "bfloat16"}})
    assert (mixed.kl.dtype, mixed.clip.dtype) == ("float32", "bfloat16")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resolution": 18}, "resolution=18 is not a multiple of 4"),
        ({"channels": [8, 8, 8, 8]}, "resolution=16 is not a multiple of 32"),
        (
            {"patch": 8},
            "keypoint_channels shrink the picture 4 times, but a latent cell is 8 pixels",
        ),
        ({"reference_encoders": 3}, "reference_encoders=3: use 2 or 1"),
        ({"reference_encoders": 1}, "takes no contexts: set clip and arcface to None"),
        ({"autoencoder": "vq"}, "autoencoder must be 'kl', 'patchify' or 'cosine', not 'vq'"),
        ({"context_dim": 8}, "clip.projection_dim=6 differs from context_dim=8"),
        ({"heads": 3}, "heads=3 does not divide the width 8"),
        ({"autoencoder": "kl", "kl": None}, "autoencoder 'kl' needs its shape in kl"),
        ({"temporal": True, "temporal_heads": 3}, "temporal_heads=3 does not divide the width 8"),
        ({"dtype": "half"}, "dtype must be 'bfloat16' or 'float32', not 'half'"),
        ({"chanels": [8]}, "model has no field 'chanels'; it has resolution, "),
        ({"clip": {"depth": 2}}, "model.clip has no field 'depth'; it has hidden_size, "),
    ],
)
def test_bad_configs_are_refused_in_one_line(change, message):
    with pytest.raises(ValueError, match=message) as error:
        DurianConfig.from_dict(TINY | change)
    assert "\n" not in str(error.value)


def test_keypoints_of_references_reach_their_own_tokens_where_asked_for(fill, batch, inputs, model):
    config = dataclasses.replace(
        CONFIG, context_dim=0, clip=None, arcface=None, face_coordinates=True,
        reference_keypoints=True,
    )  # fmt: skip
    shapes = jax.eval_shape(Durian(config).init, jax.random.key(0), batch, *inputs[:2])["params"]
    aware, cells = Model(config, fill(shapes)), CONFIG.latent_shape[0] * CONFIG.latent_shape[1]
    places = {"portrait_keypoints": slice(0, cells), "attribute_keypoints": slice(cells, None)}
    for name, own in places.items():
        moved = batch | {name: batch[name] + 3}
        before, after = (aware.conditions(x).references[0].key for x in (batch, moved))
        change = np.abs(np.asarray(after - before)).max((0, 1, 3, 4))
        assert change[own].min() > 1e-3
        assert np.delete(change, np.arange(len(change))[own]).max() == 0
        plain, again = (model.conditions(x).references[0].key for x in (batch, moved))
        np.testing.assert_array_equal(plain, again)


def test_aligned_parameters_start_encoders_as_the_denoiser_and_keys_as_queries(params):
    aligned = Durian(CONFIG).align(params)
    assert jax.tree.structure(aligned) == jax.tree.structure(params)
    for encoder in ("portrait_encoder", "attribute_encoder"):
        one, other = aligned[encoder], aligned["denoiser"]
        block = one["mid_block"]["attentions_0"]["transformer_blocks_0"]["attn1"]
        np.testing.assert_array_equal(block["to_k"]["kernel"], block["to_q"]["kernel"])
        jax.tree.map(np.testing.assert_array_equal, one["mid_block"], {
            name: other["mid_block"][name] for name in one["mid_block"]
        })  # fmt: skip
        # The mask channel has no like in the denoiser.
        kernel, own = one["conv_in"]["kernel"], params[encoder]["conv_in"]["kernel"]
        np.testing.assert_array_equal(kernel[:, :, :-1], np.float32(other["conv_in"]["kernel"]))
        np.testing.assert_array_equal(kernel[:, :, -1], np.float32(own[:, :, -1]))
    motion = params["denoiser"]["mid_block"]["motion_modules_0"]
    jax.tree.map(
        np.testing.assert_array_equal, aligned["denoiser"]["mid_block"]["motion_modules_0"], motion
    )


@pytest.mark.parametrize("change", [{"reference_masks": False}, {"reference_encoders": 1}])
def test_ablations_leave_out_a_channel_or_a_network(fill, batch, inputs, change):
    config = dataclasses.replace(CONFIG, context_dim=0, clip=None, arcface=None, **change)
    shapes = jax.eval_shape(Durian(config).init, jax.random.key(0), batch, *inputs[:2])["params"]
    other = Model(config, fill(shapes))
    channels = CONFIG.latent_shape[2] + config.reference_masks
    assert shapes["portrait_encoder"]["conv_in"]["kernel"].shape[2] == channels
    assert ("attribute_encoder" in shapes) == (config.reference_encoders == 2)
    assert set(other.module.networks) == set(shapes)
    masks = {name: 1 - batch[name] for name in ("portrait_mask", "attribute_mask")}
    plain, changed = (other.denoise(inputs, other.conditions(b)) for b in (batch, batch | masks))
    assert (np.abs(plain - changed).max() > 1e-3) == config.reference_masks
