"""Raw photos and a raw clip -> the batch that a model animates.

The same crops, keypoints and masks as in training, for people who are not the same: the driver's
motion is retargeted to the portrait's face, and the portrait hides its own attribute region and the
region that the other person's attribute will cover (Eq. 13).
"""

import dataclasses
from pathlib import Path

import numpy as np

from input_pipeline.errors import InputError
from input_pipeline.faces import drawing, geometry, orientation
from input_pipeline.faces.landmarker import FaceLandmarker
from input_pipeline.inference import occlusion
from input_pipeline.inference.aligners import Aligner
from input_pipeline.inference.subject import Subject, read_subject
from input_pipeline.kinds import KINDS, MAX_ATTRIBUTE_AREA, MIN_ATTRIBUTE_AREA
from input_pipeline.masks import regions, segmenters
from input_pipeline.masks.regions import grow
from input_pipeline.motion.driver import MOTION_OPTIONS, Motion, MotionOptions, read_motion

# How many attributes a batch may hold; other numbers are padded, as each is compiled anew.
PADDED_COUNTS = (1, 2, 4, 8)
MAX_ATTRIBUTES = PADDED_COUNTS[-1]


@dataclasses.dataclass(frozen=True)
class Masking:
    """How the portrait's mask comes about.

    segmenter: finds attributes in photos that come without a mask. aligner: where they will lie on
    the portrait. grow: the whole mask grows by this share of the face's height, as in training.
    masked: False shows both references whole, to models that were trained so.
    """

    segmenter: segmenters.Segmenter
    aligner: Aligner
    grow: float
    masked: bool = True

    def __post_init__(self):
        if not 0 <= self.grow <= 1:
            raise InputError(
                f"{self.grow:g}: must be 0 to 1, a share of the face", option="grow_mask"
            )


_FOLLOWED = ("control", "local_control", "driving")  # keys of a batch


@dataclasses.dataclass(frozen=True)
class Scene:
    """All that one animation needs.

    Attributes:
      sources: who shows the attributes, and of which kind; N of them, without those of which
        nothing would be seen.
      own: bool [S, S], where the portrait shows such attributes itself.
      aligned: bool [N, S, S], where the sources' attributes will lie on it.
      batch: the batch contract without its clip axis and `video`, `id`. From the third attribute
        on, N is padded with zeros to the next of PADDED_COUNTS, and `attribute_count`, an int32
        scalar, says how many count.
      notes: what the user should know about the inputs, one line each.
      landmarker: that found the keypoints.
      towards: to interpolate, the same person and motion with other attributes; what differs is
        `batch["towards"]`.
    """

    portrait: Subject
    sources: list[tuple[Subject, str]]
    own: np.ndarray
    aligned: np.ndarray
    motion: Motion
    batch: dict[str, np.ndarray]
    notes: list[str]
    landmarker: FaceLandmarker
    towards: "Scene | None" = None

    @property
    def photos(self) -> list[np.ndarray]:
        """uint8 [S, S, 3]: the portrait, and all attributes as the model sees them."""
        others = self.towards.photos[1:] if self.towards else []
        seen = [*self.batch.get("attribute", ())[: len(self.sources)]]
        return [self.portrait.image, *self.batch.get("references", ()), *seen, *others]

    def tiles(self) -> list[tuple[str, np.ndarray]]:
        """Captions and uint8 [S, S, 3]: the portrait alone and with its own mask, for each
        attribute the source with its mask and the portrait with the aligned one, and what is left
        of the portrait; the same with the attributes of `towards`. Of systems that follow pictures
        of the driver the portrait, and these in the first, the middle and the last frame."""
        tiles = [("portrait", self.portrait.image)]
        for name, frames in self.batch.items():
            if name in _FOLLOWED:
                shown, places = name.replace("_", " "), (0, len(frames) // 2, -1)
                labels = zip(("first", "middle", "last"), places)
                tiles += [(f"{shown}: {label} frame", frames[place]) for label, place in labels]
        if len(tiles) > 1:
            return tiles
        kinds = [kind for _, kind in self.sources]
        own = drawing.draw_masks(self.portrait.image, {k: self.own for k in kinds[:1]})
        tiles.append(("portrait: its own attribute", own))
        for (source, kind), mask, aligned in zip(
            self.sources, self.batch["attribute_mask"], self.aligned
        ):
            taken = drawing.draw_masks(source.image, {kind: mask})
            covered = drawing.draw_masks(self.portrait.image, {kind: aligned})
            tiles += [(f"{kind}: what is taken", taken), (f"{kind}: where it will be", covered)]
        tiles.append(("what is left of the portrait", self.batch["portrait"]))
        others = self.towards.tiles() if self.towards else []
        return tiles + [(f"at alpha 1, {caption}", tile) for caption, tile in others]

    def preview(self) -> np.ndarray:
        """uint8 picture of all `tiles`, side by side."""
        return np.hstack([tile for _, tile in self.tiles()])


def read_scene(
    portrait: str | Path,
    attributes: list[tuple],
    driving: str | Path,
    size: int,
    landmarker: FaceLandmarker,
    masking: Masking,
    *,
    portrait_mask: str | Path | None = None,
    framed: bool = False,
    motion_options: MotionOptions = MOTION_OPTIONS,
    towards: list[tuple] = (),
) -> Scene:
    """Reads and checks the inputs of an animation.

    Args:
      attributes: up to 8 (photo, kind) or (photo, kind, mask) tuples, in any order; several may
        show the same kind. A mask is a picture as large as its photo, white where the attribute
        shows; without one it is looked for. What another attribute will cover is taken out of it,
        see `layers`. Without any attribute the portrait stays whole.
      size: side of the model's pictures in pixels.
      masking: how the portrait's mask comes about.
      portrait_mask: likewise, white where the portrait shows its own attributes of these kinds.
      framed: photos and clip are head-and-shoulders squares already and are not cropped.
      motion_options: how the portrait follows the driver.
      towards: to interpolate, as many other attributes.

    Raises:
      InputError: an unusable photo, mask or clip, an unknown kind, an attribute that is not there,
        too many attributes, or another number of them that is to be seen after interpolation.
    """
    for worn in (attributes, towards):
        _check_attributes(worn)
    person = read_subject(portrait, size, landmarker, portrait_mask, framed)
    chosen = [
        [
            (read_subject(path, size, landmarker, *mask or [None], framed), kind)
            for path, kind, *mask in worn
        ]
        for worn in (attributes, *([towards] if towards else []))
    ]
    motion = read_motion(driving, landmarker, framed)
    keypoints = motion_options.retarget(motion, person.keypoints)
    scene, *others = (
        _build_scene(person, sources, motion, keypoints, masking, landmarker) for sources in chosen
    )
    for other in others:
        if len(other.sources) != len(scene.sources):
            raise InputError(
                f"interpolating from {len(scene.sources)} attributes that can be seen to "
                f"{len(other.sources)}: give as many on either side"
            )
        changed = {name: other.batch[name] for name in other.batch if name not in _SHARED}
        scene = dataclasses.replace(
            scene,
            batch=scene.batch | {"towards": changed},
            notes=list(dict.fromkeys(scene.notes + other.notes)),
            towards=other,
        )
    return scene


# What does not depend on the attributes.
_SHARED = ("keypoints", "face", "portrait_keypoints")


def _check_attributes(attributes: list[tuple]) -> None:
    if len(attributes) > MAX_ATTRIBUTES:
        raise InputError(
            f"{len(attributes)} attributes: at most {MAX_ATTRIBUTES} can be worn at a time: leave "
            f"out {len(attributes) - MAX_ATTRIBUTES}"
        )
    for path, kind, *_ in attributes:
        if kind not in KINDS:
            raise InputError(f"{path}: unknown kind {kind!r}: choose from {', '.join(KINDS)}")


def _build_scene(
    person: Subject,
    sources: list[tuple[Subject, str]],
    motion: Motion,
    keypoints: np.ndarray,
    masking: Masking,
    landmarker: FaceLandmarker,
) -> Scene:
    """The person with the attributes of the sources. keypoints [F, 478, 3]: the person's motion."""
    size = len(person.image)
    kinds = frozenset(kind for _, kind in sources)
    subjects = [person, *(source for source, _ in sources)]
    shown = [_attribute_mask(source, kind, masking.segmenter) for source, kind in sources]
    doubts = _doubts(sources, masking.segmenter)
    sources, shown, covered = _worn_together(sources, shown)
    if person.mask is not None:
        # Any share of a hidden pixel hides it, as in training.
        own = person.mask > 0
    else:
        found = person.find(kinds, masking.segmenter)
        own = np.any([np.zeros((size, size), bool), *found.values()], axis=0)
    aligned = [masking.aligner(*source, mask, person) for source, mask in zip(sources, shown)]
    hidden = np.any([own, *aligned], axis=0)
    hidden = grow(hidden, masking.grow * np.ptp(person.keypoints[:, 1]))
    batch = {
        "keypoints": keypoints[..., :2],
        "portrait": regions.hide(person.image, hidden) if masking.masked else person.image,
        "portrait_mask": hidden,
        "portrait_keypoints": person.keypoints[:, :2],
        **_attribute_arrays(sources, shown, size, masking.masked),
        "face": geometry.align_face(person.image, person.keypoints),
    }
    return Scene(
        portrait=person,
        sources=sources,
        own=own,
        aligned=np.array(aligned, bool).reshape(-1, size, size),
        motion=motion,
        batch=batch,
        notes=notes_on(subjects, motion) + doubts + covered,
        landmarker=landmarker,
    )


def _worn_together(sources: list[tuple[Subject, str]], masks: list[np.ndarray]):
    """Sources and masks of what will be seen, and a note for each attribute that will not be."""
    seen, notes = [], []
    for (source, kind), mask, left in zip(sources, masks, occlusion.uncovered(sources, masks)):
        # A given mask may be thinner than that to begin with.
        if left.mean() < min(MIN_ATTRIBUTE_AREA, mask.mean() / 2):
            covers = " or ".join(occlusion.COVERED_BY[kind])
            notes.append(f"{source.path}: its {kind} is left out, the {covers} would cover it")
        else:
            seen.append(((source, kind), left))
    return [source for source, _ in seen], [mask for _, mask in seen], notes


def _attribute_arrays(
    sources: list[tuple[Subject, str]], masks: list[np.ndarray], size: int, masked: bool
) -> dict[str, np.ndarray]:
    count = len(sources)
    padded = min(n for n in (0, *PADDED_COUNTS) if n >= count)
    arrays = {
        "attribute": np.zeros((padded, size, size, 3), np.uint8),
        "attribute_mask": np.zeros((padded, size, size), bool),
        "attribute_keypoints": np.zeros((padded, 478, 2), np.float32),
    }
    for i, ((source, _), mask) in enumerate(zip(sources, masks)):
        arrays["attribute_keypoints"][i] = source.keypoints[:, :2]
        arrays["attribute"][i] = regions.hide(source.image, ~mask) if masked else source.image
        arrays["attribute_mask"][i] = mask
    if padded > 2:
        arrays["attribute_count"] = np.array(count, np.int32)
    return arrays


def _attribute_mask(source: Subject, kind: str, segmenter: segmenters.Segmenter) -> np.ndarray:
    if source.mask is not None:
        # Half of the most covered pixel at most: thin rims must not vanish in small pictures.
        mask = source.mask > min(0.5, source.mask.max() / 2)
        if not mask.any():
            raise InputError(f"{source.path}: its mask is black: paint it white where {kind} shows")
    else:
        mask = source.find(frozenset([kind]), segmenter)[kind]
        if mask.mean() < MIN_ATTRIBUTE_AREA:
            raise InputError(
                f"{source.path}: no {kind} found ({mask.mean():.2%} of the picture, "
                f"{MIN_ATTRIBUTE_AREA:.1%} needed): use a photo that shows it clearly"
            )
    if mask.mean() > MAX_ATTRIBUTE_AREA:
        raise InputError(
            f"{source.path}: the {kind} mask covers {mask.mean():.0%} of the picture, at most "
            f"{MAX_ATTRIBUTE_AREA:.0%} can be right: give a mask that covers only {kind}"
        )
    return mask


def _doubts(sources: list[tuple[Subject, str]], segmenter: segmenters.Segmenter) -> list[str]:
    """A note for each attribute of which a segmenter says where it would be, not whether it is."""
    if getattr(segmenter, "tells_presence", True):
        return []
    return [
        f"{source.path}: {doubt}, its mask is where {kind} would be: use a photo that shows it "
        "clearly, or give a mask"
        for source, kind in sources
        if source.mask is None and (doubt := source.doubt(kind))
    ]


def notes_on(subjects: list[Subject], motion: Motion) -> list[str]:
    notes = [
        f"{subject.path}: {subject.face_count} faces, the largest is used"
        for subject in subjects
        if subject.face_count > 1
    ]
    notes += [
        f"{subject.path}: {orientation.note(subject.turns)}"
        for subject in subjects
        if subject.turns
    ]
    notes += [f"{motion.path}: {note}" for note in motion.notes]
    if motion.face_count > 1:
        notes.append(f"{motion.path}: {motion.face_count} faces, the largest is followed")
    if motion.bridged:
        notes.append(f"{motion.path}: keypoints of {motion.bridged} frames were bridged")
    return notes
