"""Raw photos and a raw clip -> the batch that a model animates.

The same crops, keypoints and masks as in training, for people who are not the same: the driver's
motion is carried to the portrait's face, and the portrait hides its own attribute region and the
region that the other person's attribute will cover (Eq. 13).
"""

import dataclasses
from pathlib import Path

import cv2
import numpy as np

from input_pipeline import expansion, faces, records, segmenters, transforms, video
from input_pipeline.driving import FOLLOWING, Following, Motion, read_motion
from input_pipeline.errors import InputError
from input_pipeline.records import KINDS

# The aligned mask grows by this share of the face's height; a similarity aligns only roughly.
ALIGNED_GROWTH = 0.03


@dataclasses.dataclass(frozen=True)
class Subject:
    """A person in a photo: image uint8 [S, S, 3], head and shoulders; keypoints float32 [478, 3]
    in its pixels; height and width of the photo; crop: photo -> image; the number of faces in the
    whole photo, of which this is the largest; if a mask came with the photo, the share of each
    pixel that it covers, float32 [S, S]."""

    path: Path
    image: np.ndarray
    keypoints: np.ndarray
    photo_shape: tuple[int, int]
    crop: faces.Crop
    face_count: int
    mask: np.ndarray | None

    def find(self, kinds: frozenset[str], segmenter: segmenters.Segmenter) -> dict:
        """The segmenter's mask of each kind, bool [S, S]."""
        pictures = segmenters.Pictures(
            images=self.image[None],
            keypoints=self.keypoints[None],
            source=Path(self.path.name),
            frames=np.array([0]),
            source_shape=self.photo_shape,
            crop=self.crop,
        )
        return {kind: masks[0] for kind, masks in segmenter(pictures, kinds).items()}


@dataclasses.dataclass(frozen=True)
class Scene:
    """All that one animation needs.

    Attributes:
      batch: the batch contract without its clip axis and `video`, `id`; N attributes.
      notes: what the user should know about the inputs, one line each.
    """

    portrait: Subject
    motion: Motion
    batch: dict[str, np.ndarray]
    notes: list[str]


def read_scene(
    portrait: str | Path,
    attributes: list[tuple],
    driving: str | Path,
    size: int,
    landmarker: faces.FaceLandmarker,
    segmenter: segmenters.Segmenter,
    *,
    portrait_mask: str | Path | None = None,
    framed: bool = False,
    following: Following = FOLLOWING,
) -> Scene:
    """Reads and checks the inputs of an animation.

    Args:
      attributes: (photo, kind) or (photo, kind, mask) tuples. A mask is a picture as large as its
        photo, white where the attribute shows; without one the segmenter looks for it. Without any
        attribute the portrait stays whole.
      size: side of the model's pictures in pixels.
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

    shown = [_attribute_mask(giver, kind, segmenter) for giver, kind in givers]
    kinds = frozenset(kind for _, kind in givers)
    hidden = np.zeros((size, size), bool)
    if person.mask is not None:
        # Any share of a hidden pixel hides it, as in training.
        hidden |= person.mask > 0
    else:
        for own in person.find(kinds, segmenter).values():
            hidden |= own
    for (giver, _), mask in zip(givers, shown):
        hidden |= align_mask(mask, giver.keypoints, person.keypoints)
    keypoints = following.carry(motion, person.keypoints, size)
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
    return Scene(person, motion, batch, _notes([person, *(giver for giver, _ in givers)], motion))


def read_subject(
    path: str | Path,
    size: int,
    landmarker: faces.FaceLandmarker,
    mask: str | Path | None = None,
    framed: bool = False,
) -> Subject:
    """Crops the largest face of a photo, and its mask; see `read_scene` for `framed`.

    Raises InputError for a bad photo, one with no face, or a mask that does not fit it.
    """
    image = video.read_picture(path)
    track = landmarker.track([image])
    if not track.found[0]:
        raise InputError(f"{path}: no face found: use a photo with a larger face in full view")
    crop = faces.steady_crop(path, track.keypoints, *image.shape[:2], framed)
    points = crop.points(track.keypoints[0], size)
    share = None
    if mask is not None:
        covered = video.read_picture(mask)
        if covered.shape != image.shape:
            raise InputError(
                f"{mask}: {covered.shape[1]}x{covered.shape[0]} pixels, its photo has "
                f"{image.shape[1]}x{image.shape[0]}: make the mask as large as the photo"
            )
        covered = np.where(covered > 127, np.uint8(255), np.uint8(0))
        share = crop.apply(covered, size).max(-1) / np.float32(255)
    return Subject(
        path=Path(path),
        image=crop.apply(image, size),
        keypoints=points,
        photo_shape=image.shape[:2],
        crop=crop,
        face_count=track.face_count,
        mask=share,
    )


def align_mask(
    mask: np.ndarray, keypoints: np.ndarray, portrait_keypoints: np.ndarray
) -> np.ndarray:
    """The attribute's mask where it would lie on the portrait's face.

    Stands in for the paper's Face Aligner: the similarity that maps one face's keypoints to the
    other's, least squares, and some growth for what a similarity cannot follow.

    Args:
      mask: bool [S, S]. keypoints, portrait_keypoints: [478, 3], pixels.

    Returns:
      bool [S, S].
    """
    matrix = faces.similarity(keypoints[:, :2], portrait_keypoints[:, :2])
    warped = cv2.warpAffine(mask.astype(np.float32), matrix, mask.shape[::-1]) > 0
    return expansion.grow(warped, ALIGNED_GROWTH * np.ptp(portrait_keypoints[:, 1]))


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
