import sys
from pathlib import Path

import numpy as np
import pytest

from input_pipeline.errors import InputError
from input_pipeline.masks import segmenters


@pytest.mark.parametrize(
    "shape, dtype, points, words",
    [
        ((2, 64, 48, 3), np.uint8, (2, 478, 3), "square"),
        ((2, 64, 64), np.uint8, (2, 478, 3), "RGB"),
        ((64, 64, 3), np.uint8, (478, 3), "RGB"),
        ((2, 64, 64, 3), np.float32, (2, 478, 3), "float32.*uint8"),
        ((2, 64, 64, 3), np.uint8, (2, 68, 3), r"\[478, 3\] for each of 2 pictures"),
        ((2, 64, 64, 3), np.uint8, (1, 478, 3), "2 pictures"),
    ],
)
def test_pictures_of_another_shape_are_refused(shape, dtype, points, words):
    with pytest.raises(InputError, match=words):
        segmenters.Pictures(np.zeros(shape, dtype), np.zeros(points, np.float32))


def test_a_kind_that_cannot_be_found_is_named():
    pictures = segmenters.Pictures(
        np.zeros((1, 64, 64, 3), np.uint8), np.zeros((1, 478, 3), np.float32), Path("a.png")
    )
    with pytest.raises(InputError, match="heuristic: cannot find wig, only beard, glasses, hair"):
        segmenters.load("heuristic")(pictures, frozenset({"hair", "wig"}))


@pytest.mark.parametrize("spec", ["", "wig", "heuristic:file", "parser", "files:"])
def test_an_unknown_segmenter_is_refused_with_the_known_ones(spec):
    with pytest.raises(InputError, match=f"^masks {spec}: .* heuristic"):
        segmenters.load(spec)


@pytest.mark.parametrize(
    "package, spec, extra",
    [
        ("onnxruntime", "parser:{}/a.onnx", "onnx"),
        ("torch", "segformer:{}", "torch"),
        ("transformers", "sam2:{}", "torch"),
    ],
)
def test_a_missing_package_names_the_extra(tmp_path, monkeypatch, package, spec, extra):
    (tmp_path / "a.onnx").touch()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"pip install 'durian_jax\[{extra}\]'"):
        segmenters.load(spec.format(tmp_path))
