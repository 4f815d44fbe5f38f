"""A protocol: a frozen, versioned file that says what is asked, and how predictions are scored."""

import dataclasses
import hashlib
import json
from pathlib import Path

from durian_jax.metrics.face_motion import MissingFace
from input_pipeline.errors import InputError

_FOLDER = Path(__file__).parent / "protocols"
NAMES = ("counterfactual", "self", "cross", "reenact")


@dataclasses.dataclass(frozen=True)
class Build:
    """How cases are chosen from a prepared data set.

    Attributes:
      seed: of the choice.
      kinds: attribute kinds, each a row of the table.
      cases_per_kind: at most; fewer if the data set holds fewer.
      frames: F, at most; the chunk's, less `spare` for references, if that is shorter.
      least_frames: chunks that give fewer are not used.
    """

    seed: int
    kinds: tuple[str, ...]
    cases_per_kind: int
    frames: int
    least_frames: int
    spare: int


@dataclasses.dataclass(frozen=True)
class Bootstrap:
    """Percentile intervals over cases: seed, number of resamples, confidence in 0 .. 1."""

    seed: int
    resamples: int
    confidence: float


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What a protocol file says; a change of any value is a new version.

    Attributes:
      truth: whether the truth is known.
      region_growth: the attribute's region is its true mask grown by this share of the side.
      psnr_ceiling: most dB that a frame counts in a mean, about those of rounding to 8 bits.
      colour_band, colour_bins: see `pixels.AttributeColours`.
      missing_face: errors of a frame whose face is not found.
      build: how cases are made; None where `durian synth` makes them.
      sha256: of the file.
      attributes: whether the cases have any.
    """

    name: str
    version: int
    truth: bool
    region_growth: float
    psnr_ceiling: float
    colour_band: float
    colour_bins: int
    missing_face: MissingFace
    bootstrap: Bootstrap
    build: Build | None
    sha256: str
    attributes: bool = True

    @classmethod
    def load(cls, name: str) -> "Protocol":
        """Raises InputError: no protocol of that name."""
        if name not in NAMES:
            raise InputError(f"unknown protocol {name!r}: choose from {', '.join(NAMES)}")
        data = (_FOLDER / f"{name}.json").read_bytes()
        facts = json.loads(data)
        facts["missing_face"] = MissingFace(**facts["missing_face"])
        facts["bootstrap"] = Bootstrap(**facts["bootstrap"])
        if facts["build"] is not None:
            facts["build"]["kinds"] = tuple(facts["build"]["kinds"])
            facts["build"] = Build(**facts["build"])
        return cls(**facts, sha256=hashlib.sha256(data).hexdigest())
