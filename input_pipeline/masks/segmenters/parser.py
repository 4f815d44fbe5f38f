"""A face parser in an ONNX or TensorFlow Lite file gives the masks."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np

from input_pipeline.errors import InputError
from input_pipeline.masks.segmenters import Pictures, Segmenter, split_options
from input_pipeline.masks.segmenters.classes import (
    CLASS_MAPS,
    NORMALISATIONS,
    ClassMap,
    Preprocessing,
    fitting_map,
)

_BATCH = 8


class ParserSegmenter(Segmenter):
    """Spec parser:FILE[,classes=NAME][,size=HxW][,normalise=NAME].

    The file decides the layout of the input (NHWC or NCHW), its number type and, unless it leaves
    it open, its size; the class map says what each output means and what a file cannot say, the
    normalisation. Outputs are scores [N, C, h, w] or [N, h, w, C]; the first that fits is used.
    A fourth input channel is left zero: there MediaPipe's hair segmenter would get the mask of the
    frame before, which steadies nothing.
    """

    name = "parser"

    def __init__(self, source: str):
        """Raises InputError for a file that is no face parser, or options that do not fit it."""
        path, options = split_options(source, ("classes", "size", "normalise"))
        file, where = Path(path), f"parser:{path}"
        if not file.is_file():
            raise InputError(f"{where}: no such file")
        if file.suffix.lower() not in _RUNTIMES:
            raise InputError(f"{where}: expected a file of type {' or '.join(_RUNTIMES)}")
        self._network = _RUNTIMES[file.suffix.lower()](file, where)
        name = options.get("classes")
        likely = CLASS_MAPS.get(name, ClassMap(()))
        size = self._size(where, options.get("size"), likely)
        count = 2 if self._network.batched else 1
        outputs = self._network(np.zeros((count, *size, 3), np.float32))
        shapes = ", ".join(str(list(output.shape)) for output in outputs)
        counts = {output.shape[axis] for output in outputs for axis in _class_axes(output)}
        name = fitting_map(f"{where}: outputs {shapes}", counts, name)
        self._classes = CLASS_MAPS[name]
        self.kinds = self._classes.kinds
        size = self._size(where, options.get("size"), self._classes)
        usual = "none" if self._network.raw else self._classes.normalisation
        normalisation = options.get("normalise", usual)
        allowed = ["none"] if self._network.raw else list(NORMALISATIONS)
        if normalisation not in allowed:
            raise InputError(
                f"{where}: no normalisation {normalisation!r}: choose from {', '.join(allowed)}"
            )
        self._preprocess = Preprocessing(size, *NORMALISATIONS[normalisation])
        digest = hashlib.sha256(file.read_bytes()).hexdigest()[:12]
        self.version = f"{digest} {name} {size[0]}x{size[1]} {normalisation}"

    def _size(self, where: str, wanted: str | None, likely: ClassMap) -> tuple[int, int]:
        """(height, width) of the input."""
        fixed = self._network.size
        if wanted is None:
            return fixed or likely.size
        try:
            height, width = map(int, wanted.split("x"))
        except ValueError:
            raise InputError(f"{where}: size={wanted}: give HxW, as in size=512x512") from None
        if fixed not in (None, (height, width)):
            raise InputError(
                f"{where}: size={wanted}: its input is {fixed[0]}x{fixed[1]}: leave the size out"
            )
        return height, width

    def _masks(self, pictures: Pictures, present: frozenset[str]) -> dict[str, np.ndarray]:
        shape = pictures.images.shape[:3]
        masks = {kind: np.zeros(shape, bool) for kind in present}
        step = _BATCH if self._network.batched else 1
        for start in range(0, shape[0], step):
            pixels = self._preprocess(pictures.images[start : start + step])
            for i, scores in enumerate(self._scores(pixels), start):
                for kind, mask in self._classes.masks(scores, present, shape[1]).items():
                    masks[kind][i] = mask
        return masks

    def _scores(self, pixels: np.ndarray) -> np.ndarray:
        """[N, C, h, w]: the first output that has all classes."""
        for output in self._network(pixels):
            for axis in _class_axes(output):
                if output.shape[axis] == len(self._classes.labels):
                    return np.moveaxis(output, axis, 1)
        raise AssertionError("the outputs' shapes depend on the pictures")


def _class_axes(output: np.ndarray) -> tuple[int, ...]:
    return (1, 3) if output.ndim == 4 else ()


class _Onnx:
    """size: (height, width), None where open. batched: takes several pictures. raw: takes 0..255.

    Calling it with float32 [N, h, w, 3] gives a list of outputs.
    """

    def __init__(self, file: Path, where: str):
        try:
            import onnxruntime
        except ImportError:
            raise InputError(
                f"{where}: needs onnxruntime: pip install 'durian_jax[onnx]'"
            ) from None
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = 1  # clips run in parallel
        usable = onnxruntime.get_available_providers()
        providers = [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in usable]
        self._session = onnxruntime.InferenceSession(str(file), settings, providers)
        sources = self._session.get_inputs()
        shape = [dim if isinstance(dim, int) else None for dim in sources[0].shape]
        self._input = _Input.of(where, len(sources), shape)
        height, width = self._input.size
        self.size = (height, width) if height and width else None
        self.batched = shape[0] is None
        self._name = sources[0].name
        number = sources[0].type.removeprefix("tensor(").removesuffix(")")
        self._type = np.dtype({"float": "float32"}.get(number, number))
        self.raw = self._type.kind in "iu"

    def __call__(self, pixels: np.ndarray) -> list[np.ndarray]:
        pixels = self._input.arranged(pixels)
        return self._session.run(None, {self._name: pixels.astype(self._type)})


class _Tflite:
    """As `_Onnx`."""

    batched = False

    def __init__(self, file: Path, where: str):
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(str(file), num_threads=1)
        self._interpreter.allocate_tensors()
        sources = self._interpreter.get_input_details()
        shape = sources[0]["shape"].tolist()
        self._input = _Input.of(where, len(sources), shape)
        self.size = self._input.size
        self._index, self._type = sources[0]["index"], np.dtype(sources[0]["dtype"])
        self._scale, self._zero = sources[0]["quantization"]
        self.raw = self._type.kind in "iu" and not self._scale
        self._outputs = self._interpreter.get_output_details()

    def __call__(self, pixels: np.ndarray) -> list[np.ndarray]:
        pixels = self._input.arranged(pixels)
        if self._scale:
            limits = np.iinfo(self._type)
            pixels = np.clip(np.round(pixels / self._scale + self._zero), limits.min, limits.max)
        self._interpreter.set_tensor(self._index, np.ascontiguousarray(pixels, self._type))
        self._interpreter.invoke()
        # The order of the classes' scores does not depend on the outputs' quantisation.
        return [
            self._interpreter.get_tensor(output["index"]).astype(np.float32)
            for output in self._outputs
        ]


@dataclasses.dataclass(frozen=True)
class _Input:
    """What a network takes: channels 3 or 4, first or last; (height, width), None where open."""

    channels: int
    channels_last: bool
    size: tuple[int | None, int | None]

    @staticmethod
    def of(where: str, count: int, shape: list[int | None]) -> "_Input":
        """From the count of inputs and the first one's shape; InputError unless a picture."""
        if count == 1 and len(shape) == 4 and shape[0] in (None, 1):
            for axis, size in ((3, shape[1:3]), (1, shape[2:])):
                if shape[axis] in (3, 4):
                    return _Input(shape[axis], axis == 3, tuple(size))
        raise InputError(
            f"{where}: {count} inputs, the first {shape}: expected one RGB picture, [1, 3, H, W] "
            "or [1, H, W, 3], with or without a fourth channel, or any number of them"
        )

    def arranged(self, pixels: np.ndarray) -> np.ndarray:
        """[N, h, w, 3] as the network takes it; a fourth channel is zero."""
        pixels = np.pad(pixels, ((0, 0), (0, 0), (0, 0), (0, self.channels - 3)))
        return pixels if self.channels_last else pixels.transpose(0, 3, 1, 2)


_RUNTIMES = {".onnx": _Onnx, ".tflite": _Tflite}
