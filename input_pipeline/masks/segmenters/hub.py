"""SegFormer and Sapiens2 of the transformers library give the masks."""

import functools
import hashlib
from pathlib import Path

import numpy as np

from input_pipeline.errors import InputError
from input_pipeline.kinds import KINDS
from input_pipeline.masks.segmenters import Pictures, Segmenter, split_options
from input_pipeline.masks.segmenters.classes import (
    CLASS_MAPS,
    NORMALISATIONS,
    ClassMap,
    Preprocessing,
    fitting_map,
)

BATCH = 8


class HubSegmenter(Segmenter):
    """A pretrained model, on the GPU if there is one.

    Attributes:
      auto: class of transformers that loads it. model_types: what its config.json may say.
    """

    auto: str
    model_types: frozenset[str]

    def __init__(self, source: str):
        """source: FOLDER, or hub id USER/NAME@REVISION. InputError if no such model is there."""
        self._where = f"{self.name}:{source}"
        try:
            import torch
            import transformers
        except ImportError:
            raise InputError(
                f"{self._where}: needs torch and transformers: pip install 'durian_jax[torch]'"
            ) from None
        path, _, revision = (source, "", "") if Path(source).is_dir() else source.partition("@")
        place = {"pretrained_model_name_or_path": path, "revision": revision or "main"}
        kind = transformers.AutoConfig.from_pretrained(**place).model_type
        if kind not in self.model_types:
            raise InputError(f"{self._where}: a {kind} model: expected {self.name}")
        self._model, report = getattr(transformers, self.auto).from_pretrained(
            **place, dtype=torch.float32, output_loading_info=True
        )
        if missing := sorted(report["missing_keys"]):
            raise InputError(
                f"{self._where}: {len(missing)} weights are missing, the first is {missing[0]}: "
                f"expected a model for {self.auto}"
            )
        self._model.eval().requires_grad_(False)
        self._model.to("cuda" if torch.cuda.is_available() else "cpu")
        try:
            self._facts, _ = transformers.ImageProcessingMixin.get_image_processor_dict(**place)
        except OSError:
            self._facts = {}  # no preprocessor_config.json: the usual values

    @functools.cached_property
    def version(self) -> str:
        """Digest of the weights."""
        digest = hashlib.sha256()
        for name, weight in sorted(self._model.state_dict().items()):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(weight.cpu().numpy()).tobytes())
        return digest.hexdigest()[:12]

    def _preprocessing(self, size: tuple[int, int]) -> Preprocessing:
        """That of preprocessor_config.json, else ImageNet's at the given (height, width)."""
        wanted = self._facts.get("size")
        if isinstance(wanted, dict):
            edge = wanted.get("shortest_edge")
            size = wanted.get("height", edge), wanted.get("width", edge)
        elif wanted:
            size = wanted, wanted
        if not self._facts.get("do_normalize", True):
            return Preprocessing(size, *NORMALISATIONS["unit"])
        mean, deviation = NORMALISATIONS["imagenet"]
        return Preprocessing(
            size,
            tuple(self._facts.get("image_mean", mean)),
            tuple(self._facts.get("image_std", deviation)),
        )

    def _tensor(self, array: np.ndarray):
        import torch

        return torch.from_numpy(np.ascontiguousarray(array)).to(self._model.device)


class ClassSegmenter(HubSegmenter):
    """A model that scores classes; spec FOLDER_OR_HUB_ID[,classes=NAME].

    The names of the classes are those of its config.json; a model without names needs as many
    classes as one of our class maps.
    """

    auto = "AutoModelForSemanticSegmentation"
    size: tuple[int, int]

    def __init__(self, source: str):
        """Raises InputError if there is no such model, or none of its classes is an attribute."""
        path, options = split_options(source, ("classes",))
        super().__init__(path)
        names = self._model.config.id2label
        labels = tuple(names[i] for i in range(len(names)))
        if "classes" in options or labels[0] == "LABEL_0":
            where = f"{self._where}: {len(labels)} classes"
            fitting = fitting_map(where, {len(labels)}, options.get("classes"))
            self._classes = CLASS_MAPS[fitting]
        else:
            self._classes = ClassMap(labels)
        self.kinds = self._classes.kinds
        if not self.kinds:
            raise InputError(
                f"{self._where}: none of its {len(labels)} classes ({', '.join(labels[:3])} ...) "
                f"is {', '.join(KINDS)}: use a model for faces"
            )
        self._preprocess = self._preprocessing(self.size)

    def _masks(self, pictures: Pictures, present: frozenset[str]) -> dict[str, np.ndarray]:
        import torch

        shape = pictures.images.shape[:3]
        masks = {kind: np.zeros(shape, bool) for kind in present}
        for start in range(0, shape[0], BATCH):
            pixels = self._preprocess(pictures.images[start : start + BATCH])
            with torch.inference_mode():
                logits = self._model(pixel_values=self._tensor(pixels.transpose(0, 3, 1, 2))).logits
            for i, scores in enumerate(logits.cpu().numpy(), start):
                for kind, mask in self._classes.masks(scores, present, shape[1]).items():
                    masks[kind][i] = mask
        return masks


class SegformerSegmenter(ClassSegmenter):
    """SegFormer trained to parse faces, such as those with the classes of CelebAMask-HQ."""

    name = "segformer"
    model_types = frozenset({"segformer"})
    size = (512, 512)


class Sapiens2Segmenter(ClassSegmenter):
    """Sapiens2 for body parts: hair and glasses."""

    name = "sapiens2"
    model_types = frozenset({"sapiens2"})
    size = (1024, 768)
