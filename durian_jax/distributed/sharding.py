"""The device mesh, and where parameters and batches live on it.

One mesh with two axes: "data" replicates parameters, "fsdp" shards them; both split the batch. One
device is a 1 x 1 mesh.
"""

import collections
import math

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

# Smaller leaves stay replicated: gathering them costs more than holding them.
MIN_SHARDED_SIZE = 2**14


def make_mesh(fsdp: int = 1, devices=None) -> Mesh | AbstractMesh:
    """A mesh over the devices; `fsdp` of them share one copy of the parameters.

    Args:
      fsdp: -1 for all devices.
      devices: of all processes, or of a topology that is not available; None for all there are; a
        number for a mesh that only has a shape.

    Raises:
      ValueError: the number of devices is no multiple of `fsdp`, or slices cannot share it out.
    """
    abstract = isinstance(devices, int)
    count = devices if abstract else len(jax.devices() if devices is None else devices)
    fsdp = count if fsdp == -1 else fsdp
    if fsdp < 1 or count % fsdp:
        raise ValueError(f"mesh.fsdp {fsdp} does not divide {count} devices: use a divisor, or -1")
    shape, names = (count // fsdp, fsdp), ("data", "fsdp")
    # Automatic axes: explicit ones turn sharding constraints into assertions.
    axis_types = (AxisType.Auto,) * 2
    if abstract:
        return AbstractMesh(shape, names, axis_types=axis_types)
    devices = jax.devices() if devices is None else devices
    if len({_slice(device) for device in devices}) > 1:
        return Mesh(_over_slices(devices, fsdp), names, axis_types=axis_types)
    return jax.make_mesh(shape, names, axis_types=axis_types, devices=devices)


def _slice(device) -> int:
    """Which TPU slice, or machine with GPUs, a device is in."""
    return getattr(device, "slice_index", 0)


def _over_slices(devices: list, fsdp: int) -> np.ndarray:
    """[data, fsdp] devices of several slices, between which the network is slow: a copy of the
    parameters lies within one, or takes up whole ones. `jax.make_mesh` refuses several."""
    sizes = set(collections.Counter(map(_slice, devices)).values())
    size = min(sizes)
    if len(sizes) > 1 or (size % fsdp and fsdp % size):
        raise ValueError(
            f"mesh.fsdp {fsdp} does not fit slices of {sorted(sizes)} devices: use equal slices, "
            "and a divisor or a multiple of their size"
        )
    inner = min(fsdp, size)
    within, across = (size // inner, inner), (len(devices) * inner // (size * fsdp), fsdp // inner)
    return mesh_utils.create_hybrid_device_mesh(
        within, across, devices, allow_split_physical_axes=True
    )


def shard_layout(mesh: Mesh | AbstractMesh, shapes):
    """Every leaf of a state as jax.ShapeDtypeStruct with its NamedSharding.

    Its largest dimension that divides is split over "fsdp".
    """
    ways = mesh.shape["fsdp"]

    def place(leaf) -> jax.ShapeDtypeStruct:
        spec, fits = P(), [d for d, n in enumerate(leaf.shape) if n % ways == 0]
        if leaf.size >= MIN_SHARDED_SIZE and fits:
            split = max(fits, key=lambda d: leaf.shape[d])
            spec = P(*["fsdp" if d == split else None for d in range(leaf.ndim)])
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))

    return jax.tree.map(place, shapes)


def local_bytes(tree) -> float:
    """Bytes of each device's part of a tree of sharded shapes."""
    return float(
        sum(
            math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
            for leaf in jax.tree.leaves(tree)
        )
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of small results that every device holds."""
    return NamedSharding(mesh, P())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: its leading axis over all devices."""
    return NamedSharding(mesh, P(("data", "fsdp")))


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """This process's part of the batch as global arrays."""
    place = batch_sharding(mesh)
    return {
        name: jax.make_array_from_process_local_data(place, value) for name, value in batch.items()
    }
