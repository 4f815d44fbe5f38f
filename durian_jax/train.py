"""Training: one loop for every stage, size and machine. What differs stands in the config."""

import contextlib
import functools
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from durian_jax import checkpoint, sampler, sharding
from durian_jax.diffusion import Diffusion
from durian_jax.metrics import Interval, Reporter
from durian_jax.models.durian import Durian
from durian_jax.state import TrainState, describe, make_optimizer, merge
from durian_jax.train_step import build, create_state, make_train_step, state_layout, stream_key
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


def sample_options(config):
    """The loader's options: `config.data` without its path and workers, at the model's size."""
    from input_pipeline import transforms

    options = config.data.to_dict()
    for name in ("path", "workers"):
        del options[name]
    return transforms.SampleOptions(size=config.model.resolution, **options)


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
