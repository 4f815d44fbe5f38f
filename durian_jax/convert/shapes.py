"""Parameter shapes of each network of a model; nothing is computed."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from durian_jax.models.conditions import ConstantContext, ConstantText, KeypointEncoder
from durian_jax.models.mmdit import MMDiT
from durian_jax.models.unet import UNet
from durian_jax.systems.system import System

Shapes = dict[str, tuple[int, ...]]  # parameter path -> shape


def network_shapes(system: System, name: str) -> Shapes:
    """Parameter shapes of one network."""
    config = system.config
    module, _ = getattr(system.bind({}), name).unbind()
    if isinstance(module, UNet):
        return unet_shapes(module)
    if name == "autoencoder":
        return _trace(module, (1, 16, 16, 3), _encode_and_decode)
    if isinstance(module, ConstantContext):
        return {"embedding": (module.tokens, module.width)}
    if isinstance(module, ConstantText):
        return {"embedding": (module.tokens, module.width), "pooled": (module.pooled,)}
    if isinstance(module, MMDiT):
        side = module.config.patch
        return _trace(module, (1, 1, side, side, module.channels), _run_mmdit)
    if name in ("clip", "arcface"):
        side = getattr(config, name).image_size
        return _trace(module, (1, side, side, 3))
    if name == "face_projection":
        return _trace(module, (1, config.arcface.embedding))
    return _trace(module, (1, 2 * config.factor, 2 * config.factor, 3), _run_keypoints)


def unet_shapes(module: UNet) -> Shapes:
    """Parameter shapes of a UNet, whatever it is used for."""
    side = 2 ** (len(module.config.block_out_channels) - 1)
    return _trace(module, (1, side, side, module.config.in_channels), _run_unet)


def _encode_and_decode(module: nn.Module, images: jax.Array) -> jax.Array:
    return module.decode(module.encode(images))


def _run_keypoints(module: KeypointEncoder, pictures: jax.Array) -> jax.Array:
    return module(pictures, jnp.zeros((1, 2, 2, 2)) if module.coordinates else None)


def _run_mmdit(module: MMDiT, z: jax.Array):
    shape = module.config
    text = jnp.zeros((1, 1, shape.context_dim)), jnp.zeros((1, shape.pooled_dim))
    return module(z, jnp.zeros(1), *text)


def _run_unet(module: UNet, x: jax.Array):
    config = module.config
    context = jnp.zeros((1, 1, config.context_dim)) if config.context_dim else None
    now = jnp.zeros(1, jnp.int32)
    if config.control_channels:
        side = x.shape[1] * 2 ** (len(config.control_channels) - 1)
        features = module.encode_pictures(jnp.zeros((1, side, side, 3)))
        return module.control(x, now, features, context)
    call = module if config.out_channels else module.capture
    return call(x, now, context)


# Tracing takes seconds at full size; equal networks, such as the encoders, are traced once.
@functools.cache
def _trace(module: nn.Module, shape: tuple[int, ...], method: Callable | None = None) -> Shapes:
    init = functools.partial(module.init, method=method)
    tree = jax.eval_shape(init, jax.random.key(0), jnp.zeros(shape))["params"]
    return {path: leaf.shape for path, leaf in flatten_dict(tree, sep="/").items()}
