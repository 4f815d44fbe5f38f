"""Who is in a picture: a face recognition network of the user's, as ONNX."""

import base64
import functools
import hashlib
from pathlib import Path

import numpy as np

from input_pipeline.errors import InputError
from input_pipeline.faces import geometry

# Cosine above which two clips are taken to show one person; ArcFace networks are commonly
# operated between 0.3 and 0.5.
SAME_PERSON = 0.45


class FaceDescriptor:
    """An InsightFace-like network: [1, 3, 112, 112] RGB in [-1, 1] -> [1, D].

    Attributes:
      version: a part of the SHA-256 of the file.
    """

    def __init__(self, path: str | Path):
        """Raises InputError: no such file, not such a network, or onnxruntime is missing."""
        try:
            import onnxruntime
        except ImportError:
            raise InputError(
                f"{path}: onnxruntime is not installed: pip install 'durian_jax[eval]'"
            ) from None
        try:
            data = Path(path).read_bytes()
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1  # clips are worked on in parallel already
            self._session = onnxruntime.InferenceSession(
                data, options, providers=["CPUExecutionProvider"]
            )
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from None
        except Exception as error:  # what onnxruntime raises is open-ended
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"{path}: {reason}: give a face descriptor as ONNX") from None
        first = self._session.get_inputs()[0]
        if list(first.shape[1:]) != [3, 112, 112]:
            raise InputError(
                f"{path}: takes {first.shape}, must take [1, 3, 112, 112]: give an "
                "InsightFace-like recognition model"
            )
        self._input = first.name
        self.version = hashlib.sha256(data).hexdigest()[:16]

    def __call__(self, image: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
        """Unit vector [D] of the face with keypoints [478, 3] in uint8 [H, W, 3]."""
        face = geometry.align_face(image, keypoints).astype(np.float32)
        batch = ((face - 127.5) / 127.5).transpose(2, 0, 1)[None]
        (found,) = self._session.run(None, {self._input: batch})
        vector = found[0].astype(np.float64)
        return vector / np.linalg.norm(vector)


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
