"""The command line: `durian VERB`. Bad input ends in one line on stderr and exit code 2."""

import argparse
import os
import sys
from pathlib import Path

from input_pipeline.errors import InputError
from input_pipeline.records import KINDS


def main(argv: list[str] | None = None) -> int:
    """Runs one verb; returns the exit code."""
    parser = _parser()
    argv = sys.argv[1:] if argv is None else argv
    end = argv.index("--") if "--" in argv else len(argv)
    # Only two verbs take options argparse does not know: `train` --config.x.y=value, and `prepare`
    # those of its runner, after --.
    options, rest = parser.parse_known_args(argv[:end])
    foreign = argv[end + 1 :]
    if (rest and options.verb != "train") or (foreign and not getattr(options, "runner", None)):
        unknown = " ".join(rest + foreign)
        parser.error(f"unknown options {unknown}: see durian {options.verb} --help")
    rest += foreign
    try:
        options.run(options, rest)
    except (InputError, FloatingPointError) as error:
        print(f"durian {options.verb}: {error}", file=sys.stderr)
        return 2
    return 0


_MASKS = {
    "default": "heuristic",
    "metavar": "SPEC",
    "help": "what finds the attributes: heuristic (default), parser:FILE, segformer:MODEL, "
    "sapiens2:MODEL, sam2:MODEL, files:FOLDER or truth:FOLDER; see docs/masks.md",
}


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage text."""

    def __init__(self, **options):
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="durian", description="Portrait animation with attribute transfer (Durian) in JAX."
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, run, text: str) -> argparse.ArgumentParser:
        options = verbs.add_parser(name, help=text, description=text)
        options.set_defaults(run=run)
        return options

    prepare = verb("prepare", _prepare, "Clip folder -> data set of keypoints and masks.")
    prepare.add_argument("clips", help="folder of video clips (local, gs:// or s3://)")
    prepare.add_argument("--out", required=True, help="folder of the data set (likewise)")
    prepare.add_argument("--size", type=int, default=512, help="side of the frames in pixels")
    prepare.add_argument(
        "--labels",
        help="CSV with columns file,hair,glasses,beard,hat: what is visible; also identity, split",
    )
    prepare.add_argument(
        "--holdout", type=float, default=0.0, metavar="SHARE",
        help="share of the people to keep for validation, such as 0.05 (default: by the labels)",
    )  # fmt: skip
    prepare.add_argument(
        "--face-descriptor", type=Path, metavar="FILE.onnx", help="finds people in two splits"
    )
    prepare.add_argument("--masks", **_MASKS)
    prepare.add_argument("--workers", type=int, help="clips in parallel (default: all cores)")
    prepare.add_argument(
        "--runner", help="Apache Beam runner to do the work; its options follow after --"
    )

    check = verb("check", _check, "Validates a data set and draws a contact sheet.")
    check.add_argument("dataset", type=Path)
    check.add_argument("--out", type=Path, help="folder of the sheets (default: the data set)")
    check.add_argument(
        "--augmentation", action="store_true", help="draw only what training makes of the pictures"
    )
    check.add_argument("--config", help="FILE.py[:STAGE] whose ranges to draw (default: built in)")

    synth = verb("synth", _synth, "Renders a data set of synthetic people, with the truth.")
    synth.add_argument("--out", type=Path, required=True, help="folder of the data set")
    synth.add_argument("--people", type=int, default=200, help="8 of 10 train, 1 val, 1 test")
    synth.add_argument("--clips", type=int, default=5, help="clips of each person")
    synth.add_argument("--frames", type=int, default=16, help="frames of a clip")
    synth.add_argument("--size", type=int, default=128, help="side of the frames in pixels")
    synth.add_argument("--fps", type=float, default=12.5, help="frames per second")
    synth.add_argument("--seed", type=int, default=0, help="another seed, other people")
    synth.add_argument(
        "--cases", type=int, default=32, help="counterfactual cases, in OUT/counterfactual"
    )
    synth.add_argument(
        "--oversample", type=int, default=1, help="render larger and average: calmer textures"
    )
    synth.add_argument(
        "--videos", action="store_true", help="write clips, masks and labels.csv, no records"
    )
    synth.add_argument("--depth", action="store_true", help="keep depth pictures as well")

    train = verb("train", _train, "Trains, or goes on training; --config.x.y=value overrides.")
    train.add_argument("--config", required=True, help="FILE.py or FILE.py:STAGE")
    train.add_argument("--workdir", type=Path, required=True, help="folder of the run")

    animate = verb("animate", _animate, "Portrait + attributes + driving clip -> video.")
    animate.add_argument("--portrait", type=Path, required=True, help="photo of the person")
    animate.add_argument(
        "--attribute", type=_attribute, action="append", default=[],
        metavar="IMAGE:KIND[:MASK]",
        help=f"photo, what to take from it ({', '.join(KINDS)}), and if you have one a mask, white "
        "where the attribute shows; may be repeated",
    )  # fmt: skip
    animate.add_argument(
        "--portrait-mask", type=Path, help="white where the portrait shows its own such attributes"
    )
    animate.add_argument("--masks", **_MASKS)
    animate.add_argument("--driving", type=Path, required=True, help="clip, photo or motion .npz")
    animate.add_argument(
        "--motion", metavar="CONVENTION", help="relative to the driver's first frame, or absolute"
    )
    animate.add_argument("--smooth", type=float, default=1.0, help="strength, 0 = off (default 1)")
    animate.add_argument("--frames", type=int, help="with a photo: length of the clip (default 1)")
    animate.add_argument("--save-motion", type=Path, metavar="FILE.npz", help="to drive again")
    animate.add_argument(
        "--checkpoint", required=True, metavar="RUN_OR_NAME",
        help="workdir of a train run, converted folder, or hub id USER/NAME@REVISION",
    )  # fmt: skip
    animate.add_argument("--out", type=Path, required=True, help="OUT.mp4")
    animate.add_argument("--steps", type=int, help="denoising steps (default: config.sample)")
    animate.add_argument("--guidance", type=float, help="its scale, 1 = none (likewise)")
    animate.add_argument("--solver", choices=("ddim", "dpm++"), help="(likewise)")
    animate.add_argument("--seed", type=int, default=0)

    evaluate = verb("evaluate", _evaluate, "Scores a checkpoint or any method's predictions.")
    evaluate.add_argument("--protocol", choices=("counterfactual", "self", "cross"))
    evaluate.add_argument("--cases", type=Path, help="folder of cases")
    evaluate.add_argument("--dataset", type=Path, help="data set to take the cases from")
    evaluate.add_argument("--checkpoint", type=Path, help="workdir of a train run")
    evaluate.add_argument(
        "--predictions", type=Path, help="folder with ID.mp4, ID/0000.png ... or ID.npy per case"
    )
    evaluate.add_argument("--out", type=Path, help="folder of the report")
    evaluate.add_argument("--groups", help="rows to score, such as hair,glasses (default: all)")
    evaluate.add_argument(
        "--weights", type=_weights, action="append", default=[], metavar="METRIC=PATH",
        help="network of lpips, fid, fvd, clip, dino or arcface: file or hub id; may be repeated",
    )  # fmt: skip
    evaluate.add_argument("--steps", type=int, help="denoising steps (default: config.sample)")
    evaluate.add_argument("--guidance", type=float, help="its scale, 1 = none (likewise)")
    evaluate.add_argument("--seed", type=int, default=0)
    evaluate.add_argument(
        "--write-cases", type=Path, metavar="CASES",
        help="only write the cases of --dataset, for other methods to predict",
    )  # fmt: skip
    evaluate.add_argument(
        "--selftest", action="store_true", help="only compare all metrics with stored numbers"
    )

    convert = verb(
        "convert", _convert, "Other people's weights -> checkpoint; checkpoint -> diffusers."
    )
    convert.add_argument(
        "--from", dest="kinds", action="append", default=[], metavar="KIND",
        help="diffusers, diffusers-flax, animatediff, moore, arcface or durian; may be repeated, "
        "each with its --source",
    )  # fmt: skip
    convert.add_argument(
        "--source", type=Path, action="append", default=[], help="folder or file of that kind"
    )
    convert.add_argument("--to", choices=("diffusers", "safetensors"), help="the other way")
    convert.add_argument("--checkpoint", type=Path, help="with --to: run, folder or name to export")
    convert.add_argument("--raw", action="store_true", help="with --to: not the averaged weights")
    convert.add_argument("--out", type=Path, required=True, help="new folder to write")
    return parser


def _weights(text: str) -> tuple[str, str]:
    name, equals, source = text.partition("=")
    if not equals or not source:
        raise argparse.ArgumentTypeError(f"{text!r}: write METRIC=PATH")
    return name, source


def _attribute(text: str) -> tuple:
    parts = text.split(":")
    # From the end: a path may hold a colon, too.
    for i in range(len(parts) - 1, 0, -1):
        if parts[i] in KINDS:
            mask = [Path(":".join(parts[i + 1 :]))] if parts[i + 1 :] else []
            return Path(":".join(parts[:i])), parts[i], *mask
    if len(parts) == 1:
        raise argparse.ArgumentTypeError(f"{text!r} has no kind: write IMAGE:KIND")
    raise argparse.ArgumentTypeError(f"unknown kind {parts[-1]!r}: choose from {', '.join(KINDS)}")


def _prepare(options: argparse.Namespace, runner_options: list[str]) -> None:
    from input_pipeline import prepare

    beam = (f"--runner={options.runner}", *runner_options) if options.runner else ()
    prepare.prepare(
        options.clips, options.out,
        size=options.size, labels=options.labels, holdout=options.holdout, masks=options.masks,
        face_descriptor=options.face_descriptor, workers=options.workers, beam=beam,
    )  # fmt: skip


def _check(options: argparse.Namespace, _) -> None:
    from input_pipeline import inspect

    if options.augmentation:
        ranges = None
        if options.config:
            from durian_jax.overrides import load_config
            from durian_jax.train import sample_options

            ranges = sample_options(load_config(options.config, []))
        inspect.draw_augmentation(options.dataset, ranges, options.out)
        return
    if options.config:
        raise InputError(f"--config {options.config} goes with --augmentation")
    report = inspect.check(options.dataset, options.out)
    if report.problems:
        raise InputError(f"{options.dataset}: {len(report.problems)} problems, listed above")


def _synth(options: argparse.Namespace, _) -> None:
    _configure_jax()
    from input_pipeline.synthetic import dataset

    settings = dataset.Settings(
        people=options.people, clips=options.clips, frames=options.frames, size=options.size,
        fps=options.fps, seed=options.seed, oversample=options.oversample, depth=options.depth,
    )  # fmt: skip
    if options.videos:
        from input_pipeline.synthetic import clips

        print(f"{options.out}: {clips.write_clips(options.out, settings)} clips")
        return
    counts = dataset.synth(options.out, settings, options.cases)
    parts = ", ".join(f"{count} {split}" for split, count in counts.items())
    print(f"{options.out}: {parts} records, {options.cases} counterfactual cases")


def _train(options: argparse.Namespace, overrides: list[str]) -> None:
    from durian_jax.overrides import load_config

    config = load_config(options.config, overrides)
    _configure_jax()
    from durian_jax import train

    train.train(config, options.workdir)


def _animate(options: argparse.Namespace, _) -> None:
    from input_pipeline import driving, video

    following = driving.Following(options.motion, options.smooth, options.frames)
    # Before minutes of work, not after.
    following.check_output(options.out, options.driving)
    if options.save_motion is not None:
        video.check_output(options.save_motion, driving.TEMPLATE)
    _configure_jax()
    from durian_jax.animate import Animator

    animator = Animator.load(options.checkpoint, options.masks)
    result = animator(
        options.portrait, options.attribute, options.driving,
        portrait_mask=options.portrait_mask, following=following, steps=options.steps,
        guidance=options.guidance, solver=options.solver, seed=options.seed,
    )  # fmt: skip
    result.save(options.out)
    if options.save_motion is not None:
        driving.write_template(options.save_motion, result.motion)
    print(f"{options.out}: {len(result.frames)} frames at {float(result.fps):g} fps")


def _evaluate(options: argparse.Namespace, _) -> None:
    from durian_jax.evaluate import evaluation, selftest

    if options.selftest:
        selftest.run()
        return
    if options.protocol is None:
        raise InputError("--protocol is missing: counterfactual, self or cross")
    if options.write_cases is not None:
        if options.dataset is None:
            raise InputError("--write-cases needs --dataset")
        found = evaluation.write_cases(options.protocol, options.dataset, options.write_cases)
        print(f"{options.write_cases}: {len(found.cases)} cases")
        return
    if options.out is None:
        raise InputError("--out is missing: name a folder for the report")
    if options.checkpoint is not None:
        _configure_jax()
    report = evaluation.evaluate(
        options.protocol, options.out,
        cases=options.cases, dataset=options.dataset,
        checkpoint=options.checkpoint, predictions=options.predictions,
        groups=options.groups and options.groups.split(","), weights=dict(options.weights),
        steps=options.steps, guidance=options.guidance, seed=options.seed,
    )  # fmt: skip
    print(report.table())
    print(f"{options.out}: report.md, report.json, report.tex, sheets/")


def _convert(options: argparse.Namespace, _) -> None:
    if options.to:
        if options.kinds or options.source or options.checkpoint is None:
            raise InputError(f"--to {options.to} goes with --checkpoint alone, not with --from")
    elif not options.kinds or options.checkpoint or options.raw:
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
        exporter.to_safetensors(options.checkpoint, options.out, ema=not options.raw)
    else:
        importer.convert(list(zip(options.kinds, options.source)), options.out)
    print(f"{options.out}: written")


def _configure_jax() -> None:
    """Keeps compiled programs between runs, unless the user's environment says where or not to."""
    import jax

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "durian_jax"
        jax.config.update("jax_compilation_cache_dir", str(cache))


if __name__ == "__main__":
    sys.exit(main())
