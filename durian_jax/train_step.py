"""The training step of a config, and the state it starts from. Reads no data and no flags."""

import functools
import zlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from durian_jax import checkpoint, sharding
from durian_jax.diffusion import Diffusion
from durian_jax.metrics import NUM_NOISE_BINS
from durian_jax.models.config import DurianConfig, blank_batch
from durian_jax.models.durian import Durian, align
from durian_jax.state import TrainState, apply_gradients, global_norm, group_name, init_state, merge
from input_pipeline.errors import InputError


def build(config, devices=None) -> tuple[jax.sharding.Mesh, Durian, Diffusion]:
    """Mesh, model and diffusion of a config; `devices` are those of `sharding.make_mesh`.

    Raises:
      InputError: values out of range.
    """
    try:
        mesh = sharding.make_mesh(config.mesh.fsdp, devices)
        model = Durian(DurianConfig.from_dict(config.model.to_dict()))
        diffusion = Diffusion(**config.diffusion)
    except ValueError as error:
        raise InputError(f"config: {error}") from error
    return mesh, model, diffusion


def check_batch(config, mesh: jax.sharding.Mesh) -> None:
    """Raises InputError if the batch of a training step cannot be shared out evenly."""
    parts = mesh.size * config.accumulate
    if min(config.batch_size, parts) < 1 or config.batch_size % parts:
        raise InputError(
            f"config: batch_size={config.batch_size} is no multiple of {mesh.size} devices times "
            f"accumulate={config.accumulate}: change one of them"
        )


def stream_key(seed: int, stream: str, step) -> jax.Array:
    """The random key of a stream at a step; nothing carries an RNG, so resuming is exact."""
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(stream.encode()))
    return jax.random.fold_in(key, step)


def make_train_step(
    model: Durian,
    diffusion: Diffusion,
    optimizer: optax.GradientTransformation,
    config,
    placement=None,
) -> Callable[[TrainState, dict], tuple[TrainState, dict]]:
    """The training step of Eq. 10 (F = 1) and Eq. 11 (F frames, one timestep per clip).

    Without temporal layers F frames of a clip are F samples of Eq. 10, each with a timestep of its
    own; they share their references. Each clip draws from a random key of its own, so that neither
    the number of devices nor `config.accumulate` changes what is drawn.

    Args:
      placement: a sharding for each trained parameter. Gradients take it as they come, or every
        device would hold, and sum over all devices, whole ones.

    Returns:
      A function of (state, batch contract) to (state, metrics): loss (weighted); grad_norm;
      noise_bin_errors, noise_bin_counts float32 [4], the unweighted errors by quarter of timesteps;
      skipped, as in TrainState.
    """

    def draw(key: jax.Array, frames: int) -> dict:
        """What a clip needs of chance; noises are float32 [F, h, w, c]."""
        keys = jax.random.split(key, 5)
        shape = (frames, *model.config.latent_shape)
        own = () if model.config.temporal or frames == 1 else (frames,)
        offset = jax.random.normal(keys[4], (1, 1, 1, shape[-1]))
        return {
            "timesteps": diffusion.draw_timesteps(keys[0], own),
            "keep": jax.random.uniform(keys[1]) >= config.stage.dropout,
            "posterior": jax.random.normal(keys[2], shape),
            "noise": jax.random.normal(keys[3], shape) + diffusion.noise_offset * offset,
        }

    def train_step(state: TrainState, batch: dict) -> tuple[TrainState, dict]:
        num_clips, frames = batch["video"].shape[:2]
        keys = jax.random.split(stream_key(config.seed, "train", state.step), num_clips)

        def gradients(part: tuple) -> tuple[dict, dict]:
            """Gradient of the mean loss over some clips (batch contract, keys), and metrics."""
            batch, keys = part
            drawn = jax.vmap(lambda key: draw(key, frames))(keys)
            timesteps, noise = drawn["timesteps"], drawn["noise"]

            def loss_function(trained):
                variables = {"params": merge(state.frozen, trained)}
                latents = model.apply(
                    variables, batch["video"], drawn["posterior"], method="encode_video"
                )
                latents = jax.lax.stop_gradient(latents)
                noisy = diffusion.add_noise(latents, noise, timesteps)
                prediction = model.apply(variables, batch, noisy, timesteps, drawn["keep"])
                target = diffusion.target(latents, noise, timesteps)
                errors = jnp.square(prediction - target)
                errors = errors.mean(tuple(range(timesteps.ndim, errors.ndim)))
                return (diffusion.loss_weight(timesteps) * errors).mean(), errors

            (loss, errors), grads = jax.value_and_grad(loss_function, has_aux=True)(state.trained)
            if placement is not None:
                grads = jax.lax.with_sharding_constraint(grads, placement)
            quarter = timesteps * NUM_NOISE_BINS // diffusion.num_timesteps
            bins = jax.nn.one_hot(quarter.reshape(-1), NUM_NOISE_BINS)
            sums = {"noise_bin_errors": errors.reshape(-1) @ bins, "noise_bin_counts": bins.sum(0)}
            return grads, {"loss": loss, **sums}

        grads, metrics = _accumulate(gradients, (batch, keys), config.accumulate)
        grads, loss = jax.tree.map(lambda x: x / config.accumulate, (grads, metrics["loss"]))
        norm = global_norm(grads)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        state = apply_gradients(state, grads, optimizer, config.ema_decay, finite)
        return state, {**metrics, "loss": loss, "grad_norm": norm, "skipped": state.skipped}

    return train_step


def jit_train_step(
    model: Durian,
    diffusion: Diffusion,
    optimizer: optax.GradientTransformation,
    config,
    layout: TrainState,
) -> Callable:
    """`make_train_step` compiled for a mesh: the state stays where `layout` says and is donated.

    Args:
      layout: of `state_layout`, or a state that lies there.
    """
    placement = jax.tree.map(lambda leaf: leaf.sharding, layout)
    results = sharding.replicated(layout.step.sharding.mesh)
    train_step = make_train_step(model, diffusion, optimizer, config, placement.trained)
    return jax.jit(train_step, out_shardings=(placement, results), donate_argnums=0)


def _accumulate(function: Callable, inputs, count: int):
    """The sum of `function` over `count` equal parts of the inputs' leading axis, part by part.

    A part takes every count-th row: each device then has its share of every part at hand.
    """
    if count == 1:
        return function(inputs)
    parts = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, count, *x.shape[1:]), 1, 0), inputs)
    shapes = jax.eval_shape(function, jax.tree.map(lambda x: x[0], parts))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    add = functools.partial(jax.tree.map, jnp.add)
    return jax.lax.scan(lambda total, part: (add(total, function(part)), None), zeros, parts)[0]


def state_layout(
    config, model: Durian, optimizer: optax.GradientTransformation, mesh: jax.sharding.Mesh
) -> TrainState:
    """Shape, dtype and sharding of every leaf of the state; computes nothing."""
    shapes = jax.eval_shape(_initializer(config, model, optimizer), jax.random.key(0), {})
    return sharding.lay_out(mesh, shapes)


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
        wanted = merge(layout.frozen, layout.trained)
        origin = check_fit(loaded, wanted, config.init_from)
        loaded = _place(loaded, wanted)
    placement = jax.tree.map(lambda leaf: leaf.sharding, layout)
    # It runs once: on CPUs code for its hundreds of draws takes longer to optimise than to run.
    quickly = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    create = jax.jit(
        _initializer(config, model, optimizer), out_shardings=placement, compiler_options=quickly
    )
    return create(stream_key(config.seed, "init", 0), loaded), origin


def _place(loaded: dict, layout: dict) -> dict:
    """Weights of the host where the layout wants them: no device holds the whole of a split one."""
    places = flatten_dict(layout)
    placed = {
        path: jax.make_array_from_callback(leaf.shape, places[path].sharding, leaf.__getitem__)
        for path, leaf in flatten_dict(loaded).items()
    }
    return unflatten_dict(placed)


def _initializer(config, model: Durian, optimizer: optax.GradientTransformation) -> Callable:
    """A function of (key, loaded parameters) to a state; loaded leaves replace drawn ones."""

    def create(key: jax.Array, loaded: dict) -> TrainState:
        latents = jnp.zeros((1, 1, *model.config.latent_shape))
        variables = model.init(key, blank_batch(model.config), latents, jnp.zeros(1, jnp.int32))
        params = variables["params"]
        if config.aligned_init:
            params = align(params)
        params = merge(params, loaded)
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
