"""ArcFace: an iResNet of InsightFace, as torch state dict or as the ONNX file it is shipped as.

A state dict has our names. In an ONNX file the exporter has folded every batch normalisation that
follows a convolution into it, and left the names of what it touched as numbers; so the graph is
followed from the input, layer by layer, and each folded normalisation becomes one that adds the
bias and changes nothing else.
"""

import itertools
import re
from pathlib import Path

import numpy as np

from durian_jax.convert.names import Table, rename
from durian_jax.convert.source import Source
from durian_jax.convert.sources.files import open_weights, refuse_other_contents
from durian_jax.weights.storage import Stored
from input_pipeline.errors import InputError

_TABLE: Table = ((r"\.num_batches_tracked$", None),)
_EPSILON = 1e-5


def read(path: Path) -> Source:
    """A file of an iResNet. Raises InputError if it holds something else."""
    path = Path(path)
    if path.suffix == ".onnx" and path.is_file():
        refuse_other_contents(path)
        weights = _read_onnx(path)
    else:
        weights = rename(open_weights(path), _TABLE)
    return Source(str(path), {"arcface": _shape(weights, path)}, {"arcface": weights})


def _shape(weights: dict[str, Stored], path: Path) -> dict:
    """The fields of IResNetConfig that the tensors tell."""
    counts: dict[int, int] = {}
    for key in weights:
        if found := re.match(r"layer(\d+)\.(\d+)\.conv1\.weight$", key):
            stage, block = map(int, found.groups())
            counts[stage] = max(counts.get(stage, 0), block + 1)
    stages = len(counts)
    try:
        widths = tuple(weights[f"layer{i}.0.conv2.weight"].shape[0] for i in range(1, stages + 1))
        embedding, inputs = weights["fc.weight"].shape
        side = round((inputs / widths[-1]) ** 0.5)
    except (KeyError, ValueError, IndexError):
        raise InputError(
            f"{path}: no iResNet of InsightFace: fc.weight or layer1.0.conv2.weight is missing"
        ) from None
    layers = tuple(counts.get(i, 0) for i in range(1, stages + 1))
    return {
        "layers": layers, "widths": widths, "embedding": embedding, "image_size": side * 2**stages,
    }  # fmt: skip


def _read_onnx(path: Path) -> dict[str, Stored]:
    """Follows the graph: each node's parameters go to the layer that its place in it names."""
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise InputError(f"{path}: reading ONNX needs pip install durian_jax[onnx]") from error
    try:
        graph = onnx.load(str(path)).graph
    except (DecodeError, OSError) as error:
        raise InputError(f"{path}: not a readable ONNX file ({error}): copy it again") from None
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    walk = _Walk(graph, values, path)
    return walk.tensors


class _Walk:
    """Tensors of an iResNet's graph under the names of its state dict."""

    def __init__(self, graph, values: dict[str, np.ndarray], path: Path):
        self.values, self.path, self.tensors = values, path, {}
        self.readers: dict[str, list] = {}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        try:
            start = next(value.name for value in graph.input if value.name not in values)
            end = self._stem(start)
            for stage in itertools.count(1):
                end, blocks = self._stage(end, stage)
                if not blocks:
                    break
            self._head(end)
        except (KeyError, StopIteration, IndexError, ValueError) as error:
            raise InputError(
                f"{path}: not the graph of an InsightFace iResNet (after {len(self.tensors)} "
                f"tensors: {error}): give its torch state dict"
            ) from None

    def _next(self, value: str, kind: str, skip: tuple[str, ...] = ()):
        """The node of a kind that reads a value, through nodes of the kinds in `skip`."""
        for node in self.readers.get(value, ()):
            if node.op_type == kind:
                return node
            if node.op_type in skip:
                return self._next(node.output[0], kind, skip)
        raise KeyError(f"no {kind} reads {value}")

    def _keep(self, name: str, array: np.ndarray) -> None:
        array = np.asarray(array)
        self.tensors[name] = Stored(self.path, name, array.shape, str(array.dtype), lambda: array)

    def _norm(self, name: str, arrays) -> None:
        for part, array in zip(("weight", "bias", "running_mean", "running_var"), arrays):
            self._keep(f"{name}.{part}", array)

    def _conv(self, value: str, node, conv: str, norm: str) -> str:
        """A convolution and the normalisation after it, folded or not."""
        arrays = [self.values[name] for name in node.input[1:]]
        self._keep(f"{conv}.weight", arrays[0])
        following = [reader.op_type for reader in self.readers.get(node.output[0], ())]
        if len(arrays) == 1 and following == ["BatchNormalization"]:
            return self._batch_norm(node.output[0], norm)
        bias = arrays[1] if len(arrays) == 2 else np.zeros(len(arrays[0]), np.float32)
        self._norm(norm, _shift(bias))
        return node.output[0]

    def _batch_norm(self, value: str, name: str, skip: tuple[str, ...] = ()) -> str:
        node = self._next(value, "BatchNormalization", skip)
        self._norm(name, (self.values[part] for part in node.input[1:5]))
        return node.output[0]

    def _prelu(self, value: str, name: str) -> str:
        node = self._next(value, "PRelu")
        self._keep(f"{name}.weight", self.values[node.input[1]].reshape(-1))
        return node.output[0]

    def _stem(self, value: str) -> str:
        # InsightFace's own exports scale the picture first; we hand over [-1, 1] as they do.
        value = self._conv(value, self._next(value, "Conv", ("Sub", "Mul", "Div")), "conv1", "bn1")
        return self._prelu(value, "prelu")

    def _stage(self, value: str, stage: int) -> tuple[str, int]:
        """All blocks of a stage; the first has a convolution on its residual path."""
        blocks = 0
        while True:
            convs = [n for n in self.readers.get(value, ()) if n.op_type == "Conv"]
            adds = [n for n in self.readers.get(value, ()) if n.op_type == "Add"]
            if not (convs if blocks == 0 else adds):
                return value, blocks
            name = f"layer{stage}.{blocks}"
            if blocks == 0:
                self._conv(value, convs[0], f"{name}.downsample.0", f"{name}.downsample.1")
            inner = self._batch_norm(value, f"{name}.bn1")
            inner = self._conv(inner, self._next(inner, "Conv"), f"{name}.conv1", f"{name}.bn2")
            inner = self._prelu(inner, f"{name}.prelu")
            inner = self._conv(inner, self._next(inner, "Conv"), f"{name}.conv2", f"{name}.bn3")
            value = self._next(inner, "Add").output[0]
            blocks += 1

    def _head(self, value: str) -> None:
        value = self._batch_norm(value, "bn2")
        node = self._next(value, "Gemm", ("Dropout", "Flatten", "Reshape"))
        turned = {a.name: a.i for a in node.attribute}.get("transB", 0)
        weight = self.values[node.input[1]]
        self._keep("fc.weight", weight if turned else weight.T)
        bias = self.values[node.input[2]]
        self._keep("fc.bias", bias)
        if node.output[0] in self.readers:
            self._batch_norm(node.output[0], "features")
        else:
            self._norm("features", _shift(np.zeros_like(bias)))


def _shift(bias: np.ndarray) -> tuple[np.ndarray, ...]:
    """Scale, bias, mean and variance of a normalisation that only adds the bias."""
    zeros = np.zeros_like(bias)
    return zeros + 1, bias, zeros, zeros + np.float32(1 - _EPSILON)
