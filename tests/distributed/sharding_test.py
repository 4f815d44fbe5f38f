"""These run in a process of their own, with 8 devices made of one CPU."""

import os
import subprocess
import sys
import textwrap
import types

import pytest

from durian_jax.distributed import sharding


def run_on_eight_devices(code: str) -> str:
    environment = {
        **os.environ,
        "XLA_FLAGS": os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def report():
    return run_on_eight_devices("""
        import jax, jax.numpy as jnp, numpy as np
        from durian_jax.distributed import sharding
        mesh = sharding.make_mesh(fsdp=4)
        print("mesh", dict(mesh.shape))
        leaves = {"large": jnp.zeros((100, 256)), "odd": jnp.zeros((129, 255)),
                  "small": jnp.zeros((4, 4))}
        for name, leaf in sharding.shard_layout(mesh, leaves).items():
            print(name, tuple(leaf.sharding.spec))
        batch = sharding.put_batch({"x": np.arange(16.0).reshape(16, 1)}, mesh)["x"]
        print("batch", len(batch.addressable_shards), batch.addressable_shards[3].data.ravel())
        try:
            sharding.make_mesh(fsdp=3)
        except ValueError as error:
            print("error", error)
    """)


def test_mesh_splits_devices_between_the_axes(report):
    assert "mesh {'data': 2, 'fsdp': 4}" in report


def test_large_leaves_are_split_where_they_divide_and_others_replicated(report):
    assert "large (None, 'fsdp')" in report
    assert "odd ()" in report and "small ()" in report


def test_batch_is_split_over_all_devices(report):
    assert "batch 8 [6. 7.]" in report


def test_a_mesh_that_does_not_divide_is_refused(report):
    assert "error mesh.fsdp 3 does not divide 8 devices" in report


def machines(*sizes: int) -> list:
    """Devices as those of machines with so many GPUs, each a slice of its own."""
    places = [(machine, place) for machine, size in enumerate(sizes) for place in range(size)]
    return [
        types.SimpleNamespace(
            id=i, process_index=machine, slice_index=machine, platform="gpu", device_kind="H200",
            local_hardware_id=place,
        )
        for i, (machine, place) in enumerate(places)
    ]  # fmt: skip


@pytest.mark.parametrize("fsdp", [1, 2, 4, 8, 16])
def test_a_copy_of_the_parameters_lies_within_a_slice_or_takes_up_whole_ones(fsdp, monkeypatch):
    made = []
    monkeypatch.setattr(sharding, "Mesh", lambda devices, *_, **__: made.append(devices))
    sharding.make_mesh(fsdp, machines(4, 4, 4, 4))
    (mesh,) = made
    assert mesh.shape == (16 // fsdp, fsdp)
    assert {device.id for device in mesh.flat} == set(range(16))
    for copy in mesh:
        assert len({device.slice_index for device in copy}) == max(1, fsdp // 4)
    # A process's rows of the batch follow those of the process before.
    assert [device.process_index for device in mesh.flat] == sorted([0, 1, 2, 3] * 4)


@pytest.mark.parametrize(("fsdp", "sizes"), [(3, (6, 6)), (12, (6, 6)), (6, (2, 4))])
def test_slices_of_other_sizes(fsdp, sizes, monkeypatch):
    monkeypatch.setattr(sharding, "Mesh", lambda devices, *_, **__: devices)
    if len(set(sizes)) > 1:
        with pytest.raises(
            ValueError, match=r"mesh.fsdp 6 does not fit slices of \[2, 4\] devices"
        ):
            sharding.make_mesh(fsdp, machines(*sizes))
    else:
        assert sharding.make_mesh(fsdp, machines(*sizes)).shape == (12 // fsdp, fsdp)


def test_a_copy_that_would_straddle_slices_is_refused():
    with pytest.raises(ValueError, match=r"mesh.fsdp 4 does not fit slices of .6. devices"):
        sharding.make_mesh(4, machines(6, 6))
