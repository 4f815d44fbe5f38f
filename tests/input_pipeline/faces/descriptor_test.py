from pathlib import Path

import numpy as np
import onnx
import pytest

from input_pipeline.errors import InputError
from input_pipeline.faces import descriptor, geometry
from input_pipeline.media.pictures import read_picture

EXAMPLES = Path(__file__).parents[3] / "durian_jax" / "examples"


def network(path, shape=("n", 3, 112, 112), scaling=(), extra=()):
    """The mean of each channel, as ONNX, after (operation, constant) ... on the picture.

    extra: names of further inputs that no node reads.
    """
    from onnx import TensorProto, helper

    def tensor(name, shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    nodes, held, name = [], [], "face"
    for i, (operation, constant) in enumerate(scaling):
        held.append(onnx.numpy_helper.from_array(np.float32([constant]), f"constant{i}"))
        nodes.append(helper.make_node(operation, [name, f"constant{i}"], [f"scaled{i}"]))
        name = f"scaled{i}"
    nodes.append(helper.make_node("ReduceMean", [name], ["mean"], axes=[2, 3], keepdims=0))
    inputs = [*(tensor(one, (5, 5)) for one in extra), tensor("face", shape)]
    inputs += [tensor(one.name, (1,)) for one in held] if extra else []
    graph = helper.make_graph(nodes, "tiny", inputs, [tensor("mean", (shape[0], shape[1]))], held)
    opset = helper.make_opsetid("", 13)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    return path


@pytest.fixture
def face(portrait_picture, landmarker):
    """A photo and the keypoints of its face."""
    image = read_picture(portrait_picture)
    return image, landmarker.track([image]).keypoints[0]


def test_a_descriptor_is_a_unit_vector_of_the_aligned_face(tmp_path, face):
    image, points = face
    describe = descriptor.load(str(network(tmp_path / "tiny.onnx")))
    vector = describe(image, points)
    wanted = geometry.align_face(image, points).mean((0, 1)) / 127.5 - 1
    np.testing.assert_allclose(vector, wanted / np.linalg.norm(wanted), atol=1e-5)
    again = descriptor.unpack([descriptor.pack([vector, vector])])
    np.testing.assert_allclose(again, [vector], atol=1e-3)


def test_files_that_describe_no_face_are_refused(tmp_path):
    (tmp_path / "text.onnx").write_text("not a network")
    with pytest.raises(InputError, match="give a face descriptor"):
        descriptor.load(str(tmp_path / "text.onnx"))
    with pytest.raises(InputError, match=r"must take \[1, 3, 112, 112\]"):
        descriptor.load(str(network(tmp_path / "other.onnx", (1, 3, 224, 224))))
    with pytest.raises(InputError, match="cannot be read"):
        descriptor.load(str(tmp_path / "absent.onnx"))


@pytest.mark.parametrize(
    "scaling", [[("Sub", 127.5), ("Mul", 1 / 127.5)], [("Div", 127.5), ("Add", -1)]]
)
def test_a_network_that_scales_its_input_is_given_bytes(scaling, tmp_path, face):
    plain = descriptor.FaceDescriptor(network(tmp_path / "plain.onnx"))(*face)
    own = descriptor.FaceDescriptor(network(tmp_path / "own.onnx", scaling=scaling))(*face)
    np.testing.assert_allclose(own, plain, atol=1e-5)


def test_a_network_that_scales_to_another_range_is_refused(tmp_path):
    path = network(tmp_path / "odd.onnx", scaling=[("Mul", 1 / 255)])
    with pytest.raises(InputError, match=r"scales \[0, 255\] to \[0, 1\] by itself"):
        descriptor.FaceDescriptor(path)


def test_weights_listed_as_inputs_are_not_asked_for(tmp_path, face):
    plain = descriptor.FaceDescriptor(network(tmp_path / "plain.onnx"))(*face)
    path = network(tmp_path / "ghost.onnx", scaling=[("Sub", 127.5), ("Div", 127.5)], extra=("w",))
    np.testing.assert_allclose(descriptor.FaceDescriptor(path)(*face), plain, atol=1e-5)


def test_the_packaged_network_tells_people_apart(face, landmarker):
    # Fed with [-1, 1], OpenCV's file finds any two people alike: these at a cosine of 0.82.
    describe = descriptor.load(descriptor.PACKAGED)
    image, points = face
    own = describe(image, points)
    assert own.shape == (128,)
    assert own @ describe(np.uint8(image * 0.6), points) > 0.8
    other = read_picture(EXAMPLES / "0000" / "portrait.png")
    assert own @ describe(other, landmarker.track([other]).keypoints[0]) < 0.3
