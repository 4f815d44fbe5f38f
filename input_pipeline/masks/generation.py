"""Masks of attributes that nobody in the clip wears, from generated pictures.

The paper's mask expansion: SDXL with a ControlNet paints another person in the pose of a frame,
with an attribute that a prompt names; the generated picture is segmented, and the mask added to
that of the frame. Prompts, counts and limits are ours. diffusers and PyTorch (`[torch]`); the
weights are yours, by folder or hub id.
"""

import collections
from typing import Any

import numpy as np

from input_pipeline.errors import InputError
from input_pipeline.faces import drawing
from input_pipeline.faces.landmarker import FaceLandmarker
from input_pipeline.kinds import MAX_ATTRIBUTE_AREA, MIN_ATTRIBUTE_AREA
from input_pipeline.masks import segmenters
from input_pipeline.media.pictures import resize

PEOPLE = ("woman", "man", "young woman", "young man", "older woman", "older man")
# A bald head has no mask to add.
ATTRIBUTES = {
    "hair": (
        ("long straight hair", "long wavy hair", "voluminous curly hair", "an afro", "a bob cut")
        + ("a ponytail", "a hair bun", "short hair", "shoulder-length hair with a fringe")
    ),
    "hat": ("a beanie", "a baseball cap", "a fedora", "a wide-brimmed hat", "a hood over the head"),
    "glasses": (
        ("thin round glasses", "thick square glasses", "aviator sunglasses", "oversized glasses")
    ),
    "beard": ("stubble", "a goatee", "a full beard", "a long beard", "a moustache"),
}
PROMPT = (
    "portrait photo of a {person} with {attribute}, head and shoulders, {attribute} fully visible, "
    "plain background, natural light, sharp focus"
)
NEGATIVE_PROMPT = (
    "several people, hands, cropped head, drawing, painting, cartoon, text, watermark, blurry, "
    "deformed face"
)
# Mean distance from the frame's keypoints, as a share of the face's larger side.
MAX_DISAGREEMENT = 0.05
_SETTINGS = {"base": str, "controlnet": str, "steps": int, "guidance": float, "strength": float}


class Generator:
    """Paints people with an attribute and finds where it is.

    Attributes:
      outcomes: how many pictures were "kept" so far, and how many dropped, by reason.
    """

    def __init__(
        self,
        pipeline: Any,
        name: str,
        side: int,
        *,
        steps: int = 30,
        guidance: float = 5.0,
        strength: float = 0.8,
    ):
        """
        Args:
          pipeline: diffusers' StableDiffusionXLControlNetPipeline, or what is called like it. Its
            ControlNet should know face contours, as drawn by `condition`.
          name: what to call it in the record.
          side: of the pictures it paints, in pixels.
          steps, guidance: of the sampler.
          strength: weight of the ControlNet.
        """
        self._pipeline, self._name, self._side = pipeline, name, side
        self._settings = {
            "num_inference_steps": steps,
            "guidance_scale": guidance,
            "controlnet_conditioning_scale": strength,
        }
        self._landmarker = FaceLandmarker()
        self.outcomes = collections.Counter()

    def __str__(self):
        return f"generate {self._name}"

    def __call__(
        self,
        keypoints: np.ndarray,
        size: int,
        kind: str,
        segmenter: segmenters.Segmenter,
        *,
        count: int = 4,
        seed: int = 0,
    ) -> list[np.ndarray]:
        """Masks of `count` people in one pose, less those that did not come out.

        Dropped are pictures without a face, those whose keypoints lie elsewhere by more than
        MAX_DISAGREEMENT, and masks below `MIN_ATTRIBUTE_AREA` or above
        `MAX_ATTRIBUTE_AREA`.

        Args:
          keypoints: float32 [478, 3], pixels of the frame.
          size: side of the frame, S.
          kind: the attribute.
          segmenter: finds it in the generated pictures.
          seed: decides prompts and noise.

        Returns:
          bool [S, S] each, in the place of the frame.

        Raises:
          InputError: the segmenter cannot find that kind.
        """
        segmenter.require(frozenset([kind]))
        masks = []
        for image in self._paint(keypoints, size, kind, count, seed):
            outcome, mask = self._segment(image, keypoints, kind, segmenter)
            self.outcomes[outcome] += 1
            if outcome == "kept":
                masks.append(mask)
        return masks

    def _paint(self, keypoints, size, kind, count, seed) -> list[np.ndarray]:
        """uint8 [S, S, 3] each."""
        import torch
        from PIL import Image

        control = Image.fromarray(condition(keypoints, size, self._side))
        # On the processor, so that any device paints the same pictures.
        noise = [torch.Generator().manual_seed(seed * count + i) for i in range(count)]
        result = self._pipeline(
            prompts(kind, count, seed),
            negative_prompt=[NEGATIVE_PROMPT] * count,
            image=control,
            generator=noise,
            **self._settings,
        )
        return [resize(np.asarray(image), size) for image in result.images]

    def _segment(self, image, keypoints, kind, segmenter) -> tuple[str, np.ndarray | None]:
        """What became of a picture, and the mask if it is kept."""
        track = self._landmarker.track([image])
        if not track.found[0]:
            return "no face", None
        found = track.keypoints
        distance = np.linalg.norm(found[0, :, :2] - keypoints[:, :2], axis=-1).mean()
        if distance > MAX_DISAGREEMENT * np.ptp(keypoints[:, :2], axis=0).max():
            return "another pose", None
        pictures = segmenters.Pictures(image[None], found)
        mask = segmenter(pictures, frozenset([kind]))[kind][0]
        if mask.mean() < MIN_ATTRIBUTE_AREA:
            return "nothing there", None
        if mask.mean() > MAX_ATTRIBUTE_AREA:
            return "too large", None
        return "kept", mask


def prompts(kind: str, count: int, seed: int) -> list[str]:
    """`count` descriptions of somebody with the attribute, all its variants before any repeats."""
    rng = np.random.default_rng(seed)
    variants = ATTRIBUTES[kind]
    order = np.concatenate([rng.permutation(len(variants)) for _ in range(0, count, len(variants))])
    return [PROMPT.format(person=rng.choice(PEOPLE), attribute=variants[i]) for i in order[:count]]


def condition(keypoints: np.ndarray, size: int, side: int) -> np.ndarray:
    """uint8 [side, side, 3]: contours in colours on black, of keypoints [478, 3] at `size` px."""
    points = (keypoints[:, :2] + 0.5) * (side / size) - 0.5
    return drawing.draw_keypoints(np.zeros((side, side, 3), np.uint8), points, max(1, side // 512))


def load(spec: str) -> Generator:
    """The generator of a spec as on the command line.

    generate:base=PATH_OR_HUB_ID,controlnet=PATH_OR_HUB_ID[,steps=30,guidance=5,strength=0.8]

    It runs on the first CUDA device in half precision, else on the processor.

    Raises:
      InputError: a badly written spec, diffusers is not installed, or there are no such weights.
    """
    settings = parse(spec)
    try:
        import torch
        from diffusers import ControlNetModel, StableDiffusionXLControlNetPipeline
    except ImportError as error:
        raise InputError(
            f"{spec}: needs PyTorch and diffusers: pip install 'durian_jax[torch]'",
            option="expand",
        ) from error
    device, dtype = "cpu", torch.float32
    if torch.cuda.is_available():
        device, dtype = "cuda", torch.float16
    base, controlnet = settings.pop("base"), settings.pop("controlnet")
    try:
        control = ControlNetModel.from_pretrained(controlnet, dtype=dtype)
        pipeline = StableDiffusionXLControlNetPipeline.from_pretrained(
            base, controlnet=control, dtype=dtype, add_watermarker=False
        )
    except (OSError, ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"{spec}: {reason}: base must be SDXL in diffusers' layout, controlnet a "
            "ControlNet for it, each a folder or hub id",
            option="expand",
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    side = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    return Generator(pipeline.to(device), f"{base} {controlnet}", side, **settings)


def parse(spec: str) -> dict:
    """The settings in a spec, see `load`. Raises InputError for a badly written one."""
    name, _, text = spec.partition(":")
    settings = {}
    for setting in filter(None, text.split(",")):
        key, _, value = setting.partition("=")
        try:
            settings[key] = _SETTINGS[key](value)
        except (KeyError, ValueError):
            raise InputError(
                f"{spec}: cannot read {setting!r}: settings are "
                f"{', '.join(_SETTINGS)}, each as NAME=VALUE",
                option="expand",
            ) from None
    if name != "generate" or not settings.get("base") or not settings.get("controlnet"):
        raise InputError(f"{spec}: write generate:base=PATH,controlnet=PATH", option="expand")
    return settings
