import numpy as np
import pytest

from input_pipeline.errors import InputError
from input_pipeline.faces import descriptor

onnx = pytest.importorskip("onnx")


def network(path, shape=("n", 3, 112, 112)):
    """The mean of each channel, as ONNX."""
    from onnx import TensorProto, helper

    def tensor(name, shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    node = helper.make_node("ReduceMean", ["face"], ["mean"], axes=[2, 3], keepdims=0)
    graph = helper.make_graph(
        [node], "tiny", [tensor("face", shape)], [tensor("mean", (shape[0], shape[1]))]
    )
    opset = helper.make_opsetid("", 13)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    return path


def test_a_descriptor_is_a_unit_vector_of_the_aligned_face(tmp_path, portrait_picture, landmarker):
    pytest.importorskip("onnxruntime")
    from input_pipeline.faces import geometry
    from input_pipeline.media.pictures import read_picture

    image = read_picture(portrait_picture)
    points = landmarker.track([image]).keypoints[0]
    describe = descriptor.load(str(network(tmp_path / "tiny.onnx")))
    vector = describe(image, points)
    wanted = geometry.align_face(image, points).mean((0, 1)) / 127.5 - 1
    np.testing.assert_allclose(vector, wanted / np.linalg.norm(wanted), atol=1e-5)
    again = descriptor.unpack([descriptor.pack([vector, vector])])
    np.testing.assert_allclose(again, [vector], atol=1e-3)


def test_files_that_describe_no_face_are_refused(tmp_path):
    pytest.importorskip("onnxruntime")
    (tmp_path / "text.onnx").write_text("not a network")
    with pytest.raises(InputError, match="give a face descriptor"):
        descriptor.load(str(tmp_path / "text.onnx"))
    with pytest.raises(InputError, match=r"must take \[1, 3, 112, 112\]"):
        descriptor.load(str(network(tmp_path / "other.onnx", (1, 3, 224, 224))))
    with pytest.raises(InputError, match="cannot be read"):
        descriptor.load(str(tmp_path / "absent.onnx"))
