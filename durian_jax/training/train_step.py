"""The training step of a config, and the state it starts from. Reads no data and no flags."""

import concurrent.futures
import dataclasses
import functools
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict

from durian_jax.diffusion.process import Process, make_process
from durian_jax.distributed import chips, sharding
from durian_jax.systems.system import System, build, init_params
from durian_jax.training import drawing, flops
from durian_jax.training.reporter import NUM_NOISE_BINS
from durian_jax.training.state import (
    TrainState,
    apply_gradients,
    global_norm,
    group_name,
    init_state,
    make_optimizer,
)
from durian_jax.weights import loading
from durian_jax.weights.trees import merge
from input_pipeline.errors import InputError


@dataclasses.dataclass(frozen=True)
class Training:
    """What a config trains and on which devices; nothing is computed yet.

    Attributes:
      mesh, system, process, optimizer: what the config describes.
      initial: the function of (key, loaded parameters) to a state at step 0; it may be traced.
      layout: shape, dtype and sharding of every leaf of the training state.
    """

    config: Any  # an ml_collections.ConfigDict; a run reads it, and needs no more of that package
    mesh: jax.sharding.Mesh
    system: System
    process: Process
    optimizer: optax.GradientTransformation
    initial: Callable[[jax.Array, dict], TrainState]
    layout: TrainState

    @classmethod
    def build(cls, config, devices=None) -> "Training":
        """From a config; `devices` are those of `sharding.make_mesh`.

        Raises:
          InputError: values out of range.
        """
        try:
            mesh = sharding.make_mesh(config.mesh.fsdp, devices)
            system = build(config.to_dict())
            process = make_process(config.diffusion)
        except ValueError as error:
            raise InputError(f"config: {error}") from error
        dropout, parts = config.stage.dropout, system.parts
        if isinstance(dropout, (tuple, list)) and len(dropout) != len(parts):
            raise InputError(
                f"config: stage.dropout={tuple(dropout)} has {len(dropout)} chances, the model "
                f"{len(parts)} conditions ({', '.join(parts)}): give one for each, or a number"
            )
        optimizer = make_optimizer(config.steps, **config.optimizer)
        initial = _initializer(config, system, optimizer)
        layout = sharding.shard_layout(mesh, jax.eval_shape(initial, jax.random.key(0), {}))
        return cls(config, mesh, system, process, optimizer, initial, layout)

    def check_batch_size(self) -> None:
        """Raises InputError if the batch of a step cannot be shared out evenly."""
        config, parts = self.config, self.mesh.size * self.config.accumulate
        if min(config.batch_size, parts) < 1 or config.batch_size % parts:
            raise InputError(
                f"config: batch_size={config.batch_size} is no multiple of {self.mesh.size} devices"
                f" times accumulate={config.accumulate}: change one of them"
            )

    def batch_layout(self, clips: int) -> dict:
        """Shape, dtype and sharding of a batch of so many clips."""
        shapes = jax.eval_shape(lambda: self.system.blank_batch(clips, self.config.data.frames))
        split = sharding.batch_sharding(self.mesh)
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=split), shapes
        )

    def create_state(self) -> tuple[TrainState, str]:
        """The state at step 0, made where the layout wants it, and where its weights come from.

        Raises:
          InputError: `config.init_from` is no run, or its weights do not fit the model.
        """
        loaded, origin = {}, "weights: all drawn at random"
        if self.config.init_from:
            loaded, _ = loading.load(self.config.init_from)
            wanted = merge(self.layout.frozen, self.layout.trained)
            origin = check_fit(loaded, wanted, self.config.init_from)
        state = drawing.run(self.initial, stream_key(self.config.seed, "init", 0), loaded)
        return jax.tree.map(_place, state, self.layout), origin

    def step_function(self) -> Callable[[TrainState, dict], tuple[TrainState, dict]]:
        """Gradients and update in one function to be jitted, as a plan counts them."""
        gradients = make_gradients(self.system, self.process, self.config, self.placement.trained)
        update = make_update(self.optimizer, self.config)

        def step(state: TrainState, batch: dict) -> tuple[TrainState, dict]:
            grads, metrics = gradients(state, batch)
            state, more = update(state, grads, metrics["loss"])
            return state, metrics | more

        return step

    @property
    def placement(self) -> TrainState:
        """The shardings of the layout."""
        return jax.tree.map(lambda leaf: leaf.sharding, self.layout)


class TrainStep:
    """The training step as two programs: gradients, then the update, which the state is donated to.

    XLA's CPU compiler works on both at the same time; one program of both takes it 1.7 times as
    long. A call is a step: (state, batch) to (state, metrics), where the metrics are those of
    `make_gradients` and `make_update`. The first call compiles what `compile` has not.
    """

    def __init__(self, training: Training):
        self._training, config, placement = training, training.config, training.placement
        results = sharding.replicated(training.mesh)
        gradients = make_gradients(training.system, training.process, config, placement.trained)
        self._gradients = jax.jit(gradients, out_shardings=(placement.trained, results))
        self._update = jax.jit(
            make_update(training.optimizer, config),
            out_shardings=(placement, results), donate_argnums=0,
        )  # fmt: skip

    def compile(self) -> dict[str, int]:
        """Compiles both for batches of `config.batch_size`.

        Returns:
          Bytes per device: of "state" and "batch", and what "gradients" and "update" allocate
          beside them.
        """
        layout = self._training.layout
        batch = self._training.batch_layout(self._training.config.batch_size)
        loss = jax.ShapeDtypeStruct((), jnp.float32, sharding=layout.step.sharding)
        traced = self._gradients.trace(layout, batch)
        self._flops = flops.count_jaxpr(traced.jaxpr.jaxpr).model
        with concurrent.futures.ThreadPoolExecutor() as pool:
            gradients = pool.submit(traced.lower().compile)
            # XLA is at work while Python traces the update.
            update = self._update.lower(layout, layout.trained, loss).compile()
            compiled = gradients.result(), update
        self._gradients, self._update = compiled
        first, second = (program.memory_analysis() for program in compiled)
        grads = sharding.local_bytes(layout.trained)
        return {
            "state": sharding.local_bytes(layout),
            "batch": sharding.local_bytes(batch),
            "gradients": first.temp_size_in_bytes + first.output_size_in_bytes,
            "update": grads + second.temp_size_in_bytes,
        }

    def rates(self, seconds: float) -> dict[str, float]:
        """Speed of a compiled step that takes so long, of all devices together.

        Returns:
          tflops, 1e12 model FLOP/s (`flops.Work.model`); where the peak of the chip is known also
          mfu, the share of it, 0 to 1.
        """
        devices = self._training.mesh.devices
        rate, peak = self._flops / seconds, chips.of_device(devices.flat[0]).peak
        used = {} if peak is None else {"mfu": rate / (peak * devices.size)}
        return {"tflops": rate / 1e12, **used}

    def __call__(self, state: TrainState, batch: dict) -> tuple[TrainState, dict]:
        grads, metrics = self._gradients(state, batch)
        state, more = self._update(state, grads, metrics["loss"])
        return state, metrics | more


def stream_key(seed: int, stream: str, step) -> jax.Array:
    """The random key of a stream at a step; nothing carries an RNG, so resuming is exact."""
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(stream.encode()))
    return jax.random.fold_in(key, step)


def make_gradients(
    system: System, process: Process, config, placement: dict
) -> Callable[[TrainState, dict], tuple[dict, dict]]:
    """The gradients of Eq. 10 (F = 1) and Eq. 11 (F frames, one timestep per clip).

    Without temporal layers F frames of a clip are F samples of Eq. 10, each with a timestep of its
    own; they share their references. Each clip draws from a random key of its own, so that neither
    the number of devices nor `config.accumulate` changes what is drawn.

    Args:
      placement: a sharding for each trained parameter. Gradients take it as they come, or every
        device would hold, and sum over all devices, whole ones.

    Returns:
      A function of (state, batch contract) to (gradients, metrics): loss (weighted);
      noise_bin_errors, noise_bin_counts float32 [4], the unweighted errors by quarter of timesteps.
    """

    def draw(key: jax.Array, frames: int) -> dict:
        """What a clip needs of chance; noises are float32 [F, h, w, c]."""
        keys = jax.random.split(key, 5)
        shape = (frames, *system.latent_shape)
        own = () if system.temporal or frames == 1 else (frames,)
        offset = jax.random.normal(keys[4], (1, 1, 1, shape[-1]))
        return {
            "times": process.draw(keys[0], own),
            "keep": _keep(keys[1], len(system.parts), config.stage.dropout),
            "posterior": jax.random.normal(keys[2], shape),
            "noise": jax.random.normal(keys[3], shape) + process.noise_offset * offset,
        }

    def gradients(state: TrainState, batch: dict) -> tuple[dict, dict]:
        num_clips, frames = batch["video"].shape[:2]
        keys = jax.random.split(stream_key(config.seed, "train", state.step), num_clips)

        def of_part(part: tuple) -> tuple[dict, dict]:
            """Gradient of the mean loss over some clips (batch contract, keys), and metrics."""
            batch, keys = part
            drawn = jax.vmap(lambda key: draw(key, frames))(keys)
            t, noise = drawn["times"], drawn["noise"]

            def loss_function(trained):
                variables = {"params": merge(state.frozen, trained)}
                latents = system.apply(
                    variables, batch["video"], drawn["posterior"], method="encode_video"
                )
                latents = jax.lax.stop_gradient(latents)

                def predict(noisy):
                    return system.apply(variables, batch, noisy, t, drawn["keep"])

                return denoising_loss(process, predict, latents, noise, t)

            (loss, errors), grads = jax.value_and_grad(loss_function, has_aux=True)(state.trained)
            grads = jax.lax.with_sharding_constraint(grads, placement)
            bins = noise_bins(process, t)
            sums = {"noise_bin_errors": errors.reshape(-1) @ bins, "noise_bin_counts": bins.sum(0)}
            return grads, {"loss": loss, **sums}

        grads, metrics = _accumulate(of_part, (batch, keys), config.accumulate)
        grads, loss = jax.tree.map(lambda x: x / config.accumulate, (grads, metrics["loss"]))
        return grads, {**metrics, "loss": loss}

    return gradients


def denoising_loss(
    process: Process, predict: Callable, latents: jax.Array, noise: jax.Array, t: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The weighted loss of `predict` at noised latents [B, F, h, w, c], and the errors before
    weights, of the shape of the times t: [B], or [B, F]."""
    prediction = predict(process.add_noise(latents, noise, t))
    errors = jnp.square(prediction - process.target(latents, noise, t))
    errors = errors.mean(tuple(range(t.ndim, errors.ndim)))
    return (process.loss_weight(t) * errors).mean(), errors


def noise_bins(process: Process, t: jax.Array) -> jax.Array:
    """One-hot float32 [t.size, NUM_NOISE_BINS]: the quarter of the noise levels of each time."""
    quarter = jnp.int32(process.level(t) * NUM_NOISE_BINS)
    return jax.nn.one_hot(quarter.reshape(-1), NUM_NOISE_BINS)


def _keep(key: jax.Array, count: int, dropout: float | tuple[float, ...]) -> jax.Array:
    """bool [count]: which conditions a clip keeps; one that is dropped takes those after it along.

    Args:
      dropout: chance that each is dropped, or one for all.
    """
    drawn = jax.random.uniform(key, (count,)) >= jnp.broadcast_to(jnp.asarray(dropout), (count,))
    return jnp.cumprod(drawn).astype(bool)


def make_update(
    optimizer: optax.GradientTransformation, config
) -> Callable[[TrainState, dict, jax.Array], tuple[TrainState, dict]]:
    """What follows the gradients.

    Returns:
      A function of (state, gradients, loss) to (state, metrics): grad_norm; skipped, as in
      TrainState. A loss or gradient that is not finite changes no weights.
    """

    def update(state: TrainState, grads: dict, loss: jax.Array) -> tuple[TrainState, dict]:
        norm = global_norm(grads)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        state = apply_gradients(state, grads, optimizer, config.ema_decay, finite)
        return state, {"grad_norm": norm, "skipped": state.skipped}

    return update


def _accumulate(function: Callable, inputs, count: int):
    """The sum of `function` over `count` equal parts of the inputs' leading axis, part by part.

    A part takes every count-th row: each device then has its share of every part already.
    """
    if count == 1:
        return function(inputs)
    parts = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, count, *x.shape[1:]), 1, 0), inputs)
    shapes = jax.eval_shape(function, jax.tree.map(lambda x: x[0], parts))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    add = functools.partial(jax.tree.map, jnp.add)
    return jax.lax.scan(lambda total, part: (add(total, function(part)), None), zeros, parts)[0]


def _place(leaf: np.ndarray, place: jax.ShapeDtypeStruct) -> jax.Array:
    """An array of the host where the layout wants it: no device holds the whole of a split one."""

    def part(index) -> np.ndarray:
        # Memory of its own: the step is given the state to write into.
        return np.array(leaf[index], place.dtype)

    return jax.make_array_from_callback(leaf.shape, place.sharding, part)


def _initializer(config, system: System, optimizer: optax.GradientTransformation) -> Callable:
    """A function of (key, loaded parameters) to a state; loaded leaves replace drawn ones."""
    if hasattr(system.config, "remat"):
        # The same parameters, with nothing nested in what draws them.
        system = system.clone(config=dataclasses.replace(system.config, remat=()))

    def create(key: jax.Array, loaded: dict) -> TrainState:
        params = init_params(system, key)
        if config.aligned_init:
            params = system.align(params)
        params = merge(params, loaded)
        frozen = (*config.stage.frozen, *system.dead_parameters())
        return init_state(params, config.stage.trainable, frozen, optimizer)

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
