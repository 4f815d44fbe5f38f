"""Metrics that need a network: which there are, and which of them this machine can compute."""

from pathlib import Path

from durian_jax.evaluate import packaged, supplied
from durian_jax.evaluate.network import Network
from durian_jax.metrics.metric import Metric
from input_pipeline.errors import InputError

_LIKENESS = (
    "portrait against each frame, five points aligned to 112 px; a frame without a face has 0; "
    "hats and glasses lower it: the truth's row is the ceiling"
)
METRICS = {
    "lpips": Metric(
        "LPIPS", "", "lower", True, "LPIPS 0.1, AlexNet, frames in [-1, 1], mean over frames"
    ),
    "lpips_vgg": Metric(
        "LPIPS VGG", "", "lower", True, "LPIPS 0.1, VGG-16, frames in [-1, 1], mean over frames"
    ),
    "identity": Metric(
        "identity", "", "higher", False, f"cosine of face embeddings (SFace), {_LIKENESS}"
    ),
    "fvd_kinetics": Metric(
        "FVD (kinetics-i3d)", "", "lower", False,
        "logits of DeepMind's Kinetics-400 I3D, bilinear to 224 px, first 16 scored frames of each "
        "clip, against truth or drivers; another network than that of published FVDs: never beside "
        "them; few clips bias it up",
    ),
    "fid": Metric(
        "FID", "", "lower", False,
        "Inception pool3, clean-fid's resize (bicubic, antialiased, not quantised), all scored "
        "frames against those of the truth, or without truth of the drivers; small sets bias it up",
    ),
    "fvd": Metric(
        "FVD", "", "lower", False,
        "I3D logits (Kinetics-400), first 16 scored frames of each clip, against truth or drivers",
    ),
    "clip": Metric(
        "CLIP-I", "", "higher", False,
        "cosine of CLIP image embeddings: the attribute cut out of its picture, the rest grey, "
        "against the same region, moved by the keypoints, cut out of 8 frames",
    ),
    "dino": Metric("DINO", "", "higher", False, "cosine of class tokens, cut out as for CLIP-I"),
    "arcface": Metric(
        "ArcFace", "", "higher", False, f"cosine of face embeddings, {_LIKENESS}"
    ),
}  # fmt: skip

_PACKAGED = {
    "lpips": lambda: packaged.Lpips("lpips", "alex"),
    "lpips_vgg": lambda: packaged.Lpips("lpips_vgg", "vgg"),
    "identity": lambda: packaged.sface("identity"),
    "fvd_kinetics": lambda: packaged.FvdKinetics("fvd_kinetics"),
}
# VGG-16 takes 30 times as long as AlexNet and says much the same.
DEFAULT = ("lpips", "identity", "fvd_kinetics")
_SUPPLIED = {"fid": supplied.Fid, "fvd": supplied.Fvd}
_SUPPLIED |= {"clip": supplied.Regions, "dino": supplied.Regions, "arcface": supplied.arcface}
_HELP = "docs/evaluation.md says which files fit"


def load(chosen: list[str] | None, weights: dict[str, str]) -> tuple[list[Network], dict[str, str]]:
    """The networks to score with, and of every other metric the reason why it is not there.

    Args:
      chosen: metrics whose weights packages carry; None for those of `DEFAULT` that are installed.
      weights: metric -> file or hub id, for the others.

    Raises:
      InputError: unknown name, no such file, wrong format, or a package that is not installed.
    """
    networks = []
    absent = dict.fromkeys(_PACKAGED, "left out") | dict.fromkeys(_SUPPLIED, "no weights given")
    for name in DEFAULT if chosen is None else dict.fromkeys(chosen):
        if name not in _PACKAGED:
            raise InputError(f"{name}: choose from {', '.join(_PACKAGED)}, or none", "networks")
        try:
            networks.append(_PACKAGED[name]())
        except InputError as error:
            if chosen is not None:
                raise InputError(f"{name}: {error}", option="networks") from None
            absent[name] = str(error)
    networks += [_supplied(name, source) for name, source in weights.items()]
    for network in networks:
        del absent[network.name]
    return networks, absent


def _supplied(name: str, source: str) -> Network:
    if name in _PACKAGED:
        raise InputError(f"{name}={source}: needs none, choose it in networks", "weights")
    if name not in _SUPPLIED:
        known = ", ".join(_SUPPLIED)
        raise InputError(f"{name}={source}: unknown metric: choose from {known}", "weights")
    if name not in ("clip", "dino") and not Path(source).is_file():
        raise InputError(f"{name}={source}: no such file: {_HELP}", option="weights")
    try:
        return _SUPPLIED[name](name, source)
    except InputError:
        raise
    except Exception as error:  # what torch, transformers and onnxruntime raise is open-ended
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise InputError(f"{name}={source}: {reason}: {_HELP}", option="weights") from error
