"""The classes of segmentation networks: which of them is an attribute, and what their input is.

Label lists are in the order of the network's outputs, from the projects that define them.
"""

import dataclasses

import cv2
import numpy as np

from input_pipeline.errors import InputError

# A class with one of these names is an attribute of that kind.
_NAMES = {
    "hair": {"hair"},
    "glasses": {"glasses", "eyeglass", "eyeglasses", "eye_g", "sunglasses"},
    "beard": {"beard", "facial_hair", "moustache", "mustache"},
    "hat": {"hat", "headwear"},
}


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How a network wants its pictures: (height, width); mean and deviation of RGB in 0 .. 1."""

    size: tuple[int, int]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """uint8 [T, S, S, 3] -> float32 [T, height, width, 3], stretched to size, normalised."""
        height, width = self.size
        resized = [
            cv2.resize(
                image,
                (width, height),
                interpolation=cv2.INTER_AREA if height < len(image) else cv2.INTER_LINEAR,
            )
            for image in images
        ]
        scaled = np.array(resized, np.float32) / 255
        return (scaled - np.float32(self.mean)) / np.float32(self.deviation)


NORMALISATIONS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "unit": ((0.0,) * 3, (1.0,) * 3),  # 0 .. 1
    "signed": ((0.5,) * 3, (0.5,) * 3),  # -1 .. 1
    "none": ((0.0,) * 3, (1 / 255,) * 3),  # 0 .. 255
}


@dataclasses.dataclass(frozen=True)
class ClassMap:
    """Names of a network's classes, by index, and the input that such networks are trained on:
    (height, width), and one of NORMALISATIONS."""

    labels: tuple[str, ...]
    size: tuple[int, int] = (512, 512)
    normalisation: str = "imagenet"

    @property
    def kinds(self) -> frozenset[str]:
        """The attribute kinds among the classes."""
        return frozenset(kind for kind in _NAMES if self._indices(kind))

    def _indices(self, kind: str) -> list[int]:
        return [i for i, label in enumerate(self.labels) if label.lower() in _NAMES[kind]]

    def masks(self, scores: np.ndarray, kinds: frozenset[str], size: int) -> dict[str, np.ndarray]:
        """Where the classes of each kind have the best score, after resizing to the picture.

        scores: float32 [C, h, w], a network's outputs for one picture. Returns bool [size, size].
        """
        resized = cv2.resize(np.moveaxis(scores, 0, -1), (size, size))
        best = resized.argmax(-1)
        return {kind: np.isin(best, self._indices(kind)) for kind in kinds}


def _labels(text: str) -> tuple[str, ...]:
    return tuple(text.split())


CLASS_MAPS = {
    # zllrunning/face-parsing.PyTorch, and most ONNX exports of face parsers.
    "bisenet": ClassMap(
        _labels(
            "background skin l_brow r_brow l_eye r_eye eye_g l_ear r_ear ear_r nose mouth u_lip "
            "l_lip neck neck_l cloth hair hat"
        )
    ),
    # The data set's own order, which SegFormer face parsers keep.
    "celebamask": ClassMap(
        _labels(
            "background skin nose eye_g l_eye r_eye l_brow r_brow l_ear r_ear mouth u_lip l_lip "
            "hair hat ear_r neck_l neck cloth"
        )
    ),
    # microsoft/FaceSynthetics, and Sapiens fine-tuned on it: the only one with beards.
    "facesynthetics": ClassMap(
        _labels(
            "background skin nose right_eye left_eye right_brow left_brow right_ear left_ear "
            "mouth_interior top_lip bottom_lip neck hair beard clothing glasses headwear facewear"
        )
    ),
    # MediaPipe's hair segmenter.
    "hair": ClassMap(_labels("background hair"), (512, 512), "unit"),
    "lapa": ClassMap(
        _labels(
            "background skin left_eyebrow right_eyebrow left_eye right_eye nose upper_lip "
            "inner_mouth lower_lip hair"
        )
    ),
    "mediapipe-multiclass": ClassMap(
        _labels("background hair body_skin face_skin clothes others"),
        (256, 256),
        "unit",
    ),
    # facebookresearch/sapiens, docs/SEG_README.md, and sapiens2, docs/SEG.md.
    "sapiens": ClassMap(
        _labels(
            "background apparel face_neck hair left_foot left_hand left_lower_arm left_lower_leg "
            "left_shoe left_sock left_upper_arm left_upper_leg lower_clothing right_foot "
            "right_hand right_lower_arm right_lower_leg right_shoe right_sock right_upper_arm "
            "right_upper_leg torso upper_clothing lower_lip upper_lip lower_teeth upper_teeth "
            "tongue"
        ),
        (1024, 768),
    ),
    "sapiens2": ClassMap(
        _labels(
            "background apparel eyeglass face_neck hair left_foot left_hand left_lower_arm "
            "left_lower_leg left_shoe left_sock left_upper_arm left_upper_leg lower_clothing "
            "right_foot right_hand right_lower_arm right_lower_leg right_shoe right_sock "
            "right_upper_arm right_upper_leg torso upper_clothing lower_lip upper_lip lower_teeth "
            "upper_teeth tongue"
        ),
        (1024, 768),
    ),
}


def fitting_map(where: str, counts: set[int], name: str | None = None) -> str:
    """Name of the class map: the given one, or the only one that fits.

    where: the spec and what was found there, for messages. counts: numbers of classes that the
    network may have.

    Raises InputError for an unknown name, another number of classes, or several maps that fit.
    """
    known = {key: len(entry.labels) for key, entry in CLASS_MAPS.items()}
    if name is not None and name not in known:
        raise InputError(f"{where}: no class map {name!r}: choose from {', '.join(known)}")
    fitting = [key for key, count in known.items() if count in counts and name in (None, key)]
    if len(fitting) > 1:
        raise InputError(
            f"{where}: {known[fitting[0]]} classes may be {', '.join(fitting)}: say which, as in "
            f"classes={fitting[0]}"
        )
    if not fitting:
        expected = ", ".join(f"{known[key]} ({key})" for key in known if name in (None, key))
        raise InputError(f"{where}: expected scores of classes, this many: {expected}")
    return fitting[0]
