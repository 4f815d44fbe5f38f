"""The training step of a config, and the state it starts from. Reads no data and no flags."""

import zlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict

from durian_jax import checkpoint, sharding
from durian_jax.diffusion import Diffusion
from durian_jax.metrics import NUM_NOISE_BINS
from durian_jax.models.config import DurianConfig, blank_batch
from durian_jax.models.durian import Durian
from durian_jax.state import TrainState, apply_gradients, group_name, init_state, merge
from input_pipeline.errors import InputError


def build(config) -> tuple[jax.sharding.Mesh, Durian, Diffusion]:
    """Mesh, model and diffusion of a config. Raises InputError for values out of range."""
    try:
        mesh = sharding.make_mesh(config.mesh.fsdp)
        model = Durian(DurianConfig.from_dict(config.model.to_dict()))
        diffusion = Diffusion(**config.diffusion)
    except ValueError as error:
        raise InputError(f"config: {error}") from error
    if config.batch_size < 1 or config.batch_size % mesh.size:
        raise InputError(
            f"config: batch_size={config.batch_size} is no multiple of {mesh.size} "
            "devices: change it"
        )
    return mesh, model, diffusion


def stream_key(seed: int, stream: str, step) -> jax.Array:
    """The random key of a stream at a step; nothing carries an RNG, so resuming is exact."""
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(stream.encode()))
    return jax.random.fold_in(key, step)


def make_train_step(
    model: Durian, diffusion: Diffusion, optimizer: optax.GradientTransformation, config
) -> Callable[[TrainState, dict], tuple[TrainState, dict]]:
    """The training step of Eq. 10 (F = 1) and Eq. 11 (F frames, one timestep per clip).

    Returns:
      A function of (state, batch contract) to (state, metrics): loss (weighted), grad_norm, and
      noise_bin_errors, noise_bin_counts float32 [4], the unweighted errors by quarter of timesteps.
    """

    def train_step(state: TrainState, batch: dict) -> tuple[TrainState, dict]:
        keys = jax.random.split(stream_key(config.seed, "train", state.step), 5)
        num_clips = batch["video"].shape[0]
        timesteps = jax.random.randint(keys[0], (num_clips,), 0, diffusion.num_timesteps)
        keep = jax.random.uniform(keys[1], (num_clips,)) >= config.stage.dropout

        def loss_function(trained):
            variables = {"params": merge(state.frozen, trained)}
            latents = model.apply(variables, batch["video"], keys[2], method="encode_video")
            latents = jax.lax.stop_gradient(latents)
            noise = jax.random.normal(keys[3], latents.shape)
            shape = (num_clips, 1, 1, 1, latents.shape[-1])
            noise += diffusion.noise_offset * jax.random.normal(keys[4], shape)
            noisy = diffusion.add_noise(latents, noise, timesteps)
            prediction = model.apply(variables, batch, noisy, timesteps, keep)
            target = diffusion.target(latents, noise, timesteps)
            errors = jnp.square(prediction - target).mean((1, 2, 3, 4))
            return (diffusion.loss_weight(timesteps) * errors).mean(), errors

        (loss, errors), grads = jax.value_and_grad(loss_function, has_aux=True)(state.trained)
        bins = jax.nn.one_hot(timesteps * NUM_NOISE_BINS // diffusion.num_timesteps, NUM_NOISE_BINS)
        metrics = {
            "loss": loss,
            "grad_norm": optax.tree.norm(grads),
            "noise_bin_errors": errors @ bins,
            "noise_bin_counts": bins.sum(0),
        }
        return apply_gradients(state, grads, optimizer, config.ema_decay), metrics

    return train_step


def state_layout(
    config, model: Durian, optimizer: optax.GradientTransformation, mesh: jax.sharding.Mesh
) -> TrainState:
    """Shape, dtype and sharding of every leaf of the state; computes nothing."""
    shapes = jax.eval_shape(_initializer(config, model, optimizer), jax.random.key(0), {})
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        shapes,
        sharding.state_sharding(mesh, shapes),
    )


def create_state(
    config, model: Durian, optimizer: optax.GradientTransformation, layout: TrainState
) -> tuple[TrainState, str]:
    """The state at step 0, made where `layout` wants it, and a line on where its weights come from.

    Raises:
      InputError: `config.init_from` is no run, or its weights do not fit the model.
    """
    loaded, origin = {}, "weights: all drawn at random"
    if config.init_from:
        loaded, _ = checkpoint.load(config.init_from)
        origin = check_fit(loaded, merge(layout.frozen, layout.trained), config.init_from)
    placement = jax.tree.map(lambda leaf: leaf.sharding, layout)
    create = jax.jit(_initializer(config, model, optimizer), out_shardings=placement)
    return create(stream_key(config.seed, "init", 0), loaded), origin


def _initializer(config, model: Durian, optimizer: optax.GradientTransformation) -> Callable:
    """A function of (key, loaded parameters) to a state; loaded leaves replace drawn ones."""

    def create(key: jax.Array, loaded: dict) -> TrainState:
        latents = jnp.zeros((1, 1, *model.config.latent_shape))
        variables = model.init(key, blank_batch(model.config), latents, jnp.zeros(1, jnp.int32))
        params = merge(variables["params"], loaded)
        return init_state(params, config.stage.trainable, config.stage.frozen, optimizer)

    return create


def check_fit(loaded: dict, wanted: dict, source: str) -> str:
    """Says what of `wanted` (abstract parameters) the loaded weights cover.

    Raises:
      InputError: a loaded weight has no place in the model, or another shape there.
    """
    loaded, wanted = flatten_dict(loaded, sep="/"), flatten_dict(wanted, sep="/")
    for name, leaf in loaded.items():
        if name not in wanted or wanted[name].shape != leaf.shape:
            place = (
                f"has {wanted[name].shape} for it" if name in wanted else "has no such parameter"
            )
            raise InputError(
                f"init_from {source}: {name} {leaf.shape} does not fit, the model {place}: "
                "use the config.model that the weights were trained with"
            )
    fresh = sorted({group_name(name) for name in wanted.keys() - loaded.keys()})
    drawn = f"; drawn at random: {', '.join(fresh)}" if fresh else ""
    return f"weights: {len(loaded)} of {len(wanted)} tensors from {source}{drawn}"
