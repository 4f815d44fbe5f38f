import pickle

import numpy as np
import pytest

from durian_jax.weights.pickled import read_arrays
from input_pipeline.errors import InputError


class Command:
    def __reduce__(self):
        return print, ("this must not run",)


def test_arrays_come_back_under_their_paths(tmp_path):
    kernel = np.arange(6, dtype=np.float32).reshape(2, 3)
    (tmp_path / "file").write_bytes(pickle.dumps({"layer": {"kernel": kernel, "bias": kernel[0]}}))
    found = read_arrays(tmp_path / "file")
    assert set(found) == {"layer/kernel", "layer/bias"}
    np.testing.assert_array_equal(found["layer/kernel"], kernel)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (pickle.dumps({"layer": Command()}), "it calls builtins.print, which is not executed"),
        (pickle.dumps({"layer": {"name": "x"}}), "layer/name is no array"),
        (pickle.dumps({"a": np.zeros(9)})[:-20], "no pickle of arrays"),
        (b"text", "no pickle of arrays"),
    ],
)
def test_whatever_else_a_pickle_holds_is_refused(content, reason, tmp_path, capsys):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(InputError, match=reason):
        read_arrays(tmp_path / "file")
    assert capsys.readouterr().out == ""
