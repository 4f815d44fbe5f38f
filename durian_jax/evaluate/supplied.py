"""Networks whose weights the user supplies, in the file format in which the field passes them on.

    fid      inception-2015-12-05.pt, the TorchScript file that clean-fid uses
    fvd      i3d_torchscript.pt, I3D trained on Kinetics-400, as StyleGAN-V uses it
    clip     a CLIP vision model with projection for transformers: folder or hub id
    dino     a DINO or DINOv2 model for transformers: folder or hub id
    arcface  an InsightFace recognition model (w600k_r50, AuraFace's glintr100, ...) as ONNX

The first four are computed by torch: the extra [torch]; ArcFace by onnxruntime: [eval].
"""

import hashlib
import importlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from durian_jax.evaluate.network import ClipFrechet, Frechet, Identity, Network
from durian_jax.evaluate.scores import Prediction
from input_pipeline.errors import InputError
from input_pipeline.faces import descriptor, geometry

_BATCH = 16
_REGION_FRAMES = 8


def _facts(source: str) -> dict[str, str]:
    facts = {"weights": source}
    if Path(source).is_file():
        facts["sha256"] = hashlib.sha256(Path(source).read_bytes()).hexdigest()
    return facts


def _imported(name: str, package: str):
    try:
        return importlib.import_module(package)
    except ImportError:
        raise InputError(
            f"{name}: {package} is not installed: pip install 'durian_jax[torch]'",
            option="weights",
        ) from None


def arcface(name: str, source: str) -> Identity:
    """The metric of an ONNX file."""
    return Identity(name, _facts(source), descriptor.FaceDescriptor(source))


class Torch(Network):
    """A network that torch runs."""

    def __init__(self, name: str, source: str):
        self._torch = _imported(name, "torch")
        super().__init__(name, _facts(source))

    def _device(self) -> str:
        return "cuda" if self._torch.cuda.is_available() else "cpu"

    def _batches(self, frames: np.ndarray, function: Callable) -> np.ndarray:
        """function of tensors [b, ...] over all frames, float64."""
        torch, parts = self._torch, []
        for start in range(0, len(frames), _BATCH):
            batch = np.ascontiguousarray(frames[start : start + _BATCH], np.float32)
            with torch.inference_mode():
                result = function(torch.from_numpy(batch).to(self._device()))
            parts.append(result.float().cpu().numpy())
        return np.concatenate(parts).astype(np.float64)


class _Scripted(Torch):
    """Features by a TorchScript file."""

    def __init__(self, name: str, source: str):
        super().__init__(name, source)
        self._network = self._torch.jit.load(source, map_location=self._device()).eval()


class Fid(_Scripted, Frechet):
    too_few = "needs 2 frames"

    def features(self, frames: np.ndarray) -> np.ndarray:
        return self._batches(
            np.stack([_clean_resize(frame * 255, 299) for frame in frames]),
            lambda x: self._network.layers((x.permute(0, 3, 1, 2) - 128) / 128).flatten(1),
        )


class Fvd(_Scripted, ClipFrechet):
    def clip_features(self, clip: np.ndarray) -> np.ndarray:
        return self._batches(
            clip.transpose(0, 4, 1, 2, 3) * 255,
            lambda x: self._network(x, rescale=True, resize=True, return_features=True),
        )


class Regions(Torch):
    """Cosine between the attribute in its own picture and in the prediction."""

    def __init__(self, name: str, source: str):
        super().__init__(name, source)
        transformers = _imported(name, "transformers")
        model = transformers.AutoModel
        if name == "clip":
            model = transformers.CLIPVisionModelWithProjection
        self._model = model.from_pretrained(source).eval().to(self._device())
        self._processor = transformers.AutoImageProcessor.from_pretrained(source)

    def value(self, prediction: Prediction) -> float | None:
        """None where the case has no attribute."""
        case, pictures, reference = prediction.case, prediction.pictures, prediction.reference
        if not case.attributes:
            return None
        chosen = np.linspace(case.scored_from, case.frames - 1, _REGION_FRAMES).round().astype(int)
        total = 0.0
        for i, attribute in enumerate(case.attributes):
            mask = pictures.attribute_masks[i]
            cuts = [_cut_out(pictures.attributes[i] / np.float32(255), mask)]
            for frame in chosen:
                points = reference.keypoints if reference.usable[frame] else reference.motion
                matrix = geometry.similarity(reference.attributes[i][:, :2], points[frame, :, :2])
                moved = cv2.warpAffine(mask.astype(np.float32), matrix, mask.shape[::-1]) > 0.5
                cuts.append(_cut_out(prediction.frames[frame], moved))
            given, *found = self._embed(cuts)
            total += attribute.weight * float(np.mean(np.stack(found) @ given))
        return total / len(case.kinds)

    def _embed(self, pictures: list[np.ndarray]) -> np.ndarray:
        """Unit vectors [n, d] of uint8 pictures."""
        torch = self._torch
        pixels = self._processor(images=[Image.fromarray(one) for one in pictures],
                                 return_tensors="pt")["pixel_values"]  # fmt: skip
        with torch.inference_mode():
            found = self._model(pixel_values=pixels.to(self._device()))
        found = found.image_embeds if self.name == "clip" else found.last_hidden_state[:, 0]
        found = found.double().cpu().numpy()
        return found / np.linalg.norm(found, axis=-1, keepdims=True)


def _clean_resize(image: np.ndarray, size: int) -> np.ndarray:
    """float32 [size, size, 3] as clean-fid's mode "clean": Pillow's bicubic, channel by channel."""
    channels = [
        Image.fromarray(np.ascontiguousarray(image[..., i], np.float32)).resize(
            (size, size), Image.Resampling.BICUBIC
        )
        for i in range(3)
    ]
    return np.clip(np.stack([np.asarray(channel) for channel in channels], -1), 0, 255)


def _cut_out(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """uint8 square round the mask, grey where it does not hold; all of it if the mask is empty."""
    grey = np.where(mask[..., None], image, np.float32(0.5))
    size = len(image)
    if mask.any():
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        side = min(size, int(max(np.ptp(rows), np.ptp(columns))) + 1)
        top, left = (
            int(np.clip((places[0] + places[-1] + 1 - side) // 2, 0, size - side))
            for places in (rows, columns)
        )
        grey = grey[top : top + side, left : left + side]
    return np.round(grey * 255).astype(np.uint8)
