import sys
from types import SimpleNamespace

import pytest

from durian_jax.planning.topology import Topology
from input_pipeline.errors import InputError


def test_the_machine_at_hand_is_the_default():
    import jax

    here = Topology.parse(None)
    assert here.here and here.count == jax.device_count() and list(here.devices()) == jax.devices()


def test_a_slice_has_the_chips_of_its_shape():
    whole = Topology.parse("v5p:4x4x4")
    assert (whole.count, whole.shape, whole.chip.name) == (64, (4, 4, 4), "v5p")
    assert Topology.parse("h200:8").count == 8


@pytest.mark.parametrize(
    "text, message",
    [
        ("v9:4x4", r"chip 'v9' is unknown: choose from v5e, "),
        ("v5e", r"topology 'v5e': write CHIP:SHAPE, such as v5e:4x4"),
        ("v5e:4x4x4", r"v5e takes 2 numbers above 0, such as v5e:4x4"),
        ("v5p:4x4", r"v5p takes 3 numbers above 0, such as v5p:4x4x4"),
        ("h200:8x8", r"h200 takes 1 numbers above 0, such as h200:8"),
        ("v5e:0x4", r"above 0"),
    ],
)
def test_what_is_no_topology_is_refused_with_one_that_is(text, message):
    with pytest.raises(InputError, match=message):
        Topology.parse(text)


def test_a_slice_without_its_compiler_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "libtpu", None)
    with pytest.raises(InputError, match=r"durian_jax\[tpu\].*stop at the arithmetic"):
        Topology.parse("v5e:4x4").devices()


def test_gpus_that_are_not_at_hand_have_no_compiler():
    assert Topology.parse("h200:8").devices() is None


def test_a_group_gets_the_links_along_which_it_lies():
    slice_ = Topology.parse("v5e:16x16")
    devices = [SimpleNamespace(coords=(x, y, 0)) for x in range(16) for y in range(16)]
    row, everyone = tuple(range(16)), tuple(range(256))
    assert slice_.link(everyone, devices) == 200e9 == slice_.link(everyone)
    assert slice_.link(row, devices) == 100e9
    # The ring of a part of a pod is open, and carries half.
    assert Topology.parse("v5e:4x4").link(everyone[:16]) == 100e9
    assert Topology.parse("v5p:4x4x4").link(everyone[:64]) == 600e9
    # A switch connects all with all.
    assert Topology.parse("h200:8").link((0, 1)) == 450e9


def test_the_tpu_compiler_refuses_slices_that_are_not_built():
    pytest.importorskip("libtpu")
    with pytest.raises(InputError, match=r"v5e:3x5: the TPU compiler refuses it"):
        Topology.parse("v5e:3x5").devices()


@pytest.mark.parametrize("name", ["v5e:4x4", "v5e:16x16", "v5p:4x4x4", "v6e:16x16"])
def test_the_tpu_compiler_knows_the_slices_of_the_record(name):
    pytest.importorskip("libtpu")
    slice_ = Topology.parse(name)
    devices = slice_.devices()
    assert len(devices) == slice_.count
    assert devices[0].device_kind == slice_.chip.kind
