"""The Job: what one video is made of."""

import dataclasses
from pathlib import Path

import numpy as np

from input_pipeline.errors import InputError
from input_pipeline.kinds import KINDS
from input_pipeline.media import files
from input_pipeline.motion.driver import MOTION_OPTIONS, MotionOptions


@dataclasses.dataclass(frozen=True)
class Job:
    """What a video is made of.

    Attributes:
      portrait: photo of the person.
      attributes: (photo, kind) or (photo, kind, mask) tuples; kind is hair, glasses, beard or hat;
        a mask is a picture as large as the photo, white where the attribute shows. Without one the
        attribute is looked for. None at all for a system that takes none.
      driving: clip, whose length, frame rate and sound the result has, or photo, or motion .npz
        saved from either.
      portrait_mask: picture, white where the portrait shows its own attributes of these kinds.
      grow_mask: the portrait's mask grows by this share of the face's height (default: half
        of config.data.grow, the middle of what training draws).
      framed: photos and clip are head-and-shoulders squares already and are not cropped, so that
        the result has the framing of the portrait.
      motion_options: how the portrait follows the driver.
      seed: of the noise, 0 to 2^32 - 1.
      towards: to interpolate (Eq. 14): as many attributes as `attributes`, worn at alpha = 1.
      alpha: 0 to 1, how far towards them; one for the whole clip, or several that it passes at even
        distances, linear between them.
      paste_back: put the result back into the whole portrait photo.
      report: write OUT_report.csv: identity and flicker by the second.
      references: more photos of the person, for a system that takes several.

    Raises:
      InputError: a value out of range, a link for a file, or `towards` and `alpha` that do not fit.
    """

    portrait: str | Path
    attributes: list[tuple]
    driving: str | Path
    portrait_mask: str | Path | None = None
    grow_mask: float | None = None
    framed: bool = False
    motion_options: MotionOptions = MOTION_OPTIONS
    seed: int = 0
    towards: list[tuple] = dataclasses.field(default_factory=list)
    alpha: tuple[float, ...] = ()
    paste_back: bool = False
    report: bool = False
    references: list = dataclasses.field(default_factory=list)

    def __post_init__(self):
        for name in ("portrait", "portrait_mask", "driving"):
            object.__setattr__(self, name, _local(getattr(self, name)))
        object.__setattr__(self, "references", [_local(path) for path in self.references])
        for name in ("attributes", "towards"):
            worn = [(_local(x), kind, *map(_local, mask)) for x, kind, *mask in getattr(self, name)]
            object.__setattr__(self, name, worn)
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed {self.seed}: use 0 to {2**32 - 1}")
        for alpha in self.alpha:
            if not 0 <= alpha <= 1:
                raise InputError(f"alpha {alpha:g}: use 0 (the first attribute) to 1 (the other)")
        if bool(self.towards) != bool(self.alpha):
            raise InputError("an interpolation needs attributes to go to, and alpha: give both")
        if self.towards and len(self.towards) != len(self.attributes):
            raise InputError(
                f"interpolating from {len(self.attributes)} attributes to {len(self.towards)}: "
                "give as many on either side"
            )

    @property
    def files(self) -> list[Path]:
        """All that the job reads."""
        worn = [path for x, _, *mask in self.attributes + self.towards for path in (x, *mask)]
        masks = [self.portrait_mask] if self.portrait_mask else []
        known = (self.portrait, *self.references, *masks, *worn, self.driving)
        return [Path(path) for path in known]

    def alphas(self, frames: int) -> np.ndarray:
        """float32 [F], alpha at every frame. InputError: one frame cannot go through several."""
        if frames == 1 < len(self.alpha):
            raise InputError(
                f"alphas {','.join(f'{x:g}' for x in self.alpha)}: a single picture has one: give "
                "one alpha, a clip that drives, or a number of frames"
            )
        places = np.linspace(0, len(self.alpha) - 1, frames)
        return np.interp(places, np.arange(len(self.alpha)), self.alpha).astype(np.float32)

    def to_json(self) -> dict:
        """All of it in plain values."""
        return {
            "portrait": str(self.portrait),
            "portrait_mask": self.portrait_mask and str(self.portrait_mask),
            "attributes": [":".join(map(str, attribute)) for attribute in self.attributes],
            "towards": [":".join(map(str, attribute)) for attribute in self.towards],
            "alpha": list(self.alpha),
            "driving": str(self.driving),
            "following": dataclasses.asdict(self.motion_options),
            "grow_mask": self.grow_mask,
            "framed": self.framed,
            "seed": self.seed,
            "paste_back": self.paste_back,
            "report": self.report,
            "references": [str(path) for path in self.references],
        }


def _local(path: str | Path | None) -> str | Path | None:
    """The path with its `~` expanded, else as it is. InputError: a link."""
    found = None if path is None else files.local(path)
    return path if path is None or found == Path(path) else found


def parse_alphas(text: str) -> tuple[float, ...]:
    """Numbers with commas between them. InputError: one is none, or there are none."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{text!r}: write numbers from 0 to 1: 0,0.5,1") from None


def parse_attribute(text: str) -> tuple:
    """(photo, kind) or (photo, kind, mask). InputError: no kind, or an unknown one."""
    parts = text.split(":")
    # From the end: a path may hold a colon, too.
    for i in range(len(parts) - 1, 0, -1):
        if parts[i] in KINDS:
            mask = [files.local(":".join(parts[i + 1 :]))] if parts[i + 1 :] else []
            return files.local(":".join(parts[:i])), parts[i], *mask
    if len(parts) == 1:
        raise InputError(f"{text!r} has no kind: write IMAGE:KIND")
    raise InputError(f"unknown kind {parts[-1]!r}: choose from {', '.join(KINDS)}")
