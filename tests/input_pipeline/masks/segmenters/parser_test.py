import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from input_pipeline.errors import InputError
from input_pipeline.masks import segmenters
from input_pipeline.masks.segmenters.classes import CLASS_MAPS

HAIR = frozenset({"hair"})
NUMBERS = {"float32": onnx.TensorProto.FLOAT, "uint8": onnx.TensorProto.UINT8}


def save_onnx(path, count, hair, level=0.5, shape=(None, 3, None, None), number="float32", extra=0):
    """A network whose class `hair` beats the others where its input is redder than `level`.

    shape: of its input, of 3 or 4 channels. extra: outputs of another kind that come first.
    """
    channels = 4 if 4 in shape[1:] else 3
    weights = np.zeros((count, channels, 1, 1), np.float32)
    weights[hair, 0] = 1
    weights[hair, 3:] = 100  # a fourth channel that is not zero makes all of it hair
    bias = np.where(np.arange(count) == hair, 0, level).astype(np.float32)
    nodes, last = [], "image"
    if number != "float32":
        nodes.append(helper.make_node("Cast", [last], ["float"], to=onnx.TensorProto.FLOAT))
        last = "float"
    if shape[3] in (3, 4):
        nodes.append(helper.make_node("Transpose", [last], ["first"], perm=[0, 3, 1, 2]))
        last = "first"
    nodes.append(helper.make_node("Conv", [last, "weights", "bias"], ["scores"]))
    outputs = [helper.make_tensor_value_info("scores", NUMBERS["float32"], [None] * 4)]
    for i in range(extra):
        nodes.append(helper.make_node("GlobalAveragePool", ["scores"], [f"extra{i}"]))
        nodes.append(helper.make_node("Flatten", [f"extra{i}"], [f"flat{i}"]))
        info = helper.make_tensor_value_info(f"flat{i}", NUMBERS["float32"], [None] * 2)
        outputs.insert(0, info)
    image = helper.make_tensor_value_info("image", NUMBERS[number], shape)
    constants = [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(bias, "bias")]
    graph = helper.make_graph(nodes, "parser", [image], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return path


def save_tflite(path, count, hair, level=0.5, side=32, channels=3):
    """The same as TensorFlow Lite: one 1 x 1 convolution, NHWC."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model, graph = schema.ModelT(), schema.SubGraphT()
    weights = np.zeros((count, 1, 1, channels), np.float32)
    weights[hair, ..., 0] = 1
    weights[hair, ..., 3:] = 100
    bias = np.where(np.arange(count) == hair, 0, level).astype(np.float32)
    model.version, model.buffers, graph.tensors = 3, [schema.BufferT()], []
    for name, shape, data in (
        ("image", (1, side, side, channels), None),
        ("weights", weights.shape, weights),
        ("bias", bias.shape, bias),
        ("scores", (1, side, side, count), None),
    ):
        tensor, buffer = schema.TensorT(), schema.BufferT()
        tensor.name, tensor.shape, tensor.buffer = name, list(shape), len(model.buffers)
        tensor.type = schema.TensorType.FLOAT32
        if data is not None:
            buffer.data = np.frombuffer(data.tobytes(), np.uint8)
        model.buffers.append(buffer)
        graph.tensors.append(tensor)
    convolution, code = schema.OperatorT(), schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CONV_2D
    code.version = 1
    convolution.inputs, convolution.outputs = [0, 1, 2], [3]
    convolution.builtinOptionsType = schema.BuiltinOptions.Conv2DOptions
    convolution.builtinOptions = schema.Conv2DOptionsT()
    convolution.builtinOptions.strideH = convolution.builtinOptions.strideW = 1
    convolution.builtinOptions.dilationHFactor = convolution.builtinOptions.dilationWFactor = 1
    graph.inputs, graph.outputs, graph.operators = [0], [3], [convolution]
    model.operatorCodes, model.subgraphs = [code], [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


@pytest.mark.parametrize(
    "shape, number, level",
    [
        ((None, 3, None, None), "float32", 0.5),
        ((1, 3, 32, 32), "float32", 0.5),
        ((1, 4, 32, 32), "float32", 0.5),
        ((None, 64, 64, 3), "float32", 0.5),
        ((1, 64, 64, 3), "uint8", 150.0),
    ],
)
def test_layout_size_and_number_type_come_from_the_onnx_file(
    tmp_path, red_on_grey, shape, number, level
):
    pictures, red = red_on_grey(3)
    file = save_onnx(tmp_path / "parser.onnx", 11, 10, level, shape, number)
    masks = segmenters.load(f"parser:{file}")(pictures, HAIR)
    assert set(masks) == HAIR and masks["hair"].dtype == bool
    assert iou(masks["hair"], red) > 0.9


def test_a_tflite_parser_gives_masks(tmp_path, red_on_grey):
    pictures, red = red_on_grey(3)
    parser = segmenters.load(f"parser:{save_tflite(tmp_path / 'a.tflite', 6, 1, 0.65)}")
    assert parser.kinds == HAIR and "mediapipe-multiclass" in str(parser)
    assert iou(parser(pictures, HAIR)["hair"], red) > 0.9


def test_a_segmenter_of_hair_alone_with_a_fourth_input_channel(tmp_path, red_on_grey):
    pictures, red = red_on_grey(3)
    file = save_tflite(tmp_path / "hair.tflite", 2, 1, 0.65, channels=4)
    parser = segmenters.load(f"parser:{file}")
    assert parser.kinds == HAIR and str(parser).endswith("hair 32x32 unit")
    assert iou(parser(pictures, HAIR)["hair"], red) > 0.9


def test_the_normalisation_is_that_of_the_class_map_unless_said_otherwise(tmp_path):
    # A ramp of reds: the mask begins where the normalised red passes 0.5.
    ramp = np.zeros((1, 256, 256, 3), np.uint8)
    ramp[..., 0] = np.arange(256)
    pictures = segmenters.Pictures(ramp, np.zeros((1, 478, 3), np.float32))
    file = save_onnx(tmp_path / "parser.onnx", 11, 10)

    def first_red(options):
        return segmenters.load(f"parser:{file}{options}")(pictures, HAIR)["hair"][0, 0].argmax()

    assert abs(first_red("") - 255 * (0.485 + 0.5 * 0.229)) < 2
    assert abs(first_red(",normalise=unit") - 127.5) < 2
    assert abs(first_red(",normalise=signed,size=256x256") - 191) < 2
    assert first_red(",normalise=none") == 1


@pytest.mark.parametrize("name", CLASS_MAPS)
def test_the_class_map_says_which_outputs_are_which_kind(tmp_path, red_on_grey, name):
    pictures, red = red_on_grey(1)
    labels = CLASS_MAPS[name].labels
    kinds = segmenters.load(
        f"parser:{save_onnx(tmp_path / 'any.onnx', len(labels), 0)},classes={name}"
    ).kinds
    assert "hair" in kinds
    hair = [i for i, label in enumerate(labels) if label == "hair"]
    file = save_onnx(tmp_path / "parser.onnx", len(labels), *hair)
    masks = segmenters.load(f"parser:{file},classes={name}")(pictures, kinds)
    assert iou(masks["hair"], red) > 0.9
    assert not any(masks[kind].any() for kind in kinds - HAIR)


def test_a_batch_is_as_good_as_one_by_one(tmp_path, red_on_grey):
    pictures, _ = red_on_grey(11)
    parser = segmenters.load(f"parser:{save_onnx(tmp_path / 'parser.onnx', 11, 10)}")
    together = parser(pictures, HAIR)["hair"]
    for i in range(11):
        one = segmenters.Pictures(pictures.images[[i]], pictures.keypoints[[i]])
        np.testing.assert_array_equal(parser(one, HAIR)["hair"][0], together[i])


def test_of_several_outputs_the_one_with_scores_is_used(tmp_path, red_on_grey):
    pictures, red = red_on_grey(1)
    file = save_onnx(tmp_path / "parser.onnx", 11, 10, extra=2)
    assert iou(segmenters.load(f"parser:{file}")(pictures, HAIR)["hair"], red) > 0.9


def test_an_open_size_is_that_of_the_class_map(tmp_path):
    file = save_onnx(tmp_path / "parser.onnx", 28, 3)
    assert str(segmenters.load(f"parser:{file}")).endswith("sapiens 1024x768 imagenet")
    assert "256x192" in str(segmenters.load(f"parser:{file},size=256x192"))


def test_another_file_or_option_is_another_version(tmp_path):
    first = save_onnx(tmp_path / "first.onnx", 19, 13)
    second = save_onnx(tmp_path / "second.onnx", 19, 13, level=0.4)
    specs = [f"{first},classes=celebamask", f"{second},classes=celebamask"]
    specs += [f"{first},classes=bisenet", f"{first},classes=celebamask,normalise=unit"]
    assert len({str(segmenters.load(f"parser:{spec}")) for spec in specs}) == 4


def test_a_file_of_another_kind_names_what_was_expected(tmp_path):
    from input_pipeline.faces import landmarker

    selfie = landmarker._ASSETS / "selfie_segmentation.tflite"
    with pytest.raises(
        InputError,
        match=r"outputs \[1, 256, 256, 1\]: expected scores .*19 \(bisenet\).*11 \(lapa\)",
    ):
        segmenters.load(f"parser:{selfie}")
    with pytest.raises(InputError, match=r"expected scores .* 19 \(celebamask\)$"):
        segmenters.load(f"parser:{save_onnx(tmp_path / 'a.onnx', 11, 10)},classes=celebamask")
    grey = save_onnx(tmp_path / "grey.onnx", 11, 10, shape=(4, 3, 32, 32))
    with pytest.raises(InputError, match=r"first \[4, 3, 32, 32\]: expected one RGB picture"):
        segmenters.load(f"parser:{grey}")


@pytest.mark.parametrize(
    "spec, words",
    [
        ("absent.onnx", "absent.onnx: no such file"),
        ("text.onnx", "text.onnx"),
        ("text.tflite", "text.tflite"),
        ("text.pth", r"expected a file of type \.onnx or \.tflite"),
        ("nineteen.onnx", "19 classes may be bisenet, celebamask, facesynthetics: say which"),
        ("nineteen.onnx,classes=faces", "no class map 'faces': choose from bisenet"),
        ("nineteen.onnx,colour=red", "unknown option colour=red: choose from classes, size"),
        ("nineteen.onnx,classes=bisenet,normalise=no", "no normalisation 'no': choose from imagen"),
        ("whole.onnx,normalise=unit", "no normalisation 'unit': choose from none"),
        ("fixed.onnx,size=64x64", "size=64x64: its input is 32x32: leave the size out"),
        ("nineteen.onnx,classes=bisenet,size=big", "size=big: give HxW"),
    ],
)
def test_a_spec_that_cannot_be_used_is_refused_with_the_reason(tmp_path, spec, words):
    for name in ("text.onnx", "text.tflite", "text.pth"):
        (tmp_path / name).write_text("no network")
    save_onnx(tmp_path / "nineteen.onnx", 19, 13)
    save_onnx(tmp_path / "fixed.onnx", 11, 10, shape=(1, 3, 32, 32))
    save_onnx(tmp_path / "whole.onnx", 11, 10, number="uint8")
    with pytest.raises(InputError, match=words):
        segmenters.load(f"parser:{tmp_path / spec}")


def test_a_kind_that_the_class_map_lacks_is_named(tmp_path, red_on_grey):
    parser = segmenters.load(f"parser:{save_onnx(tmp_path / 'parser.onnx', 11, 10)}")
    with pytest.raises(InputError, match="parser: cannot find beard, only hair"):
        parser(red_on_grey(1)[0], frozenset({"hair", "beard"}))
