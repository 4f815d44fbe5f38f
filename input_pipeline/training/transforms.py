"""From a chunk of a clip to a training sample: frame choice, augmentation, complementary masking.

Pure functions of arrays and a numpy Generator. Two frames of the clip act as attribute reference
and portrait reference, masked so that neither alone suffices; other frames of the clip are the
target (paper section 3, Eq. 2, and its reference augmentation).
"""

import dataclasses
from pathlib import Path

import cv2
import numpy as np

from input_pipeline.dataset.donors import NOBODY, Donors
from input_pipeline.dataset.records import Chunk, decode_frame, decode_mask
from input_pipeline.errors import InputError
from input_pipeline.faces import geometry
from input_pipeline.kinds import KINDS, MIN_ATTRIBUTE_AREA
from input_pipeline.masks.regions import grow, hide
from input_pipeline.media.pictures import resize
from input_pipeline.training.augmentation import Augmentation, augment, move

NUM_REFERENCE_CHOICES = 8


@dataclasses.dataclass(frozen=True)
class SampleOptions(Augmentation):
    """What a training sample looks like.

    Attributes, beside those of `Augmentation`:
      frames: F, number of consecutive target frames.
      stride: step between target frames; 1 where the chunk is too short for more.
      reference_gap: frames between the target and the references, where the chunk allows it.
      kinds: attribute kinds to draw from.
      expand_probability, expand_count: chance that the portrait mask is expanded, and by how many
        masks at most: those of the record where its frame has any, else borrowed ones.
      grow: it then grows by up to this fraction of the face's height.
      augmented: which references are augmented, of "portrait" and "attribute".
      masked: whether each reference hides what the other shows; False is the paper's ablation.
    """

    frames: int = 1
    stride: int = 1
    reference_gap: int = 30
    kinds: tuple[str, ...] = KINDS
    expand_probability: float = 0.8
    expand_count: int = 2
    grow: float = 0.04
    augmented: tuple[str, ...] = ("portrait", "attribute")
    masked: bool = True

    def __post_init__(self):
        if unknown := set(self.augmented) - {"portrait", "attribute"}:
            raise InputError(f"data.augmented has {sorted(unknown)}: choose portrait, attribute")
        unknown = set(self.kinds) - set(KINDS)
        if unknown:
            raise InputError(f"data.kinds has {sorted(unknown)}: choose from {', '.join(KINDS)}")
        if self.expand_count < 1:
            raise InputError(f"data.expand_count is {self.expand_count}, must be at least 1")

    @property
    def least_frames(self) -> int:
        """That a record must have: target and two references."""
        return self.frames + 2

    def check(self, path: str | Path, metadata: dict) -> None:
        """Raises InputError: the data set at a path, of which these are the facts, lacks what
        samples are made of."""

    def make(self, chunk: Chunk, rng: np.random.Generator, donors: Donors = NOBODY) -> dict:
        """One training sample, see `make_sample`."""
        return make_sample(chunk, self, rng, donors=donors)

    def ranges(self, reference: str) -> Augmentation:
        """What the "portrait" or the "attribute" reference draws from."""
        if reference in self.augmented:
            return self
        return dataclasses.replace(self, affine_probability=0.0, jitter_probability=0.0)


class TooShort(ValueError):
    """A record that is whole, but has fewer frames than a sample needs."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """Which frames of a chunk make a sample: target int [F], the two references, the attribute."""

    target: np.ndarray
    kind: str | None
    attribute: int
    portrait: int


def make_sample(
    chunk: Chunk,
    options: SampleOptions,
    rng: np.random.Generator,
    donors: Donors = NOBODY,
) -> dict:
    """One training sample, the batch contract without its batch axis and `id`.

    donors: people of the data set whose masks may be borrowed.

    Returns:
      video uint8 [F, H, W, 3]; keypoints float32 [F, 478, 2] in pixels of the target frames;
      portrait uint8 [H, W, 3], black where portrait_mask bool [H, W] is True (hidden region);
      attribute uint8 [N, H, W, 3], black where attribute_mask bool [N, H, W] is False; N = 1;
      portrait_keypoints, attribute_keypoints float32 [478, 2], [N, 478, 2] in pixels of these two;
      face uint8 [112, 112, 3], the portrait's aligned face, unmasked. A clip that shows none of
      the attribute kinds gives empty masks: it teaches to animate without a transfer.

    Raises:
      ValueError: the chunk is broken or too short for F target frames and two references.
    """
    choice = choose(chunk, options, rng)
    return assemble(chunk, choice, options, rng, donors)


def choose(chunk: Chunk, options: SampleOptions, rng: np.random.Generator) -> Choice:
    """Draws the frames of a sample; a portrait frame with expanded masks goes first."""
    target, candidates = choose_frames(len(chunk.frames), options, rng)
    kind, attribute = _choose_attribute(chunk, candidates, options.kinds, rng)
    others = [int(i) for i in candidates if i != attribute]
    expanded = chunk.expanded.get(kind, {})
    portrait = max(others, key=lambda i: i in expanded)
    return Choice(target, kind, attribute, portrait)


def assemble(
    chunk: Chunk,
    choice: Choice,
    options: SampleOptions,
    rng: np.random.Generator,
    donors: Donors,
) -> dict:
    """The sample of `make_sample` from the chosen frames: augmented, then masked."""
    source = decode_frame(chunk.frames[choice.portrait])
    scale = options.size / source.shape[0]
    video = [resize(decode_frame(chunk.frames[i]), options.size) for i in choice.target]
    # A pixel's centre is at its index, so the picture begins at -0.5.
    keypoints = (chunk.keypoints[choice.target, :, :2] + 0.5) * scale - 0.5

    attribute = resize(decode_frame(chunk.frames[choice.attribute]), options.size)
    shown = _read_mask(chunk, choice.kind, choice.attribute, options.size)
    shown_points = (chunk.keypoints[choice.attribute] + 0.5) * scale - 0.5
    ranges = options.ranges("attribute")
    attribute, shown, moved = augment(attribute, shown, ranges, rng, cv2.BORDER_CONSTANT)
    shown_points, shown = move(shown_points[:, :2], moved), shown > 0.5

    hidden = _read_mask(chunk, choice.kind, choice.portrait, options.size) > 0
    points = (chunk.keypoints[choice.portrait] + 0.5) * scale - 0.5
    if rng.random() < options.expand_probability:
        for mask in expanded_masks(chunk, choice, points, options, donors, rng):
            hidden |= mask
    hidden = grow(hidden, rng.uniform(0, options.grow) * np.ptp(points[:, 1])).astype(np.float32)
    portrait = resize(source, options.size)
    ranges = options.ranges("portrait")
    portrait, hidden, moved = augment(portrait, hidden, ranges, rng, cv2.BORDER_REFLECT_101)
    # Any share of a hidden pixel hides the result: interpolation must not carry the attribute out.
    hidden = hidden > 0

    return {
        "video": np.stack(video),
        "keypoints": keypoints.astype(np.float32),
        "portrait": hide(portrait, hidden) if options.masked else portrait,
        "portrait_mask": hidden,
        "portrait_keypoints": move(points[:, :2], moved),
        "attribute": (hide(attribute, ~shown) if options.masked else attribute)[None],
        "attribute_mask": shown[None],
        "attribute_keypoints": shown_points[None],
        "face": geometry.align_face(source, chunk.keypoints[choice.portrait]),
    }


def choose_frames(
    count: int, options: SampleOptions, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the F target frames, and of the frames that may be references, shuffled.

    References lie `reference_gap` frames or more from the target where enough frames do, else they
    are the farthest there are; never a target frame.
    """
    frames = options.frames
    if count < options.least_frames:
        raise TooShort(f"{count} frames are too few for {frames} target frames and 2 references")
    stride = options.stride if count >= (frames - 1) * options.stride + 3 else 1
    start = rng.integers(count - (frames - 1) * stride)
    target = start + stride * np.arange(frames)
    others = np.setdiff1d(np.arange(count), target)
    distance = np.abs(others[:, None] - target).min(1)
    far = others[distance >= options.reference_gap]
    if len(far) < NUM_REFERENCE_CHOICES:
        far = others[np.argsort(-distance, kind="stable")[:NUM_REFERENCE_CHOICES]]
    return target, rng.permutation(far)


def expanded_masks(
    chunk: Chunk,
    choice: Choice,
    points: np.ndarray,
    options: SampleOptions,
    donors: Donors,
    rng: np.random.Generator,
) -> list[np.ndarray]:
    """Up to `expand_count` bool [H, W]: where others would wear it on the portrait's head.

    points: float [478, 3], the portrait's keypoints in pixels of the sample.
    """
    count = int(rng.integers(1, options.expand_count + 1))
    stored = chunk.expanded.get(choice.kind, {}).get(choice.portrait, [])
    if stored:
        pngs = [stored[i] for i in rng.permutation(len(stored))[:count]]
        return [resize(np.float32(decode_mask(png)), options.size) > 0 for png in pngs]
    return [
        donors.borrow(choice.kind, chunk.identity, points, options.size, rng) for _ in range(count)
    ]


def _choose_attribute(
    chunk: Chunk, candidates: np.ndarray, kinds: tuple[str, ...], rng: np.random.Generator
) -> tuple[str | None, int]:
    """An attribute kind and a candidate frame that shows it; (None, a candidate) if none does."""
    present = [kind for kind in kinds if kind in chunk.masks]
    for kind in rng.permutation(present):
        for i in candidates:
            mask = decode_mask(chunk.masks[kind][i])
            if np.count_nonzero(mask) >= MIN_ATTRIBUTE_AREA * mask.size:
                return str(kind), int(i)
    return None, int(candidates[0])


def _read_mask(chunk: Chunk, kind: str | None, index: int, size: int) -> np.ndarray:
    """float32 [size, size], share of each pixel that the mask covers; zeros without a kind."""
    if kind is None:
        return np.zeros((size, size), np.float32)
    return resize(decode_mask(chunk.masks[kind][index]).astype(np.float32), size)
