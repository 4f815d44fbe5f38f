"""Sources -> one folder of weights."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from durian_jax.convert.names import Table, match, rename, torch_key
from durian_jax.convert.shapes import Shapes, network_shapes
from durian_jax.convert.source import UNETS, Source
from durian_jax.convert.sources import (
    animatediff,
    arcface,
    diffusers,
    diffusers_flax,
    durian,
    ldm,
    moore,
    prompt,
    sd3,
    x_portrait,
)
from durian_jax.diffusion.process import make_process
from durian_jax.diffusion.solvers import Sampling
from durian_jax.models.conditions import FaceProjection, KeypointEncoder
from durian_jax.systems.system import System, build
from durian_jax.weights import storage
from durian_jax.weights.hub_cache import snapshot
from durian_jax.weights.storage import Stored
from input_pipeline.errors import InputError

SOURCES = {
    "diffusers": diffusers.read,
    "diffusers-flax": diffusers_flax.read,
    "animatediff": animatediff.read,
    "moore": moore.read,
    "arcface": arcface.read,
    "ldm": ldm.read,
    "x-portrait": x_portrait.read,
    "prompt": prompt.read,
    "durian": durian.read,
}
_HEAD: Table = ((r"^conv_norm_out\.|^conv_out\.", None),)
_CROSS_ATTENTION: Table = ((r"\.attn2\.|\.transformer_blocks\.0\.norm2\.", None),)
_WAY_UP: Table = ((r"^up_blocks\.", None),)
_MOTION = "motion_modules_"
_TRUNK = "controlnet_"  # what a ControlNet has besides the denoiser's way down
_MOST_NAMED = 5  # tensors that are not finite, of each file
_REFERENCE = ("portrait_encoder", "attribute_encoder")


@dataclasses.dataclass(frozen=True)
class Joined:
    """Several sources as one model.

    Attributes:
      config: of a run, in plain values: `model`, `diffusion`, `sample`, and what else came along.
      networks: top-level network -> parameter path -> tensor of its shape and layout.
      drawn: networks, or parts of them, that start afresh, as the method has it: no source can
        give them.
      absent: networks that no source gave, without which the model cannot run.
    """

    config: dict
    networks: dict[str, dict[str, Stored]]
    drawn: list[str]
    absent: list[str]


def convert(sources: list[tuple[str, Path]], out: Path) -> Joined:
    """Reads sources, (kind of SOURCES, path) pairs, and writes a folder of weights, `out`.

    Nothing is written before every tensor has found its place.

    Raises:
      InputError: a source that cannot be read or does not fit, or `out` is already there.
    """
    for kind, _ in sources:
        if kind not in SOURCES:
            raise InputError(f"{kind}: unknown source: choose {', '.join(SOURCES)}", option="from")
    joined = join([SOURCES[kind](snapshot(path)) for kind, path in sources])
    save(joined, [{"from": kind, "path": str(path)} for kind, path in sources], out)
    for names, text in ((joined.drawn, "drawn at random"), (joined.absent, "no source gives")):
        if names:
            print(f"note: {text}: {', '.join(names)}")
    return joined


def save(joined: Joined, sources: list[dict], out: Path, dtype: str = "float32") -> None:
    """Writes a folder of weights, tensor by tensor; dtype: see `storage.write_safetensors`."""
    facts = {
        "config": joined.config, "sources": sources, "drawn": joined.drawn, "absent": joined.absent,
    }  # fmt: skip
    with contextlib.closing(with_progress(joined.networks)) as networks:
        storage.write(out, networks, facts, dtype)


def with_progress(networks: dict[str, dict[str, Stored]]) -> Iterator:
    """(network, tensors) pairs; a bar moves with the bytes that are read of them.

    In the end it prints which tensors hold NaN or infinite values.
    """
    size = sum(4 * np.prod(s.shape) for tensors in networks.values() for s in tensors.values())
    damaged = {}
    with tqdm(total=int(size), desc="converting", unit="B", unit_scale=True) as bar:

        def read(stored: Stored) -> np.ndarray:
            bar.update(int(4 * np.prod(stored.shape)))
            array = stored.read()
            if bad := array.size - np.count_nonzero(np.isfinite(array)):
                # Several networks may start from one tensor.
                damaged[stored.file, stored.key] = f"{stored.key} ({bad} of {array.size} values)"
            return array

        for network, tensors in networks.items():
            yield (
                network,
                {
                    name: dataclasses.replace(stored, read=functools.partial(read, stored))
                    for name, stored in tensors.items()
                },
            )
    for file in dict.fromkeys(file for file, _ in damaged):
        names = [text for (other, _), text in damaged.items() if other == file]
        print(f"note: {file}: NaN or infinite: {', '.join(names[:_MOST_NAMED])}", end="")
        print(f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else "")


def join(sources: list[Source]) -> Joined:
    """One model of all sources; reads no tensor but tables of positions.

    Raises:
      InputError: sources that contradict each other or give the same tensor twice, or tensors
        that do not fit.
    """
    name = _system_name(sources)
    system, tensors = _build(name, sources), {}
    for source in sources:
        for network, new in source.weights.items():
            known = tensors.setdefault(network, {})
            twice = sorted(known.keys() & new.keys())
            if twice:
                raise InputError(
                    f"{source.name}: {network} {twice[0]} is also in {known[twice[0]].file}: give "
                    "one of them"
                )
            known.update(new)
    present, model = system.networks, system.config
    for network in set(UNETS) - set(present):
        # A U-Net source gives every network of its shape.
        tensors.pop(network, None)
    unknown = sorted(tensors.keys() - set(present))
    if unknown:
        raise InputError(f"{sources[-1].name}: the model has no {unknown[0]}")

    found, drawn, absent, text = {}, [], [], {}
    spatial = any("motion_modules" not in key for key in tensors.get("denoiser", ()))
    for network in present:
        if tensors.get(network):
            wanted, given = network_shapes(system, network), tensors[network]
            if network == "denoiser" and not spatial:
                wanted = {path: shape for path, shape in wanted.items() if _MOTION in path}
                absent.append(f"{network} (but for its motion modules)")
            ours = [path for path in wanted if sd3.OURS in path]
            if ours and not any(torch_key(path) in given for path in ours):
                wanted = {path: shape for path, shape in wanted.items() if path not in ours}
                absent.append(f"{network} (video attention)")
            encoder, fresh = network in _REFERENCE, {}
            if encoder:
                given = rename(given, _unused(wanted))
            elif not any(key.startswith(_TRUNK) for key in given):
                fresh = {path: shape for path, shape in wanted.items() if path.startswith(_TRUNK)}
            if fresh:
                given = rename(given, (*_HEAD, *_WAY_UP))
                wanted = {path: shape for path, shape in wanted.items() if path not in fresh}
                drawn.append(f"{network} (but for the denoiser's way down)")
            found[network] = match(network, wanted, given, "conv_in/kernel" if encoder else "")
            found[network] |= _draw_trunk(fresh, model)
        elif spatial and network == "prompt" and name == sd3.SYSTEM:
            found[network] = _zeros(network_shapes(system, network))
            text = {"prompt": "zeros"}
        elif spatial and network in ("keypoint_encoder", "face_projection"):
            found[network] = _draw(network, model)
            drawn.append(network)
        else:
            absent.append(network)
    window = min(Sampling.window, model.max_frames)
    sample = {name: getattr(Sampling, name) for name in ("steps", "solver", "guidance")}
    sample |= {"window": window, "overlap": min(Sampling.overlap, window // 4)}
    settings = {"diffusion": {}, "sample": sample, **text}
    for source in sources:
        settings |= source.settings
    diffusion = dataclasses.asdict(make_process(settings["diffusion"]))
    config = {**settings, "system": name, "model": _plain(model), "diffusion": diffusion}
    return Joined(config, found, drawn, absent)


def _system_name(sources: list[Source]) -> str:
    """The system that all sources are of."""
    named = {source.system: source.name for source in sources if source.system}
    if len(named) > 1:
        (one, first), (two, second), *_ = named.items()
        raise InputError(
            f"{first} is of the system {one}, {second} of {two}: these do not belong together"
        )
    return next(iter(named), "durian")


def _build(system: str, sources: list[Source]) -> System:
    """The system with the fields of all sources; the rest is as in Stable Diffusion 1.5."""
    fields, origin = {}, {}
    for source in sources:
        for name, value in source.fields.items():
            if name in fields and not _agree(fields[name], value):
                raise InputError(
                    f"{source.name}: {name} is {value}, but {fields[name]} in {origin[name]}: "
                    "these do not belong together"
                )
            fields[name], origin[name] = value, source.name
    channels = fields.pop("latent_channels", None)
    size = fields.pop("latent_size", None)
    default = build({"system": system, "model": {}}).config
    if hasattr(default, "arcface"):
        # Without ArcFace weights the portrait encoder has no cross-attention.
        fields.setdefault("arcface", None)
    kl = _autoencoder(fields, channels, default)
    if hasattr(default, "clip"):
        clip = fields.setdefault("clip", {"projection_dim": fields.get("context_dim", 768)})
        if clip is not None and "context_dim" not in fields:
            fields["context_dim"] = clip["projection_dim"]
    try:
        if size is not None and "resolution" not in fields:
            fields["resolution"] = size * 2 ** (len(kl["block_out_channels"]) - 1)
        built = build({"system": system, "model": fields})
        if channels not in (None, built.latent_shape[-1]):
            raise ValueError(
                f"the UNet has {channels} channels, the autoencoder {built.latent_shape[-1]}: "
                "they do not belong together"
            )
        return built
    except (ValueError, TypeError, ZeroDivisionError) as error:
        names = " and ".join(sorted({source.name for source in sources}))
        raise InputError(f"{names}: {error}") from error


def _autoencoder(fields: dict, channels: int | None, default) -> dict:
    """The shape of the autoencoder; all that encodes pictures shrinks them alike."""
    if "kl" not in fields:
        stages = fields.get("keypoint_channels") or fields.get("control_channels") or (0,) * 4
        widths = default.kl.block_out_channels[: len(stages)]
        fields["kl"] = dataclasses.asdict(default.kl) | {"block_out_channels": widths}
        del fields["kl"]["dtype"]
        fields["kl"]["latent_channels"] = channels or default.kl.latent_channels
    kl = fields["kl"] or {}
    for name in ("keypoint_channels", "control_channels"):
        if "block_out_channels" in kl and hasattr(default, name):
            fields.setdefault(name, getattr(default, name)[: len(kl["block_out_channels"])])
    return kl


def _unused(shapes: Shapes) -> Table:
    """What a reference encoder has no use for: the output head, cross-attention without context."""
    has_context = any("/attn2/" in path for path in shapes)
    return (*_HEAD, *(() if has_context else _CROSS_ATTENTION))


def _draw(network: str, config) -> dict[str, Stored]:
    """Initial weights of the small networks that the method trains from scratch."""
    if network == "keypoint_encoder":
        return _draw_encoder(config.keypoint_channels, config)
    return _initial(FaceProjection(config.context_dim), (1, config.arcface.embedding))


def _draw_trunk(fresh: Shapes, config) -> dict[str, Stored]:
    """The encoder of pictures and the zero convolutions, which add nothing before training."""
    encoder = f"{_TRUNK}cond_embedding"
    if not fresh:
        return {}
    drawn = {
        f"{encoder}/{path}": stored
        for path, stored in _draw_encoder(config.control_channels, config).items()
    }
    zeros = {
        path: np.zeros(shape, np.float32) for path, shape in fresh.items() if path not in drawn
    }
    return drawn | storage.flat(zeros, "drawn at random")


def _draw_encoder(channels: tuple[int, ...], config) -> dict[str, Stored]:
    module = KeypointEncoder(channels, config.channels[0])
    return _initial(module, (1, 2 * config.factor, 2 * config.factor, 3))


def _initial(module: nn.Module, shape: tuple[int, ...]) -> dict[str, Stored]:
    """The drawn parameters of a module that takes an array of a shape."""
    params = jax.jit(module.init)(jax.random.key(0), jnp.zeros(shape))["params"]
    return storage.flat(jax.tree.map(np.asarray, params), "drawn at random")


def _zeros(shapes: Shapes) -> dict[str, Stored]:
    """Parameters that are all zero."""
    arrays = {path: np.zeros(shape, np.float32) for path, shape in shapes.items()}
    return storage.flat(arrays, "zeros")


def _plain(config) -> dict:
    """The config as JSON holds it."""
    return {name: _listed(value) for name, value in dataclasses.asdict(config).items()}


def _agree(one, other) -> bool:
    """Whether two sources say the same, in what both say; the compute dtype is nobody's."""
    if isinstance(one, dict) and isinstance(other, dict):
        return all(_agree(one[k], other[k]) for k in one.keys() & other.keys() - {"dtype"})
    return _listed(one) == _listed(other)


def _listed(value):
    if isinstance(value, dict):
        return {name: _listed(item) for name, item in value.items()}
    return list(value) if isinstance(value, tuple) else value
