"""What the verbs of the command line take: `durian VERB --help`.

What a dataclass or a function takes already is not said again: see `fields`. Modules are imported
where their verb is asked for.
"""

import argparse
import os
import re
from collections.abc import Callable

from durian_jax.animation.job import Job, parse_alphas, parse_attribute
from durian_jax.cli import fields
from input_pipeline.errors import InputError
from input_pipeline.kinds import KINDS
from input_pipeline.motion.driver import MotionOptions

_ATTRIBUTE = "IMAGE:KIND[:MASK]"
_OUT = "OUT.mp4, .mov, .webm or .gif; .png where a photo drives"
_MASKS = {
    "metavar": "SPEC",
    "help": "what finds the attributes: heuristic, parser:FILE, segformer:MODEL, sapiens2:MODEL, "
    "sam2:MODEL, files:FOLDER or truth:FOLDER; see docs/masks.md",
}
_ALIGNER = {
    "metavar": "SPEC",
    "help": "what says where attributes will lie on the portrait: geometric, self (the model "
    "re-poses the attribute source), or files:FOLDER with KIND.png; see docs/masks.md",
}
_LANDMARKS = {
    "type": fields.path,
    "metavar": "FILE.task",
    "help": "MediaPipe's Face Landmarker, whose eyelids follow blinks closer; see docs/motion.md",
}


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage text."""

    def __init__(self, **options):
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {message}\n")


def at_home(text: str) -> str:
    """An argument with each `~` that begins a path expanded, also after `=`, `:` and `,`, where no
    shell does it: --out=~/x.mp4, her.jpg:hair:~/mask.png."""
    return re.sub(r"(?<![^:=,])~[^/:=,]*(?=/|$)", lambda found: os.path.expanduser(found[0]), text)


def parser(argv: list[str]) -> argparse.ArgumentParser:
    """The parser of all verbs, with the options of the one that `argv` begins with.

    `verb` in its result names it.
    """
    whole = _Parser(
        prog="durian", description="Portrait animation with attribute transfer (Durian) in JAX."
    )
    verbs = whole.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, (text, fill) in _VERBS.items():
        verb = verbs.add_parser(name, help=text, description=text)
        if argv[:1] == [name]:
            fill(verb)
    return whole


def _prepare(verb: argparse.ArgumentParser) -> None:
    from input_pipeline.prepare.prepare import prepare

    verb.add_argument("clips", help="folder of video clips (local, gs:// or s3://)")
    verb.add_argument("--out", required=True, help="folder of the data set (likewise)")
    fields.add(
        verb, prepare, "size", "labels", "holdout", "face_descriptor", "masks", "landmarks",
        "control", "workers",
        holdout={"metavar": "SHARE"}, face_descriptor={"metavar": "FILE.onnx"},
        masks=_MASKS, landmarks=_LANDMARKS,
    )  # fmt: skip
    verb.add_argument(
        "--expand", action="append", default=[], metavar="SPEC",
        help="keep expanded masks: borrow, grow or generate:base=...,controlnet=...; may be "
        "repeated (training borrows and grows without it)",
    )  # fmt: skip
    verb.add_argument(
        "--runner", help="Apache Beam runner to do the work; its options follow after --"
    )


def _check(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("dataset", type=fields.path)
    verb.add_argument(
        "--out", type=fields.path, help="folder of the sheets (default: the data set)"
    )
    verb.add_argument(
        "--augmentation", action="store_true", help="draw only what training makes of the pictures"
    )
    verb.add_argument("--config", help="FILE.py[:STAGE] whose ranges to draw (default: built in)")


def _synth(verb: argparse.ArgumentParser) -> None:
    from input_pipeline.synthetic.population import Settings

    verb.add_argument("--out", type=fields.path, required=True, help="folder of the data set")
    fields.add(verb, Settings)
    verb.add_argument(
        "--cases", type=int, default=32,
        help="counterfactual cases, in OUT/counterfactual (default: 32)",
    )  # fmt: skip
    verb.add_argument(
        "--reenactments", type=int, default=0,
        help="reenactment cases, without attributes, in OUT/reenact (default: 0)",
    )  # fmt: skip
    verb.add_argument(
        "--videos", action="store_true", help="write clips, masks and labels.csv, no records"
    )


def _train(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--config", required=True, help="FILE.py or FILE.py:STAGE")
    verb.add_argument("--workdir", type=fields.path, required=True, help="folder of the run")


def _plan(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--config", required=True, help="FILE.py or FILE.py:STAGE, as for train")
    verb.add_argument(
        "--topology", metavar="CHIP:SHAPE",
        help="v5e:4x4, v5p:4x4x4, v6e:16x16 ..., or h200:8 by arithmetic (default: this machine)",
    )  # fmt: skip
    verb.add_argument("--sample", action="store_true", help="sampling by config.sample, no step")
    verb.add_argument("--fast", action="store_true", help="stop at the arithmetic, do not compile")
    verb.add_argument("--json", action="store_true", help="print all numbers as JSON")


def _animate(verb: argparse.ArgumentParser) -> None:
    fields.add(verb, Job, "portrait", "portrait_mask")
    verb.add_argument(
        "--attribute", dest="attributes", type=_checked(parse_attribute), action="append",
        default=[], metavar=_ATTRIBUTE,
        help=f"photo, what to take from it ({', '.join(KINDS)}), and if you have one a mask, white "
        "where the attribute shows; may be repeated",
    )  # fmt: skip
    verb.add_argument(
        "--reference", dest="references", type=fields.path, action="append", default=[],
        metavar="PHOTO",
        help="one more photo of the person, for a model that takes several; may be repeated",
    )  # fmt: skip
    fields.add(verb, Job, "driving")
    fields.add(
        verb, MotionOptions, motion={"metavar": "CONVENTION", "choices": None},
        best_frame={"metavar": "N"},
    )  # fmt: skip
    _add_job(verb)
    verb.add_argument("--debug-masks", action="store_true", help="write OUT_masks.png, too")
    verb.add_argument("--save-motion", type=fields.path, metavar="FILE.npz", help="to drive again")
    verb.add_argument("--out", type=fields.path, required=True, help=_OUT)


def _interpolate(verb: argparse.ArgumentParser) -> None:
    fields.add(verb, Job, "portrait", "portrait_mask")
    for option, kept, alpha in (("--from", "attributes", 0), ("--to", "towards", 1)):
        verb.add_argument(
            option, dest=kept, type=_checked(parse_attribute), action="append", required=True,
            metavar=_ATTRIBUTE,
            help=f"photo and what to take from it at alpha = {alpha}; may be repeated",
        )  # fmt: skip
    verb.add_argument(
        "--alphas", dest="alpha", type=_checked(parse_alphas), default=(0.0, 0.25, 0.5, 0.75, 1.0),
        metavar="A,B,...",
        help="0 to 1 (default 0,0.25,0.5,0.75,1): a clip for each, and all of them side by side",
    )  # fmt: skip
    verb.add_argument(
        "--over-time", action="store_true", help="one clip that goes through the alphas instead"
    )
    fields.add(verb, Job, "driving")
    fields.add(
        verb, MotionOptions, "motion", "smooth", "frames",
        motion={"metavar": "CONVENTION", "choices": None},
    )  # fmt: skip
    _add_job(verb)
    verb.add_argument("--out", type=fields.path, required=True, help=_OUT)


def _batch(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("jobs", type=fields.path, metavar="JOBS.csv", help="see docs/sampling.md")
    verb.add_argument("--out", type=fields.path, required=True, help="folder of the videos")
    verb.add_argument(
        "--skip-done", action="store_true", help="leave alone what is there and made the same way"
    )
    _add_job(verb)


def _app(verb: argparse.ArgumentParser) -> None:
    from durian_jax.app.access import Access

    _add_animator(verb)
    verb.add_argument(
        "--show", type=fields.path, action="append", default=[], metavar="FOLDER",
        help="report of evaluate, case folder or data set to look at; may be repeated",
    )  # fmt: skip
    fields.add(verb, Access, listen={"metavar": "HOST"})


def _add_animator(verb: argparse.ArgumentParser) -> None:
    from durian_jax.animation.animator import Animator

    fields.add(
        verb, Animator.load, "masks", "aligner", "landmarks",
        masks=_MASKS, aligner=_ALIGNER, landmarks=_LANDMARKS,
    )  # fmt: skip
    verb.add_argument(
        "--checkpoint", metavar="RUN_OR_NAME",
        help="workdir of a train run, converted folder, or hub id USER/NAME@REVISION (default: the "
        "small model of the package)",
    )  # fmt: skip


def _add_job(verb: argparse.ArgumentParser) -> None:
    """What all verbs with jobs take."""
    from durian_jax.diffusion.solvers import Sampling

    _add_animator(verb)
    fields.add(verb, Job, "grow_mask", grow_mask={"metavar": "SHARE"})
    fields.add(
        verb, Sampling, default="config.sample",
        guidance=_GUIDANCE, guidance_interval={"type": _interval, "metavar": "FROM:TO"},
        guidance_rescale={"metavar": "SHARE"},
        window={"metavar": "FRAMES"}, overlap={"metavar": "FRAMES"},
    )  # fmt: skip
    fields.add(verb, Job, "seed", "paste_back", "report")


def _evaluate(verb: argparse.ArgumentParser) -> None:
    from durian_jax.diffusion.solvers import Sampling
    from durian_jax.evaluate import protocol

    verb.add_argument("--protocol", choices=protocol.NAMES, required=True)
    verb.add_argument("--cases", type=fields.path, help="folder of cases")
    verb.add_argument("--dataset", type=fields.path, help="data set to take the cases from")
    verb.add_argument("--checkpoint", help="as for animate, or small: the model of the package")
    verb.add_argument(
        "--predictions",
        type=fields.path,
        help="folder with ID.mp4, ID/0000.png ... or ID.npy per case",
    )
    verb.add_argument("--out", type=fields.path, help="folder of the report")
    verb.add_argument("--groups", help="rows to score, such as hair,glasses (default: all)")
    verb.add_argument(
        "--networks", metavar="NAMES",
        help="of lpips, lpips_vgg, identity and fvd_kinetics, or none (default: all but lpips_vgg "
        "whose packages are there: pip install 'durian_jax[eval]')",
    )  # fmt: skip
    verb.add_argument(
        "--weights", type=_weights, action="append", default=[], metavar="METRIC=PATH",
        help="network of fid, fvd, clip, dino or arcface: file or hub id; may be repeated",
    )  # fmt: skip
    fields.add(verb, Sampling, "steps", "guidance", default="config.sample", guidance=_GUIDANCE)
    fields.add(verb, Job, "seed")
    verb.add_argument("--landmarks", **_LANDMARKS)
    verb.add_argument(
        "--write-cases", type=fields.path, metavar="CASES",
        help="only write the cases of --dataset, for other methods to predict",
    )  # fmt: skip


def _convert(verb: argparse.ArgumentParser) -> None:
    from durian_jax.convert.exporter import LAYOUTS
    from durian_jax.convert.importer import SOURCES

    verb.add_argument(
        "--from", dest="kinds", action="append", default=[], metavar="KIND",
        help=f"{', '.join(SOURCES)}; may be repeated, each with its --source",
    )  # fmt: skip
    verb.add_argument(
        "--source",
        type=fields.path,
        action="append",
        default=[],
        help="folder or file of that kind",
    )
    kinds = ("diffusers", "safetensors", *LAYOUTS)
    verb.add_argument("--to", choices=kinds, help="the other way")
    verb.add_argument(
        "--checkpoint", type=fields.path, help="with --to: run, folder or name to export"
    )
    verb.add_argument("--raw", action="store_true", help="with --to: not the averaged weights")
    verb.add_argument("--half", action="store_true", help="with --to safetensors: float16")
    verb.add_argument("--out", type=fields.path, required=True, help="new folder to write")


_VERBS = {
    "prepare": ("Clip folder -> data set of keypoints and masks.", _prepare),
    "check": ("Validates a data set and draws a contact sheet.", _check),
    "synth": ("Renders a data set of synthetic people, with the truth.", _synth),
    "train": ("Trains, or resumes training; --config.x.y=value overrides.", _train),
    "plan": ("Memory, collective traffic and time of a step; nothing is run.", _plan),
    "animate": ("Portrait + attributes + driving clip -> video.", _animate),
    "interpolate": ("From some attributes to others, in steps or over time.", _interpolate),
    "batch": ("A table of jobs -> videos, on all devices of all machines.", _batch),
    "app": ("A page in your browser to animate, compare and look at data.", _app),
    "evaluate": ("Scores a checkpoint or any method's predictions.", _evaluate),
    "convert": ("Other people's weights -> checkpoint, and back.", _convert),
}


def _weights(text: str) -> tuple[str, str]:
    name, equals, source = text.partition("=")
    if not equals or not source:
        raise argparse.ArgumentTypeError(f"{text!r}: write METRIC=PATH")
    return name, source


def _scales(text: str) -> float | tuple[float, ...]:
    try:
        found = tuple(map(float, text.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r}: write SCALE, or one for each condition: 2,2.5,1"
        ) from None
    return found if len(found) > 1 else found[0]


_GUIDANCE = {"type": _scales, "metavar": "SCALE[,SCALE...]"}


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
