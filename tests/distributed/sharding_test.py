"""These run in a process of their own, with 8 devices made of one CPU."""

import os
import subprocess
import sys
import textwrap

import pytest


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
