"""From a chunk of a clip to a training sample: frame choice, complementary masking, augmentation.

Pure functions of arrays and a numpy Generator. Two frames of the clip act as attribute reference
and portrait reference, masked so that neither alone suffices; other frames of the clip are the
target (paper section 3, Eq. 2, and its reference augmentation).
"""

import dataclasses

import cv2
import numpy as np

from input_pipeline import faces
from input_pipeline.errors import InputError
from input_pipeline.records import KINDS, Chunk, decode_frame, decode_mask

MIN_ATTRIBUTE_AREA = 0.005
NUM_REFERENCE_CHOICES = 8


@dataclasses.dataclass(frozen=True)
class SampleOptions:
    """What a training sample looks like. Fractions are of the picture's side unless said otherwise.

    Attributes:
      size: side of every picture in pixels.
      frames: F, number of consecutive target frames.
      stride: step between target frames; 1 where the chunk is too short for more.
      reference_gap: frames between the target and the references, where the chunk allows it.
      kinds: attribute kinds to draw from.
      grow: the portrait mask grows by up to this fraction of the face's height.
      affine_probability, translate, scale, rotate: chance and largest extent of translation
        (fraction), scaling (1 - scale to 1 + scale) and rotation (degrees) of each reference.
      jitter_probability, jitter, hue: chance and largest relative change of brightness, contrast
        and saturation, and largest turn of the hue (fraction of the circle), of each reference.
    """

    size: int
    frames: int = 1
    stride: int = 1
    reference_gap: int = 30
    kinds: tuple[str, ...] = KINDS
    grow: float = 0.04
    affine_probability: float = 0.8
    translate: float = 0.1
    scale: float = 0.15
    rotate: float = 10.0
    jitter_probability: float = 0.8
    jitter: float = 0.2
    hue: float = 0.02

    def __post_init__(self):
        unknown = set(self.kinds) - set(KINDS)
        if unknown:
            raise InputError(f"data.kinds has {sorted(unknown)}: choose from {', '.join(KINDS)}")


def make_sample(chunk: Chunk, options: SampleOptions, rng: np.random.Generator) -> dict:
    """One training sample, the batch contract without its batch axis and `id`.

    Returns:
      video uint8 [F, H, W, 3]; keypoints float32 [F, 478, 2] in pixels of the target frames;
      portrait uint8 [H, W, 3], black where portrait_mask bool [H, W] is True (hidden region);
      attribute uint8 [N, H, W, 3], black where attribute_mask bool [N, H, W] is False; N = 1;
      face uint8 [112, 112, 3], the portrait's aligned face, unmasked. A clip that shows none of
      the attribute kinds gives empty masks: it teaches to animate without a transfer.

    Raises:
      ValueError: the chunk is broken or too short for F target frames and two references.
    """
    target, candidates = choose_frames(len(chunk.frames), options, rng)
    kind, attribute_frame = _choose_attribute(chunk, candidates, options.kinds, rng)
    portrait_frame = next(i for i in candidates if i != attribute_frame)

    source = decode_frame(chunk.frames[portrait_frame])
    scale = options.size / source.shape[0]
    video = np.stack([resize(decode_frame(chunk.frames[i]), options.size) for i in target])
    # A pixel's centre is at its index, so the picture begins at -0.5.
    keypoints = (chunk.keypoints[target, :, :2] + 0.5) * scale - 0.5

    attribute = resize(decode_frame(chunk.frames[attribute_frame]), options.size)
    shown = _read_mask(chunk, kind, attribute_frame, options.size)
    attribute, shown = augment(attribute, shown, options, rng, cv2.BORDER_CONSTANT)
    shown = shown > 0.5

    hidden = _read_mask(chunk, kind, portrait_frame, options.size)
    height = np.ptp(chunk.keypoints[portrait_frame, :, 1]) * scale
    hidden = grow(hidden > 0, rng.uniform(0, options.grow) * height).astype(np.float32)
    portrait = resize(source, options.size)
    portrait, hidden = augment(portrait, hidden, options, rng, cv2.BORDER_REFLECT_101)
    # Any share of a hidden pixel hides the result: interpolation must not carry the attribute out.
    hidden = hidden > 0

    return {
        "video": video,
        "keypoints": keypoints.astype(np.float32),
        "portrait": hide(portrait, hidden),
        "portrait_mask": hidden,
        "attribute": hide(attribute, ~shown)[None],
        "attribute_mask": shown[None],
        "face": faces.align_face(source, chunk.keypoints[portrait_frame]),
    }


def choose_frames(
    count: int, options: SampleOptions, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the F target frames, and of the frames that may be references, shuffled.

    References lie `reference_gap` frames or more from the target where enough frames do, else they
    are the farthest there are; never a target frame.
    """
    frames = options.frames
    if count < frames + 2:
        raise ValueError(f"{count} frames are too few for {frames} target frames and 2 references")
    stride = options.stride if count >= (frames - 1) * options.stride + 3 else 1
    start = rng.integers(count - (frames - 1) * stride)
    target = start + stride * np.arange(frames)
    others = np.setdiff1d(np.arange(count), target)
    distance = np.abs(others[:, None] - target).min(1)
    far = others[distance >= options.reference_gap]
    if len(far) < NUM_REFERENCE_CHOICES:
        far = others[np.argsort(-distance, kind="stable")[:NUM_REFERENCE_CHOICES]]
    return target, rng.permutation(far)


def augment(
    image: np.ndarray,
    mask: np.ndarray,
    options: SampleOptions,
    rng: np.random.Generator,
    border: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Random affine of picture and mask together, then colour jitter of the picture.

    Args:
      image: uint8 [H, W, 3].
      mask: float32 [H, W] in [0, 1].
      border: OpenCV border mode for what the affine exposes, of picture and mask alike.

    Returns:
      uint8 [H, W, 3] and float32 [H, W] in [0, 1], interpolated linearly.
    """
    matrix = affine_matrix(options, rng)
    size = (image.shape[1], image.shape[0])
    image = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=border)
    mask = cv2.warpAffine(mask, matrix, size, flags=cv2.INTER_LINEAR, borderMode=border)
    if rng.random() < options.jitter_probability:
        image = np.clip(
            cv2.transform(image.astype(np.float32), jitter_matrix(options, rng)), 0, 255
        )
        image = np.round(image).astype(np.uint8)
    return image, mask


def affine_matrix(options: SampleOptions, rng: np.random.Generator) -> np.ndarray:
    """float64 [2, 3]: translation, scaling and rotation about the centre, each drawn by chance."""
    translate, scale, angle = np.zeros(2), 1.0, 0.0
    if rng.random() < options.affine_probability:
        translate = rng.uniform(-options.translate, options.translate, 2) * options.size
    if rng.random() < options.affine_probability:
        scale = rng.uniform(1 - options.scale, 1 + options.scale)
    if rng.random() < options.affine_probability:
        angle = rng.uniform(-options.rotate, options.rotate)
    centre = (options.size - 1) / 2
    matrix = cv2.getRotationMatrix2D((centre, centre), angle, scale)
    matrix[:, 2] += translate
    return matrix


def jitter_matrix(options: SampleOptions, rng: np.random.Generator) -> np.ndarray:
    """float64 [3, 4] on RGB in [0, 255]: brightness, contrast about mid-grey, saturation and hue.

    Saturation scales and hue turns the chroma plane of YIQ, so all four are one linear map.
    """
    brightness, contrast, saturation = rng.uniform(1 - options.jitter, 1 + options.jitter, 3)
    turn = 2 * np.pi * rng.uniform(-options.hue, options.hue)
    to_yiq = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
    chroma = saturation * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    change = np.eye(3)
    change[1:, 1:] = chroma
    colour = np.linalg.inv(to_yiq) @ change @ to_yiq
    offset = 127.5 * (1 - contrast) * np.ones((3, 1))
    return np.hstack([brightness * contrast * colour, offset])


def grow(mask: np.ndarray, radius: float) -> np.ndarray:
    """bool [H, W]: the mask and all pixels within `radius` pixels of it."""
    if not mask.any():
        return mask
    return cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5) <= radius


def hide(image: np.ndarray, region: np.ndarray) -> np.ndarray:
    """A copy of uint8 [H, W, 3], black where `region` bool [H, W] is True (Eq. 2)."""
    return np.where(region[..., None], np.uint8(0), image)


def _choose_attribute(
    chunk: Chunk, candidates: np.ndarray, kinds: tuple[str, ...], rng: np.random.Generator
) -> tuple[str | None, int]:
    """An attribute kind and a candidate frame that shows it; (None, a candidate) if none does."""
    present = [kind for kind in kinds if kind in chunk.masks]
    for kind in rng.permutation(present):
        for i in candidates:
            if decode_mask(chunk.masks[kind][i]).mean() >= MIN_ATTRIBUTE_AREA:
                return str(kind), int(i)
    return None, int(candidates[0])


def _read_mask(chunk: Chunk, kind: str | None, index: int, size: int) -> np.ndarray:
    """float32 [size, size], share of each pixel that the mask covers; zeros without a kind."""
    if kind is None:
        return np.zeros((size, size), np.float32)
    return resize(decode_mask(chunk.masks[kind][index]).astype(np.float32), size)


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """The square picture at `size` pixels a side: area average to shrink, linear to enlarge."""
    if image.shape[0] == size:
        return image
    shrinks = image.shape[0] > size
    return cv2.resize(
        image, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )
