from types import SimpleNamespace

import pytest

from durian_jax.distributed import chips
from input_pipeline.errors import InputError


def test_an_unknown_chip_is_refused_with_the_names_of_the_known():
    with pytest.raises(
        InputError, match=r"'v9' is unknown: choose from v5e, v6e, v5p, .*h200, cpu"
    ):
        chips.named("v9")


@pytest.mark.parametrize(
    "kind, name",
    [
        ("TPU v5 lite", "v5e"),
        ("TPU v5", "v5p"),
        ("TPU v6 lite", "v6e"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("cpu", "cpu"),
    ],
)
def test_devices_find_their_chip(kind, name):
    assert chips.of_device(SimpleNamespace(device_kind=kind)) is chips.named(name)


def test_a_device_out_of_the_table_has_no_numbers():
    chip = chips.of_device(SimpleNamespace(device_kind="TPU v4"))
    assert chip.name == "TPU v4" and chip.peak is chip.memory is chip.link is None


@pytest.mark.parametrize("name, balance", [("v5e", 240), ("v5p", 166), ("v6e", 560), ("h100", 295)])
def test_peak_and_bandwidth_are_those_of_one_chip(name, balance):
    chip = chips.named(name)
    assert chip.peak / chip.bandwidth == pytest.approx(balance, rel=0.01)
