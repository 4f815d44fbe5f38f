"""Training: one loop for every stage, size and machine. What differs stands in the config."""

import contextlib
import functools
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict

from durian_jax import checkpoint, sampler, sharding
from durian_jax.diffusion import Diffusion
from durian_jax.metrics import NUM_NOISE_BINS, Interval, Reporter
from durian_jax.models.config import DurianConfig, blank_batch
from durian_jax.models.durian import Durian
from durian_jax.state import (
    TrainState,
    apply_gradients,
    describe,
    group_name,
    init_state,
    make_optimizer,
    merge,
)  # fmt: skip
from input_pipeline.errors import InputError


def train(config, workdir: str | Path) -> TrainState:
    """Trains to `config.steps`; run again, it continues from the newest checkpoint in `workdir`.

    Args:
      config: what `configs/*.py` return (an ml_collections.ConfigDict).
      workdir: directory of the run: checkpoints, metrics.jsonl, loss.png, tensorboard, samples.

    Returns:
      The final state.

    Raises:
      InputError: bad data set or config, a run of another config in `workdir`, or initial weights
        that do not fit.
    """
    # Only the loop reads data; the training step imports without grain.
    from input_pipeline import loader, shards

    workdir = Path(workdir)
    mesh, model, diffusion = build(config)
    optimizer = make_optimizer(**config.optimizer)
    if config.data.path.startswith("synth:"):
        from input_pipeline.synthetic.dataset import Rendered

        if config.data.workers:
            raise InputError(
                f"data.workers is {config.data.workers}, data.path {config.data.path} is rendered "
                "by the process that trains: set --config.data.workers=0"
            )
        dataset = Rendered(config.data.path)
    else:
        dataset = shards.Dataset(config.data.path)
    open_loader = functools.partial(
        loader.Loader, dataset, sample_options(config),
        batch_size=config.batch_size, workers=config.data.workers,
        process_index=jax.process_index(), process_count=jax.process_count(),
    )  # fmt: skip

    checkpoints = checkpoint.Checkpoints(workdir, config.save.keep)
    first_step, loader_state = checkpoints.latest_step or 0, None
    if first_step:
        checkpoints.refuse_other(config.to_dict())
    report = Reporter(workdir, first_step, enabled=jax.process_index() == 0)
    layout = state_layout(config, model, optimizer, mesh)
    if first_step:
        state, loader_state = checkpoints.restore(layout)
        origin = f"resumed at step {first_step} of {config.steps}"
    else:
        report.say("drawing the initial weights (compiling) ...")
        state, origin = create_state(config, model, optimizer, layout)
    report.say(describe(state))
    report.say(origin)
    if first_step >= config.steps:
        report.say(f"nothing to do: {first_step} of {config.steps} steps are done")
        return state

    with contextlib.closing(open_loader(seed=config.seed + 1)) as batches:
        fixed_batch = sharding.put_batch(next(batches), mesh)
    draw_samples = make_sample_grid(model, diffusion, config)
    report.say("compiling the training step ...")
    start = time.perf_counter()
    train_step = jax.jit(
        make_train_step(model, diffusion, optimizer, config),
        out_shardings=(jax.tree.map(lambda leaf: leaf.sharding, state), sharding.replicated(mesh)),
        donate_argnums=0,
    )
    train_step = train_step.lower(state, fixed_batch).compile()
    report.say(f"compiled in {time.perf_counter() - start:.0f} s")

    def is_due(every: int, step: int) -> bool:
        return step > first_step and (step == config.steps or (every and step % every == 0))

    interval, pending = Interval(), None
    with contextlib.closing(open_loader(seed=config.seed, state=loader_state)) as batches:
        # Fixed order: evaluate, save, next batch, dispatch, log the step before. A checkpoint
        # holds the state of the loader before the batch of the step that follows it.
        for step in range(first_step, config.steps + 1):
            with interval.paused():
                if is_due(config.sample.every, step):
                    report.picture(step, "samples", draw_samples(state, fixed_batch))
                    report.draw_loss_curve()
                if is_due(config.save.every, step):
                    checkpoints.save(state, batches.get_state(), {"config": config.to_dict()})
            if step < config.steps:
                batch = interval.wait(lambda: next(batches))
                state, metrics = train_step(state, sharding.put_batch(batch, mesh))
            if pending is not None:
                interval.add(jax.device_get(pending))
                if is_due(config.log_every, step):
                    corrupt = {"corrupt_records": batches.num_corrupt}
                    report.scalars(step, interval.summary() | corrupt)
            pending = metrics
    report.draw_loss_curve()
    report.close()
    checkpoints.close()
    return state


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


def sample_options(config):
    """The loader's options: `config.data` without its path and workers, at the model's size."""
    from input_pipeline import transforms

    options = config.data.to_dict()
    for name in ("path", "workers"):
        del options[name]
    return transforms.SampleOptions(size=config.model.resolution, **options)


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


def make_sample_grid(
    model: Durian, diffusion: Diffusion, config, columns: int = 4
) -> Callable[[TrainState, dict], np.ndarray]:
    """A function of (state, batch) to a picture of samples with fixed noise, uint8 [H, W, 3].

    One row per clip: portrait | attributes | target frames | the same frames sampled with the
    averaged weights, by `config.sample`.
    """
    options = sampler.SamplerOptions(
        config.sample.window, config.sample.overlap, guided=config.sample.guidance != 1
    )
    schedule = sampler.Schedule.trailing(diffusion, config.sample.steps, config.sample.solver)
    run = jax.jit(functools.partial(sampler.sample, model, diffusion=diffusion, options=options))

    def draw(state: TrainState, batch: dict) -> np.ndarray:
        batch = {name: value[: config.sample.clips] for name, value in batch.items()}
        params = merge(state.frozen, state.ema)
        key = stream_key(config.seed, "sample", 0)
        videos = run(params, batch, key, jnp.float32(config.sample.guidance), schedule)
        videos, batch = sampler.to_uint8(videos), jax.device_get(batch)
        frames = np.linspace(0, videos.shape[1] - 1, min(columns, videos.shape[1])).astype(int)
        rows = [
            np.hstack([batch["portrait"][i], *batch["attribute"][i],
                       *batch["video"][i, frames], *videos[i, frames]])
            for i in range(len(videos))
        ]  # fmt: skip
        return np.vstack(rows)

    return draw
