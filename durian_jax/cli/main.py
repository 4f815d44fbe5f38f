"""The command line: `durian VERB`. Bad input ends in one line on stderr and exit code 2."""

import argparse
import errno
import gc
import inspect
import os
import sys
from pathlib import Path

from durian_jax.cli import arguments, fields
from durian_jax.distributed import processes
from input_pipeline.errors import InputError, Interrupted

_REFUSALS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}
    | {errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR, errno.EIO, errno.ESTALE}
)


def main(argv: list[str] | None = None) -> int:
    """Runs one verb; returns the exit code."""
    # Tracing makes objects by the million, few of them in reference cycles: to search for those
    # after every 700 takes a fifth of the time in which a run starts.
    gc.set_threshold(100_000, 50, 50)
    argv = [*map(arguments.at_home, sys.argv[1:] if argv is None else argv)]
    parser = arguments.parser(argv)
    end = argv.index("--") if "--" in argv else len(argv)
    # Only these take options argparse does not know: `train` and `plan` --config.x.y=value, and
    # `prepare` those of its runner, after --.
    options, rest = parser.parse_known_args(argv[:end])
    foreign = argv[end + 1 :]
    if (rest and options.verb not in ("train", "plan")) or (
        foreign and not getattr(options, "runner", None)
    ):
        unknown = " ".join(rest + foreign)
        parser.error(f"unknown options {unknown}: see durian {options.verb} --help")
    code = 1
    try:
        code = _run(options, rest + foreign)
    finally:
        processes.shutdown(code)
    return code


def _run(options: argparse.Namespace, rest: list[str]) -> int:
    try:
        _VERBS[options.verb](options, rest)
    except InputError as error:
        print(f"durian {options.verb}: {error.on_command_line}", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"durian {options.verb}: {error}", file=sys.stderr)
        return 2
    except Interrupted as interruption:
        print(f"durian {options.verb}: {interruption}", file=sys.stderr)
        return interruption.code
    except OSError as error:
        # The system refuses: no room, no permission, a folder that vanished, a name too long.
        if error.errno not in _REFUSALS:
            raise
        place = error.filename or "a file"
        print(f"durian {options.verb}: {place}: {error.strerror}", file=sys.stderr)
        return 2
    return 0


def _prepare(options: argparse.Namespace, runner_options: list[str]) -> None:
    from input_pipeline.prepare.prepare import prepare

    beam = (f"--runner={options.runner}", *runner_options) if options.runner else ()
    prepare(options.clips, beam=beam, **fields.given(prepare, options))


def _check(options: argparse.Namespace, _) -> None:
    from input_pipeline import check

    if options.augmentation:
        ranges = None
        if options.config:
            from durian_jax.cli.config_files import load_config
            from durian_jax.training.loop import sample_options

            ranges = sample_options(load_config(options.config, []))
        check.draw_augmentation(options.dataset, ranges, options.out)
        return
    if options.config:
        raise InputError(f"--config {options.config} goes with --augmentation")
    report = check.check(options.dataset, options.out)
    if report.problems:
        raise InputError(f"{options.dataset}: {len(report.problems)} problems, listed above")


def _synth(options: argparse.Namespace, _) -> None:
    _configure_jax()
    from input_pipeline.synthetic import dataset, population

    settings = population.Settings(**fields.given(population.Settings, options))
    if options.videos:
        from input_pipeline.synthetic import clips

        print(f"{options.out}: {clips.write_clips(options.out, settings)} clips")
        return
    counts = dataset.synth(options.out, settings, options.cases, options.reenactments)
    parts = ", ".join(f"{count} {split}" for split, count in counts.items())
    cases = f"{options.cases} counterfactual cases, {options.reenactments} reenactment cases"
    print(f"{options.out}: {parts} records, {cases}")


def _train(options: argparse.Namespace, overrides: list[str]) -> None:
    from durian_jax.cli.config_files import load_config

    config = load_config(options.config, overrides)
    _configure_jax()
    processes.initialize()
    from durian_jax.training import loop

    loop.train(config, options.workdir)


def _plan(options: argparse.Namespace, overrides: list[str]) -> None:
    import json

    from durian_jax.cli.config_files import load_config

    config = load_config(options.config, overrides)
    if options.topology:
        # The TPU compiler runs beside the CPU; a real accelerator is not asked.
        os.environ["JAX_PLATFORMS"] = "cpu"
    _configure_jax()
    from durian_jax.planning import cache

    def say(text: str) -> None:
        print(text, file=sys.stderr if options.json else sys.stdout, flush=True)

    plan = cache.make(config, options.topology, sample=options.sample, fast=options.fast, say=say)
    print(json.dumps(plan.to_json(), indent=1) if options.json else plan.table())


def _animate(options: argparse.Namespace, _) -> None:
    from durian_jax.animation import recording
    from input_pipeline.media import files
    from input_pipeline.media.pictures import write_picture
    from input_pipeline.motion import driver

    # Before minutes of work, not after.
    job = _job(options)
    read = recording.files_of_animator(
        options.checkpoint, options.masks, options.aligner, options.landmarks
    )
    recording.check_outputs(options.out, job, files.Inputs(read))
    masks = options.out.with_name(f"{options.out.stem}_masks.png")
    more = [masks] if options.debug_masks else []
    if options.save_motion is not None:
        files.check_output(options.save_motion, driver.TEMPLATE)
        more.append(options.save_motion)
    files.Inputs([*job.files, *read]).check_apart(more)
    _configure_jax()
    from durian_jax.animation.animator import Animator

    animator = _animator(Animator, options)
    (made,) = animator.record([(job, options.out)], **_sampling(options))
    if made.error is not None:
        raise made.error
    if options.debug_masks:
        write_picture(masks, made.scene.preview())
    if options.save_motion is not None:
        driver.write_template(options.save_motion, made.scene.motion)
    frames, fps = made.settings["frames"], float(made.scene.motion.fps)
    print(f"{options.out}: {frames} frames at {fps:g} fps")


def _interpolate(options: argparse.Namespace, _) -> None:
    job = _job(options)
    job.motion_options.check_output(options.out, job.driving)
    _configure_jax()
    import jax

    from durian_jax.animation import interpolation
    from durian_jax.animation.animator import Animator

    animator = _animator(Animator, options, jax.local_devices())
    interpolation.run(animator, job, options.out, options.over_time, **_sampling(options))
    print(f"{options.out}: alpha {', '.join(f'{alpha:g}' for alpha in options.alpha)}")


def _batch(options: argparse.Namespace, _) -> None:
    _configure_jax()
    processes.initialize()
    import jax

    from durian_jax.animation import batch, job_table
    from durian_jax.animation.animator import Animator
    from durian_jax.animation.job import Job

    defaults = Job("", [], "", **fields.given(Job, options))
    rows = job_table.read(options.jobs, defaults)
    batch.check_output(options.out)
    animator = _animator(Animator, options, jax.local_devices())
    results = batch.run(
        rows, options.out, animator,
        skip_done=options.skip_done, table=options.jobs, **_sampling(options),
    )  # fmt: skip
    if results:
        skipped = sum(result.status == batch.SKIPPED for result in results)
        print(f"{options.out}: {len(results) - skipped} rows made, {skipped} skipped")


def _app(options: argparse.Namespace, _) -> None:
    from durian_jax.app.access import Access, kind_of

    access = Access(**fields.given(Access, options))
    for folder in options.show:
        kind_of(folder)
    try:
        from durian_jax.app import page
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise InputError("needs gradio: pip install 'durian_jax[app]'") from None
    _configure_jax()
    from durian_jax.animation.animator import Animator

    usual = inspect.signature(Animator.load).parameters
    given = {"checkpoint": options.checkpoint} if options.checkpoint else {}
    for name in ("masks", "aligner", "landmarks"):
        if (value := getattr(options, name)) != usual[name].default:
            given[name] = str(value)
    page.serve(_animator(Animator, options), access, given, options.show)


def _animator(kind, options: argparse.Namespace, devices: list | None = None):
    """The `Animator` of `animate`, `interpolate` and `batch`."""
    return kind.load(options.checkpoint, options.masks, options.aligner, devices, options.landmarks)


def _motion_options(options: argparse.Namespace):
    from input_pipeline.motion.driver import MotionOptions

    return MotionOptions(**fields.given(MotionOptions, options))


def _job(options: argparse.Namespace):
    """The job of `animate` and `interpolate`."""
    from durian_jax.animation.job import Job

    return Job(**fields.given(Job, options), motion_options=_motion_options(options))


def _sampling(options: argparse.Namespace) -> dict:
    """What the options say of sampling, as `Animator.record` takes it."""
    from durian_jax.diffusion.solvers import Sampling

    return fields.given(Sampling, options)


def _evaluate(options: argparse.Namespace, _) -> None:
    from durian_jax.evaluate import evaluation

    if options.write_cases is not None:
        if options.dataset is None:
            raise InputError("--write-cases needs --dataset")
        found = evaluation.write_cases(options.protocol, options.dataset, options.write_cases)
        print(f"{options.write_cases}: {len(found.cases)} cases")
        return
    if options.out is None:
        raise InputError("--out is missing: name a folder for the report")
    _configure_jax()
    networks = options.networks and options.networks.split(",")
    report = evaluation.evaluate(
        options.protocol, options.out,
        cases=options.cases, dataset=options.dataset,
        checkpoint=options.checkpoint, predictions=options.predictions,
        groups=options.groups and options.groups.split(","),
        networks=[] if networks == ["none"] else networks, weights=dict(options.weights),
        steps=options.steps, guidance=options.guidance, seed=options.seed,
        landmarks=options.landmarks,
    )  # fmt: skip
    print(report.table())
    print(f"{options.out}: report.md, report.json, report.tex, sheets/")


def _convert(options: argparse.Namespace, _) -> None:
    if options.to:
        if options.kinds or options.source or options.checkpoint is None:
            raise InputError(f"--to {options.to} goes with --checkpoint alone, not with --from")
        if options.half and options.to != "safetensors":
            raise InputError(f"--half goes with --to safetensors, not with --to {options.to}")
    elif not options.kinds or options.checkpoint or options.raw or options.half:
        raise InputError("give --from KIND --source PATH, or --to KIND --checkpoint RUN")
    elif len(options.kinds) != len(options.source):
        raise InputError(
            f"{len(options.kinds)} --from, {len(options.source)} --source: give them in pairs"
        )
    _configure_jax()
    from durian_jax.convert import exporter, importer

    if options.to == "diffusers":
        exporter.to_diffusers(options.checkpoint, options.out, ema=not options.raw)
    elif options.to == "safetensors":
        dtype = "float16" if options.half else "float32"
        exporter.to_safetensors(options.checkpoint, options.out, not options.raw, dtype)
    elif options.to:
        exporter.to_layout(options.to, options.checkpoint, options.out, ema=not options.raw)
    else:
        importer.convert(list(zip(options.kinds, options.source)), options.out)
    print(f"{options.out}: written")


def _configure_jax() -> None:
    """Keeps compiled programs between runs, unless the user's environment says where or not to."""
    import jax

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "durian_jax"
        jax.config.update("jax_compilation_cache_dir", str(cache))


_VERBS = {
    "prepare": _prepare,
    "check": _check,
    "synth": _synth,
    "train": _train,
    "plan": _plan,
    "animate": _animate,
    "interpolate": _interpolate,
    "batch": _batch,
    "app": _app,
    "evaluate": _evaluate,
    "convert": _convert,
}


if __name__ == "__main__":
    sys.exit(main())
