"""Names, layouts, and a match that lets nothing slip."""

from pathlib import Path

import numpy as np
import pytest

from durian_jax.convert.names import match, rename, to_linen, to_torch, torch_key
from durian_jax.models.temporal import frame_positions
from durian_jax.weights.storage import Stored
from input_pipeline.errors import InputError
from tests.parity import drawn

SHAPES = {
    "conv_in/kernel": (3, 3, 5, 8), "conv_in/bias": (8,),
    "down_blocks_0/attentions_0/proj_in/kernel": (1, 1, 8, 8),
    "down_blocks_0/attentions_0/transformer_blocks_0/attn1/to_out_0/kernel": (8, 4),
    "norm/scale": (8,),
}  # fmt: skip


def _stored(key, array, layout="torch"):
    return Stored(
        Path("unet.safetensors"), key, array.shape, str(array.dtype), lambda: array, layout
    )


@pytest.fixture
def weights():
    shapes = {
        "conv_in.weight": (8, 5, 3, 3), "conv_in.bias": (8,),
        "down_blocks.0.attentions.0.proj_in.weight": (8, 8, 1, 1),
        "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0.weight": (4, 8),
        "norm.weight": (8,),
    }  # fmt: skip
    return {key: _stored(key, drawn.tensor(key, shape)) for key, shape in shapes.items()}


@pytest.mark.parametrize(
    "path,key",
    [
        ("time_embedding/linear_1/kernel", "time_embedding.linear_1.weight"),
        ("up_blocks_1/attentions_2/transformer_blocks_0/ff/net_0/proj/bias",
         "up_blocks.1.attentions.2.transformer_blocks.0.ff.net.0.proj.bias"),
        ("down_blocks_0/resnets_1/norm1/scale", "down_blocks.0.resnets.1.norm1.weight"),
        ("layer3_13/downsample_1/var", "layer3.13.downsample.1.running_var"),
        ("vision_model/embeddings/position_embedding/embedding",
         "vision_model.embeddings.position_embedding.weight"),
        ("vision_model/encoder/layers_7/self_attn/q_proj/kernel",
         "vision_model.encoder.layers.7.self_attn.q_proj.weight"),
        ("vision_model/embeddings/class_embedding", "vision_model.embeddings.class_embedding"),
        ("prelu/weight", "prelu.weight"),
    ],
)  # fmt: skip
def test_torch_names(path, key):
    assert torch_key(path) == key


@pytest.mark.parametrize("shape", [(3, 2, 5, 7), (4, 6), (9,)])
def test_layouts_are_inverse(shape):
    array = drawn.tensor("a", shape)
    there = to_torch(array, "a/kernel")
    assert there.shape == {4: (7, 5, 3, 2), 2: (6, 4), 1: (9,)}[len(shape)]
    np.testing.assert_array_equal(to_linen(there, "a/kernel"), array)
    np.testing.assert_array_equal(to_linen(array, "a/embedding"), array)


def test_every_parameter_gets_its_tensor(weights):
    found = match("denoiser", SHAPES, weights)
    assert found.keys() == SHAPES.keys()
    for path, stored in found.items():
        assert stored.read().shape == stored.shape == SHAPES[path]
    kernel = weights["conv_in.weight"].read()
    np.testing.assert_array_equal(found["conv_in/kernel"].read()[1, 2, 3, 4], kernel[4, 3, 1, 2])


def test_linear_layers_and_1x1_convolutions_are_one(weights):
    key = "down_blocks.0.attentions.0.proj_in.weight"
    square = weights[key].read()[..., 0, 0]
    found = match("denoiser", SHAPES, weights | {key: _stored(key, square)})
    kernel = found["down_blocks_0/attentions_0/proj_in/kernel"]
    np.testing.assert_array_equal(kernel.read(), square.T[None, None])


def test_the_mask_channel_is_added_as_zeros(weights):
    narrow = weights["conv_in.weight"].read()[:, :4]
    weights["conv_in.weight"] = _stored("conv_in.weight", narrow)
    with pytest.raises(InputError, match=r"conv_in.weight is \(8, 4, 3, 3\), the model has \(8, 5"):
        match("denoiser", SHAPES, weights)
    kernel = match("portrait_encoder", SHAPES, weights, "conv_in/kernel")["conv_in/kernel"].read()
    np.testing.assert_array_equal(kernel[:, :, 4], 0)
    np.testing.assert_array_equal(kernel[:, :, :4], to_linen(narrow, "kernel"))


def test_the_difference_is_named_on_one_line(weights):
    weights["conv_in.bias"] = _stored("conv_in.bias", np.zeros(8, np.int64))
    weights["norm.scale"] = weights.pop("norm.weight")
    weights["extra.one"] = _stored("extra.one", np.zeros(3, np.float32))
    with pytest.raises(InputError) as caught:
        match("denoiser", SHAPES, weights)
    line = str(caught.value)
    assert "\n" not in line and line.startswith("unet.safetensors: do not fit denoiser")
    assert "1 missing (norm.weight)" in line
    assert "2 without a place in the model (norm.weight, extra.one)" in line
    assert "conv_in.bias is int64, not float32" in line


def test_long_differences_are_cut():
    shapes = {f"resnets_{i}/bias": (3,) for i in range(40)}
    with pytest.raises(InputError, match=r"40 missing \(resnets.0.bias, .* and 37 more\)"):
        match("denoiser", shapes, {"a.bias": _stored("a.bias", np.zeros(3, np.float32))})


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_position_tables_must_be_ours(weights, dtype):
    key = "down_blocks.0.motion_modules.0.pos_embed.pe"
    table = frame_positions(32, 8)[None].astype(dtype)
    assert match("denoiser", SHAPES, weights | {key: _stored(key, table)}).keys() == SHAPES.keys()
    with pytest.raises(InputError, match=r"pos_embed\.pe holds other positions"):
        match("denoiser", SHAPES, weights | {key: _stored(key, table[:, ::-1])})


def test_two_keys_of_one_meaning(weights):
    with pytest.raises(InputError, match=r"module.conv_in.bias and conv_in.bias both mean"):
        doubled = weights | {"module.conv_in.bias": _stored("module.conv_in.bias", np.zeros(8))}
        rename(doubled, [(r"^module\.", "")])
