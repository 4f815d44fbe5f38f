"""Raw photos and a raw clip -> the batch that a model animates.

The same crops, keypoints and masks as in training, for people who are not the same: the driver's
motion is carried to the portrait's face, and the portrait hides its own attribute region and the
region that the other person's attribute will cover (Eq. 13).
"""

import dataclasses
from pathlib import Path

import numpy as np

from input_pipeline import faces, inspect, records, segmenters, transforms
from input_pipeline.aligners import Aligner
from input_pipeline.driving import FOLLOWING, Following, Motion, read_motion
from input_pipeline.errors import InputError
from input_pipeline.expansion import grow
from input_pipeline.records import KINDS
from input_pipeline.subject import Subject, read_subject


@dataclasses.dataclass(frozen=True)
class Masking:
    """How the portrait's mask comes about.

    segmenter: finds attributes in photos that come without a mask. aligner: where they will lie on
    the portrait. grow: the whole mask grows by this share of the face's height, as in training.
    """

    segmenter: segmenters.Segmenter
    aligner: Aligner
    grow: float = 0.03

    def __post_init__(self):
        if not 0 <= self.grow <= 1:
            raise InputError(f"--grow-mask {self.grow:g}: must be 0 to 1, a share of the face")


@dataclasses.dataclass(frozen=True)
class Scene:
    """All that one animation needs.

    Attributes:
      givers: who shows the attributes, and of which kind; N of them.
      own: bool [S, S], where the portrait shows such attributes itself.
      aligned: bool [N, S, S], where the givers' attributes will lie on it.
      batch: the batch contract without its clip axis and `video`, `id`.
      notes: what the user should know about the inputs, one line each.
    """

    portrait: Subject
    givers: list[tuple[Subject, str]]
    own: np.ndarray
    aligned: np.ndarray
    motion: Motion
    batch: dict[str, np.ndarray]
    notes: list[str]

    def preview(self) -> np.ndarray:
        """uint8 picture of all masks: the portrait with its own, for each attribute the giver with
        its mask and the portrait with the aligned one, and what is left of the portrait."""
        kinds = [kind for _, kind in self.givers]
        tiles = [self.portrait.image]
        tiles.append(inspect.draw_masks(self.portrait.image, {k: self.own for k in kinds[:1]}))
        for (giver, kind), mask, aligned in zip(
            self.givers, self.batch["attribute_mask"], self.aligned
        ):
            tiles.append(inspect.draw_masks(giver.image, {kind: mask}))
            tiles.append(inspect.draw_masks(self.portrait.image, {kind: aligned}))
        return np.hstack([*tiles, self.batch["portrait"]])


def read_scene(
    portrait: str | Path,
    attributes: list[tuple],
    driving: str | Path,
    size: int,
    landmarker: faces.FaceLandmarker,
    masking: Masking,
    *,
    portrait_mask: str | Path | None = None,
    framed: bool = False,
    following: Following = FOLLOWING,
) -> Scene:
    """Reads and checks the inputs of an animation.

    Args:
      attributes: (photo, kind) or (photo, kind, mask) tuples. A mask is a picture as large as its
        photo, white where the attribute shows; without one it is looked for. Without any attribute
        the portrait stays whole.
      size: side of the model's pictures in pixels.
      masking: how the portrait's mask comes about.
      portrait_mask: likewise, white where the portrait shows its own attributes of these kinds.
      framed: photos and clip are head-and-shoulders squares already and are not cropped.
      following: how the portrait follows the driver.

    Raises:
      InputError: an unusable photo, mask or clip, an unknown kind, an attribute that is not there.
    """
    for path, kind, *_ in attributes:
        if kind not in KINDS:
            raise InputError(f"{path}: unknown kind {kind!r}: choose from {', '.join(KINDS)}")
    person = read_subject(portrait, size, landmarker, portrait_mask, framed)
    givers = [
        (read_subject(path, size, landmarker, *mask or [None], framed), kind)
        for path, kind, *mask in attributes
    ]
    motion = read_motion(driving, landmarker, framed)

    shown = [_attribute_mask(giver, kind, masking.segmenter) for giver, kind in givers]
    if person.mask is not None:
        # Any share of a hidden pixel hides it, as in training.
        own = person.mask > 0
    else:
        found = person.find(frozenset(kind for _, kind in givers), masking.segmenter)
        own = np.any([np.zeros((size, size), bool), *found.values()], axis=0)
    aligned = [masking.aligner(*giver, mask, person) for giver, mask in zip(givers, shown)]
    hidden = np.any([own, *aligned], axis=0)
    hidden = grow(hidden, masking.grow * np.ptp(person.keypoints[:, 1]))
    keypoints = following.carry(motion, person.keypoints)
    batch = {
        "keypoints": keypoints[..., :2],
        "portrait": transforms.hide(person.image, hidden),
        "portrait_mask": hidden,
        "attribute": np.array(
            [transforms.hide(giver.image, ~mask) for (giver, _), mask in zip(givers, shown)],
            np.uint8,
        ).reshape(-1, size, size, 3),
        "attribute_mask": np.array(shown, bool).reshape(-1, size, size),
        "face": faces.align_face(person.image, person.keypoints),
    }
    return Scene(
        portrait=person,
        givers=givers,
        own=own,
        aligned=np.array(aligned, bool).reshape(-1, size, size),
        motion=motion,
        batch=batch,
        notes=_notes([person, *(giver for giver, _ in givers)], motion),
    )


def _attribute_mask(giver: Subject, kind: str, segmenter: segmenters.Segmenter) -> np.ndarray:
    if giver.mask is not None:
        # Half of the most covered pixel at most: thin rims must not vanish in small pictures.
        mask = giver.mask > min(0.5, giver.mask.max() / 2)
        if not mask.any():
            raise InputError(f"{giver.path}: its mask is black: paint it white where {kind} shows")
    else:
        mask = giver.find(frozenset([kind]), segmenter)[kind]
        if mask.mean() < records.MIN_ATTRIBUTE_AREA:
            raise InputError(
                f"{giver.path}: no {kind} found ({mask.mean():.2%} of the picture, "
                f"{records.MIN_ATTRIBUTE_AREA:.1%} needed): use a photo that shows it clearly"
            )
    if mask.mean() > records.MAX_ATTRIBUTE_AREA:
        raise InputError(
            f"{giver.path}: the {kind} mask covers {mask.mean():.0%} of the picture, at most "
            f"{records.MAX_ATTRIBUTE_AREA:.0%} can be right: give a mask that covers only {kind}"
        )
    return mask


def _notes(subjects: list[Subject], motion: Motion) -> list[str]:
    notes = [
        f"{subject.path}: {subject.face_count} faces, the largest is used"
        for subject in subjects
        if subject.face_count > 1
    ]
    if motion.face_count > 1:
        notes.append(f"{motion.path}: {motion.face_count} faces, the largest is followed")
    if motion.bridged:
        notes.append(f"{motion.path}: keypoints of {motion.bridged} frames were interpolated")
    return notes
