"""SAM 2 gives the masks, asked by points and boxes that follow from the keypoints."""

import dataclasses

import numpy as np

from input_pipeline.kinds import KINDS
from input_pipeline.masks.segmenters import Pictures
from input_pipeline.masks.segmenters.hub import BATCH, HubSegmenter

# Face-mesh indices; left and right as seen in the picture.
_FOREHEAD, _BROW_MIDDLE, _CHIN, _NOSE, _BRIDGE = 10, 151, 152, 1, 168
_PUPILS, _EYE_CORNERS, _BROWS = (468, 473), (33, 263), (105, 334)
_CHEEKS, _LOWER_CHEEKS, _TEMPLES = (50, 280), (205, 425), (127, 356)
_SIDES, _JAW = (234, 454), (172, 397)
_UNDER_NOSE, _BELOW_LIP, _LIPS = 164, 199, (13, 14)


@dataclasses.dataclass(frozen=True)
class _Prompt:
    """Where an attribute is and where it is not. Points: (keypoint, right, up), in outer-canthal
    distances from the keypoint along the head's own axes. box: keypoints; grown by (x, y)."""

    inside: tuple[tuple[int, float, float], ...]
    outside: tuple[tuple[int, float, float], ...]
    box: tuple[int, ...] = ()
    margin: tuple[float, float] = (0.0, 0.0)


def _on(*keypoints: int) -> tuple:
    return tuple((keypoint, 0.0, 0.0) for keypoint in keypoints)


_TOP = ((_FOREHEAD, 0, 0.45), (_FOREHEAD, -0.4, 0.35), (_FOREHEAD, 0.4, 0.35))
_ABOVE_EARS = ((_TEMPLES[0], -0.05, 0.35), (_TEMPLES[1], 0.05, 0.35))
_BELOW_CHIN = (_CHIN, 0, -0.9)
_PROMPTS = {
    # Nobody knows beforehand how long the hair is or how wide the hat: no box.
    "hair": _Prompt(
        inside=(*_TOP, *_ABOVE_EARS),
        outside=(*_on(_NOSE, _BROW_MIDDLE, *_CHEEKS), _BELOW_CHIN),
    ),
    "hair below a hat": _Prompt(
        inside=_ABOVE_EARS,
        outside=(*_TOP, *_on(_NOSE, *_CHEEKS), _BELOW_CHIN),
    ),
    "hat": _Prompt(
        inside=_TOP,
        outside=(*_on(_NOSE, *_CHEEKS, _CHIN), (_TEMPLES[0], -0.1, -0.3), (_TEMPLES[1], 0.1, -0.3)),
    ),
    "glasses": _Prompt(
        inside=_on(*_PUPILS, _BRIDGE),
        outside=_on(_NOSE, _BROW_MIDDLE, *_LOWER_CHEEKS),
        box=(*_EYE_CORNERS, *_BROWS, *_TEMPLES),
        margin=(0.05, 0.3),
    ),
    "beard": _Prompt(
        inside=_on(_BELOW_LIP, _UNDER_NOSE, *_JAW),
        outside=_on(*_LIPS, _NOSE, _BROW_MIDDLE, *_CHEEKS),
        box=(_UNDER_NOSE, _CHIN, *_SIDES),
        margin=(0.1, 0.15),
    ),
}


class Sam2Segmenter(HubSegmenter):
    """Spec FOLDER_OR_HUB_ID. Every frame is asked for by itself."""

    name = "sam2"
    tells_presence = False
    auto = "Sam2Model"
    model_types = frozenset({"sam2", "sam2_video"})  # published weights are those of the second
    kinds = frozenset(KINDS)

    def __init__(self, source: str):
        super().__init__(source)
        side = self._model.config.prompt_encoder_config.image_size
        self._preprocess = dataclasses.replace(self._preprocessing((side, side)), size=(side, side))

    def _masks(self, pictures: Pictures, present: frozenset[str]) -> dict[str, np.ndarray]:
        import torch

        shape = pictures.images.shape[:3]
        masks = {kind: np.zeros(shape, bool) for kind in present}
        for start in range(0, shape[0], BATCH):
            part = slice(start, start + BATCH)
            pixels = self._preprocess(pictures.images[part]).transpose(0, 3, 1, 2)
            # A pixel's centre lies at its index.
            scale = pixels.shape[-1] / shape[1]
            keypoints = (pictures.keypoints[part, :, :2] + 0.5) * scale - 0.5
            with torch.inference_mode():
                seen = self._model.get_image_embeddings(self._tensor(pixels))
                for kind in present:
                    hatted = kind == "hair" and "hat" in present
                    asked = prompts(keypoints, "hair below a hat" if hatted else kind)
                    output = self._model(
                        image_embeddings=seen,
                        multimask_output=False,
                        **{name: self._tensor(array) for name, array in asked.items()},
                    )
                    logits = output.pred_masks[:, :, 0].float()
                    logits = torch.nn.functional.interpolate(logits, shape[1:], mode="bilinear")
                    masks[kind][part] = (logits[:, 0] > 0).cpu().numpy()
        return masks


def prompts(keypoints: np.ndarray, kind: str) -> dict[str, np.ndarray]:
    """What to ask SAM 2 for an attribute of T faces.

    keypoints: float32 [T, 478, 2], pixels. kind: one of the four, or "hair below a hat".

    Returns input_points float32 [T, 1, n, 2], in the same pixels; input_labels int64 [T, 1, n], 1
    inside the attribute and 0 outside; for glasses and beards input_boxes float32 [T, 1, 4], left,
    top, right, bottom.
    """
    prompt = _PROMPTS[kind]
    right = keypoints[:, _EYE_CORNERS[1]] - keypoints[:, _EYE_CORNERS[0]]
    span = np.linalg.norm(right, axis=-1, keepdims=True)
    up = keypoints[:, _FOREHEAD] - keypoints[:, _CHIN]
    up = up / np.linalg.norm(up, axis=-1, keepdims=True) * span
    points = [
        keypoints[:, keypoint] + x * right + y * up
        for keypoint, x, y in prompt.inside + prompt.outside
    ]
    labels = [1] * len(prompt.inside) + [0] * len(prompt.outside)
    asked = {
        "input_points": np.stack(points, 1)[:, None].astype(np.float32),
        "input_labels": np.tile(np.int64(labels), (len(keypoints), 1, 1)),
    }
    if prompt.box:
        corners, margin = keypoints[:, list(prompt.box)], span * np.array(prompt.margin)
        box = np.concatenate([corners.min(1) - margin, corners.max(1) + margin], axis=-1)
        asked["input_boxes"] = box[:, None].astype(np.float32)
    return asked
