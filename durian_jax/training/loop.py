"""Training: one loop for every stage, size and machine. What differs stands in the config."""

import contextlib
import time
from pathlib import Path

import jax

from durian_jax.distributed import sharding
from durian_jax.systems.system import check_batch, system_name
from durian_jax.training import checkpoint, guards, validation
from durian_jax.training.reporter import Interval, Reporter
from durian_jax.training.samples import make_sample_grid
from durian_jax.training.state import TrainState, describe
from durian_jax.training.train_step import Training, TrainStep
from durian_jax.weights.trees import merge
from input_pipeline.errors import InputError, Interrupted


def train(config, workdir: str | Path) -> TrainState:
    """Trains to `config.steps`; run again, it continues from the newest checkpoint in `workdir`.

    Args:
      config: what `configs/*.py` return (an ml_collections.ConfigDict).
      workdir: directory of the run: checkpoints, logs, metrics.jsonl, loss.png, tensorboard,
        samples, and a profile where one is asked for.

    Returns:
      The final state.

    Raises:
      InputError: bad data set or config, a run of another config in `workdir`, or initial weights
        that do not fit.
      Interrupted: SIGTERM came; the state up to there is saved.
      FloatingPointError: in `config.guards.max_skipped` steps in a row loss or gradient was not
        finite.
    """
    # Only the loop reads data; the training step imports without grain.
    from input_pipeline.training import loader

    workdir = Path(workdir)
    dataset = open_dataset(config)
    training = Training.build(config, jax.devices())
    training.check_batch_size()
    traced = _traced_steps(config)
    mesh, layout = training.mesh, training.layout

    def open_loader(split=dataset, **options) -> loader.Loader:
        return loader.Loader(
            split, sample_options(config), batch_size=config.batch_size,
            process_index=jax.process_index(), process_count=jax.process_count(), **options,
        )  # fmt: skip

    checkpoints = checkpoint.Checkpoints(workdir, config.save.keep, config.save.keep_every)
    meta = {"config": config.to_dict(), "data_set": dataset.identity}
    first_step, progress = checkpoints.latest_step or 0, {}
    if first_step:
        checkpoints.refuse_other(meta)
    # A run that was stopped among these steps traces those that are left.
    traced = traced[max(first_step - traced.start, 0) :]
    with (
        guards.Requests(mesh, config.save.minutes) as requests,
        guards.Watchdog(config.guards.timeout_minutes) as watchdog,
        contextlib.closing(checkpoints),
        contextlib.closing(Reporter(workdir, first_step, jax.process_index())) as report,
        contextlib.ExitStack() as trace,
    ):

        def check_start() -> None:
            watchdog.expect("all processes to get here, before the first step")
            requests.check_start()
            watchdog.expect("")

        for step in checkpoints.unfinished:
            report.say(f"unfinished save of step {step}, removed")
        if first_step:
            state, progress = checkpoints.restore(layout)
            origin = f"resumed at step {first_step} of {config.steps}"
        else:
            report.say("drawing the initial weights ...")
            state, origin = training.create_state()
        check_start()
        report.say(describe(state))
        report.say(origin)
        # Up to which step there are samples; a run stopped at a step of samples owes them.
        sampled = progress.get("sampled", first_step)

        def must_sample(step: int) -> bool:
            every = config.sample.every
            return every and step > sampled and (step == config.steps or step % every == 0)

        if first_step >= config.steps and not must_sample(first_step):
            report.say(f"nothing to do: {first_step} of {config.steps} steps are done")
            return state

        with contextlib.closing(open_loader(seed=config.seed + 1)) as once:
            fixed_batch = next(once)
        check_batch(fixed_batch, training.system, config.data.path)
        for remark in training.system.remarks(fixed_batch):
            report.say(f"note: {config.data.path}: {remark}")
        draw_samples = make_sample_grid(
            training.system, training.process, config, fixed_batch, mesh
        )
        validate = validation.Validation(
            training.system, training.process, config, mesh,
            lambda **options: open_loader(open_dataset(config, "val"), **options), report.say,
        )  # fmt: skip
        report.say("compiling the training step ...")
        start = time.perf_counter()
        train_step = TrainStep(training)
        memory = train_step.compile()
        report.say(f"compiled in {time.perf_counter() - start:.0f} s")
        sizes = ", ".join(f"{name} {size / 2**30:.3g}" for name, size in memory.items())
        report.say(f"memory of a step, GiB per device: {sizes}")
        check_start()

        interval, pending = Interval(progress.get("interval", ())), None

        def is_due(every: int, step: int) -> bool:
            return step > first_step and (step == config.steps or (every and step % every == 0))

        def log(step: int, metrics: dict) -> None:
            watchdog.expect(f"the result of step {step}")
            metrics = jax.device_get(metrics)
            interval.add(metrics)
            if is_due(config.log_every, step):
                corrupt = {"corrupt_records": batches.num_corrupt}
                values = interval.summary()
                values |= corrupt | train_step.rates(values["step_secs"])
                report.scalars(step, values)
            guards.refuse_divergence(metrics["skipped"], step, config.guards.max_skipped)

        with contextlib.closing(
            open_loader(seed=config.seed, state=progress.get("loader"), workers=config.data.workers)
        ) as batches:
            # Fixed order: evaluate, save, next batch, dispatch, log the step before. A checkpoint
            # holds the state of the loader before the batch of the step that follows it.
            for step in range(first_step, config.steps + 1):
                request = requests.read()
                stopping = request == guards.STOP
                saving = is_due(config.save.every, step) or request != guards.NOTHING
                sampling = must_sample(step) and not stopping
                if pending is not None and (sampling or saving):
                    log(step, pending)
                    pending = None
                with interval.paused():
                    if sampling:
                        watchdog.expect(f"the samples of step {step}")
                        report.picture(step, "samples", draw_samples(state))
                        watchdog.expect(f"the validation of step {step}")
                        report.validation(step, validate(merge(state.frozen, state.ema)))
                        report.draw_loss_curve()
                        sampled = step
                    if saving:
                        watchdog.expect(f"the checkpoint of step {step}")
                        progress = {"loader": batches.get_state(), "interval": interval.get_state()}
                        progress["sampled"] = sampled
                        checkpoints.save(state, progress, meta)
                        requests.saved()
                if stopping or step == config.steps:
                    break
                if step in traced[:1]:
                    trace.enter_context(jax.profiler.trace(workdir / "profile"))
                watchdog.expect(f"batch {step} of the data set")
                batch = interval.wait(lambda: next(batches))
                requests.post()
                state, metrics = train_step(state, sharding.put_batch(batch, mesh))
                if pending is not None:
                    log(step, pending)
                pending = metrics
                if step in traced[-1:]:
                    jax.block_until_ready(metrics)
                    trace.close()
                    report.say(f"traced steps {traced[0]} to {step}: {workdir / 'profile'}")
        watchdog.expect("the last checkpoint to be written")
        checkpoints.wait()
        report.draw_loss_curve()
        if stopping and (step < config.steps or must_sample(step)):
            message = f"stopped by SIGTERM at step {step} of {config.steps}, which is saved"
            report.say(message)
            raise Interrupted(f"{message}: the same command continues there")
    return state


def _traced_steps(config) -> range:
    """The steps from first to last of `config.profile`, none without; raises InputError."""
    if not config.profile:
        return range(0)
    if len(config.profile) != 2 or not 0 <= config.profile[0] <= config.profile[1] < config.steps:
        raise InputError(
            f"config: profile={config.profile} is no (first, last) step of {config.steps}: write "
            "such as (10, 12)"
        )
    return range(config.profile[0], config.profile[1] + 1)


def open_dataset(config, split: str = "train"):
    """A split of the data set at `config.data.path`.

    Raises:
      InputError: there is none that can be used.
    """
    if not config.data.path.startswith("synth:"):
        from input_pipeline.dataset import shards

        return shards.Dataset(config.data.path, split)
    if config.data.workers:
        raise InputError(
            f"data.workers is {config.data.workers}, data.path {config.data.path} is rendered "
            "by the process that trains: set data.workers to 0"
        )
    from input_pipeline.synthetic.dataset import Rendered

    return Rendered(config.data.path, split)


def sample_options(config):
    """The loader's options: `config.data` without its path and workers, at the model's size."""
    from input_pipeline.training.samples import SAMPLES

    options = config.data.to_dict()
    for name in ("path", "workers"):
        del options[name]
    return SAMPLES[system_name(config)](size=config.model.resolution, **options)
