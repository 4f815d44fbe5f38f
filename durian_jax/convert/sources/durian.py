"""Our own weights: a training run or a converted folder, to join with others or to pass on."""

from pathlib import Path

from durian_jax.convert.names import torch_key
from durian_jax.convert.source import Source
from durian_jax.systems.system import system_name
from durian_jax.weights import loading, storage
from durian_jax.weights.storage import Stored


def read(path: Path, ema: bool = True) -> Source:
    """A run (averaged weights, or raw ones) or a folder of weights; any that `locate` finds.

    Raises:
      InputError: nothing there, or damaged.
    """
    folder = storage.locate(path)
    if storage.is_folder(folder):
        tensors, meta = storage.stored(folder), storage.read_manifest(folder)
    else:
        params, meta = loading.load(folder, ema)
        tensors = storage.flat(params, str(folder))
    networks: dict[str, dict[str, Stored]] = {}
    for name, stored in tensors.items():
        network, _, leaf = name.partition("/")
        networks.setdefault(network, {})[torch_key(leaf)] = stored
    fields, system = dict(meta["config"]["model"]), system_name(meta["config"])
    fields.pop("references", None)
    if fields.get("temporal") is False:
        # Motion modules that join it may say themselves how long they are.
        for name in ("temporal", "temporal_heads", "max_frames"):
            fields.pop(name, None)
    if not fields.get("control_channels"):
        fields.pop("control_channels", None)
    # Where a network is not in there, whoever brings it says what it is.
    for name, network in (("kl", "autoencoder"), ("clip", "clip")):
        if network not in networks and fields.get(name):
            del fields[name]
    settings = {name: value for name, value in meta["config"].items() if name != "model"}
    return Source(str(path), fields, networks, settings, system)
