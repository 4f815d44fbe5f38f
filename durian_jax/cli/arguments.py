"""What the verbs of the command line take: `durian VERB --help`."""

import argparse
from collections.abc import Callable
from pathlib import Path

from durian_jax.animation.job import parse_alphas, parse_attribute
from input_pipeline.errors import InputError
from input_pipeline.kinds import KINDS

_ATTRIBUTE = "IMAGE:KIND[:MASK]"
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


def parser() -> argparse.ArgumentParser:
    """The parser of all verbs; `verb` in its result names the one that was asked for."""
    whole = _Parser(
        prog="durian", description="Portrait animation with attribute transfer (Durian) in JAX."
    )
    verbs = whole.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, text: str) -> argparse.ArgumentParser:
        return verbs.add_parser(name, help=text, description=text)

    prepare = verb("prepare", "Clip folder -> data set of keypoints and masks.")
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
    prepare.add_argument(
        "--expand", action="append", default=[], metavar="SPEC",
        help="keep expanded masks: borrow, grow or generate:base=...,controlnet=...; may be "
        "repeated (training borrows and grows without it)",
    )  # fmt: skip
    prepare.add_argument("--workers", type=int, help="clips in parallel (default: all cores)")
    prepare.add_argument(
        "--runner", help="Apache Beam runner to do the work; its options follow after --"
    )

    check = verb("check", "Validates a data set and draws a contact sheet.")
    check.add_argument("dataset", type=Path)
    check.add_argument("--out", type=Path, help="folder of the sheets (default: the data set)")
    check.add_argument(
        "--augmentation", action="store_true", help="draw only what training makes of the pictures"
    )
    check.add_argument("--config", help="FILE.py[:STAGE] whose ranges to draw (default: built in)")

    synth = verb("synth", "Renders a data set of synthetic people, with the truth.")
    synth.add_argument("--out", type=Path, required=True, help="folder of the data set")
    synth.add_argument("--people", type=int, default=2000, help="8 of 10 train, 1 val, 1 test")
    synth.add_argument("--clips", type=int, default=1, help="clips of each person")
    synth.add_argument("--frames", type=int, default=12, help="frames of a clip")
    synth.add_argument("--size", type=int, default=64, help="side of the frames in pixels")
    synth.add_argument(
        "--fps", type=float, default=2.5,
        help="frames per second: 2.5 (default) to learn single frames from, 12.5 or more for film",
    )  # fmt: skip
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

    train = verb("train", "Trains, or goes on training; --config.x.y=value overrides.")
    train.add_argument("--config", required=True, help="FILE.py or FILE.py:STAGE")
    train.add_argument("--workdir", type=Path, required=True, help="folder of the run")

    plan = verb("plan", "Memory, exchanges and time of a step; nothing is run.")
    plan.add_argument("--config", required=True, help="FILE.py or FILE.py:STAGE, as for train")
    plan.add_argument(
        "--topology", metavar="CHIP:SHAPE",
        help="v5e:4x4, v5p:4x4x4, v6e:16x16 ..., or h200:8 by arithmetic (default: this machine)",
    )  # fmt: skip
    plan.add_argument("--sample", action="store_true", help="sampling by config.sample, no step")
    plan.add_argument("--fast", action="store_true", help="stop at the arithmetic, do not compile")
    plan.add_argument("--json", action="store_true", help="print all numbers as JSON")

    animate = verb("animate", "Portrait + attributes + driving clip -> video.")
    _add_portrait(animate)
    animate.add_argument(
        "--attribute", type=_checked(parse_attribute), action="append", default=[],
        metavar=_ATTRIBUTE,
        help=f"photo, what to take from it ({', '.join(KINDS)}), and if you have one a mask, white "
        "where the attribute shows; may be repeated",
    )  # fmt: skip
    _add_driver(animate)
    _add_masking(animate)
    animate.add_argument("--debug-masks", action="store_true", help="write OUT_masks.png, too")
    animate.add_argument("--save-motion", type=Path, metavar="FILE.npz", help="to drive again")
    _add_sampling(animate)
    animate.add_argument("--out", type=Path, required=True, help="OUT.mp4")

    interpolate = verb("interpolate", "From some attributes to others, in steps or over time.")
    _add_portrait(interpolate)
    for option, kept, alpha in (("--from", "attribute", 0), ("--to", "towards", 1)):
        interpolate.add_argument(
            option, dest=kept, type=_checked(parse_attribute), action="append", required=True,
            metavar=_ATTRIBUTE,
            help=f"photo and what to take from it at alpha = {alpha}; may be repeated",
        )  # fmt: skip
    interpolate.add_argument(
        "--alphas", type=_checked(parse_alphas), default=(0.0, 0.25, 0.5, 0.75, 1.0),
        metavar="A,B,...",
        help="0 to 1 (default 0,0.25,0.5,0.75,1): a clip for each, and all of them side by side",
    )  # fmt: skip
    interpolate.add_argument(
        "--over-time", action="store_true", help="one clip that goes through the alphas instead"
    )
    _add_driver(interpolate)
    _add_masking(interpolate)
    _add_sampling(interpolate)
    interpolate.add_argument("--out", type=Path, required=True, help="OUT.mp4")

    batch = verb("batch", "A table of jobs -> videos, on all devices of all machines.")
    batch.add_argument("jobs", type=Path, metavar="JOBS.csv", help="see docs/sampling.md")
    batch.add_argument("--out", type=Path, required=True, help="folder of the videos")
    batch.add_argument(
        "--skip-done", action="store_true", help="leave alone what is there and made the same way"
    )
    _add_masking(batch)
    _add_sampling(batch)

    evaluate = verb("evaluate", "Scores a checkpoint or any method's predictions.")
    evaluate.add_argument("--protocol", choices=("counterfactual", "self", "cross"), required=True)
    evaluate.add_argument("--cases", type=Path, help="folder of cases")
    evaluate.add_argument("--dataset", type=Path, help="data set to take the cases from")
    evaluate.add_argument("--checkpoint", help="as for animate, or small: the model of the package")
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

    convert = verb("convert", "Other people's weights -> checkpoint; checkpoint -> diffusers.")
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
    convert.add_argument("--half", action="store_true", help="with --to safetensors: float16")
    convert.add_argument("--out", type=Path, required=True, help="new folder to write")
    return whole


def _add_portrait(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--portrait", type=Path, required=True, help="photo of the person")
    verb.add_argument(
        "--portrait-mask", type=Path, help="white where the portrait shows its own such attributes"
    )


def _add_driver(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--driving", type=Path, required=True, help="clip, photo or motion .npz")
    verb.add_argument(
        "--motion", metavar="CONVENTION", help="relative to the driver's first frame, or absolute"
    )
    verb.add_argument("--smooth", type=float, default=1.0, help="strength, 0 = off (default 1)")
    verb.add_argument("--frames", type=int, help="with a photo: length of the clip (default 1)")


def _add_masking(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--masks", **_MASKS)
    verb.add_argument(
        "--aligner", default="geometric", metavar="SPEC",
        help="what says where attributes will lie on the portrait: geometric (default), self (the "
        "model re-poses the giver), or files:FOLDER with KIND.png; see docs/masks.md",
    )  # fmt: skip
    verb.add_argument(
        "--grow-mask", type=float, default=0.03, metavar="SHARE",
        help="grow the portrait's mask by this share of the face's height (default 0.03)",
    )  # fmt: skip


def _add_sampling(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--checkpoint", metavar="RUN_OR_NAME",
        help="workdir of a train run, converted folder, or hub id USER/NAME@REVISION (default: the "
        "small model of the package)",
    )  # fmt: skip
    verb.add_argument("--steps", type=int, help="denoising steps (default: config.sample)")
    verb.add_argument(
        "--solver", choices=("ddim", "dpm++", "lcm"),
        help="(likewise) dpm++ for about half the steps, lcm for 1 to 8 of a distilled model",
    )  # fmt: skip
    verb.add_argument("--guidance", type=float, help="its scale, 1 = none (likewise)")
    verb.add_argument(
        "--guidance-interval", type=_interval, metavar="FROM:TO",
        help="where on the way guidance acts, such as 0.2:0.8 (default 0:1); the rest is faster",
    )  # fmt: skip
    verb.add_argument(
        "--guidance-rescale", type=float, metavar="SHARE",
        help="0 (default) to 1: against the contrast that much guidance adds",
    )  # fmt: skip
    verb.add_argument(
        "--window", type=int, metavar="FRAMES", help="sampled together (default: config.sample)"
    )
    verb.add_argument(
        "--overlap", type=int, metavar="FRAMES", help="that windows share at least (likewise)"
    )
    verb.add_argument("--seed", type=int, default=0, help="of the noise (default 0)")
    verb.add_argument(
        "--paste-back", action="store_true", help="put the result back into the whole portrait"
    )
    verb.add_argument(
        "--report", action="store_true", help="OUT_report.csv: identity and flicker by the second"
    )


def sampling(options: argparse.Namespace) -> dict:
    """What the options say of sampling, as `Animator.record` takes it."""
    names = ("steps", "solver", "guidance", "guidance_interval", "guidance_rescale")
    names += ("window", "overlap")
    return {name: getattr(options, name) for name in names}


def _weights(text: str) -> tuple[str, str]:
    name, equals, source = text.partition("=")
    if not equals or not source:
        raise argparse.ArgumentTypeError(f"{text!r}: write METRIC=PATH")
    return name, source


def _interval(text: str) -> tuple[float, float]:
    try:
        begin, end = map(float, text.split(":"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: write FROM:TO, such as 0.2:0.8") from None
    return begin, end


def _checked(parse: Callable) -> Callable:
    """A parser of text whose InputError argparse prints as a fault of its option."""

    def parsed(text: str):
        try:
            return parse(text)
        except InputError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parsed
