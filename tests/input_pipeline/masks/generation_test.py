import types

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

from input_pipeline.errors import InputError
from input_pipeline.masks import generation, segmenters
from input_pipeline.masks.generation import Generator

SIZE = 256


@pytest.fixture(scope="module")
def portrait():
    return cv2.resize(astronaut()[:320, 64:384], (SIZE, SIZE), interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="module")
def keypoints(portrait, landmarker):
    return landmarker.track([portrait]).keypoints[0]


class Painter:
    """Stands in for the diffusers pipeline: answers with the given pictures."""

    def __init__(self, pictures):
        self.pictures, self.calls = pictures, []

    def __call__(self, prompt, **arguments):
        self.calls.append({"prompt": prompt, **arguments})
        return types.SimpleNamespace(images=[Image.fromarray(image) for image in self.pictures])


class Painted(segmenters.Segmenter):
    """Takes a rectangle of the picture, whatever it shows."""

    name, version, kinds = "painted", "1", frozenset(["hair", "hat"])

    def __init__(self, rows):
        self.rows = rows

    def _masks(self, pictures, present):
        mask = np.zeros(pictures.images.shape[:3], bool)
        mask[:, : self.rows] = True
        return dict.fromkeys(present, mask)


def _shifted(image, x):
    matrix = np.array([[1, 0, x], [0, 1, 0]], np.float64)
    return cv2.warpAffine(image, matrix, image.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)


@pytest.fixture
def noise():
    """The pipeline's noise needs PyTorch."""
    return pytest.importorskip("torch")


def test_pictures_in_the_same_pose_are_kept_and_others_counted(noise, portrait, keypoints):
    face = np.ptp(keypoints[:, :2], axis=0).max()
    shifts = [0, 0.03 * face, 0.08 * face, -0.2 * face]
    blank = np.full_like(portrait, 90)
    painter = Painter([*(_shifted(portrait, x) for x in shifts), blank])
    generator = Generator(painter, "painter", SIZE)
    masks = generator(keypoints, SIZE, "hair", Painted(40), count=5)
    assert generator.outcomes == {"kept": 2, "another pose": 2, "no face": 1}
    assert len(masks) == 2
    for mask in masks:
        assert mask.shape == (SIZE, SIZE) and mask.dtype == bool
        assert mask[:40].all() and not mask[40:].any()


@pytest.mark.parametrize(("rows", "outcome"), [(1, "nothing there"), (200, "too large")])
def test_masks_of_impossible_size_are_dropped(noise, portrait, keypoints, rows, outcome):
    generator = Generator(Painter([portrait]), "painter", SIZE)
    assert generator(keypoints, SIZE, "hat", Painted(rows), count=1) == []
    assert generator.outcomes == {outcome: 1}


def test_masks_of_a_larger_picture_come_in_the_frames_size(noise, portrait, keypoints):
    large = cv2.resize(portrait, (2 * SIZE, 2 * SIZE))
    (mask,) = Generator(Painter([large]), "painter", SIZE)(
        keypoints, SIZE, "hair", Painted(40), count=1
    )
    assert mask.shape == (SIZE, SIZE)


def test_a_kind_that_the_segmenter_cannot_find_is_refused_before_painting(portrait, keypoints):
    painter = Painter([portrait])
    with pytest.raises(InputError, match="cannot find glasses"):
        Generator(painter, "painter", SIZE)(keypoints, SIZE, "glasses", Painted(40))
    assert not painter.calls


def test_the_pipeline_is_told_pose_prompts_and_seeds(noise, portrait, keypoints):
    painter = Painter([portrait] * 2)
    generator = Generator(painter, "painter", SIZE, steps=7, guidance=3.0, strength=0.5)
    for seed in (1, 1, 2):
        generator(keypoints, SIZE, "hair", Painted(40), count=2, seed=seed)
    first, again, other = painter.calls
    assert first["num_inference_steps"] == 7 and first["controlnet_conditioning_scale"] == 0.5
    assert first["prompt"] == again["prompt"] != other["prompt"]
    seeds = [[g.initial_seed() for g in call["generator"]] for call in painter.calls]
    assert seeds[0] == seeds[1] and not set(seeds[0]) & set(seeds[2])
    drawn = np.asarray(first["image"])
    assert np.array_equal(drawn, generation.condition(keypoints, SIZE, SIZE))


def test_the_condition_draws_the_face_and_nothing_else(keypoints):
    drawn = generation.condition(keypoints, SIZE, 1024)
    assert drawn.shape == (1024, 1024, 3)
    y, x = np.nonzero(drawn.any(-1))
    low, high = 4 * keypoints[:, :2].min(0), 4 * keypoints[:, :2].max(0)
    np.testing.assert_allclose([x.min(), y.min()], low, atol=12)
    np.testing.assert_allclose([x.max(), y.max()], high, atol=12)


@pytest.mark.parametrize("kind", ["hair", "hat", "glasses", "beard"])
def test_prompts_use_every_variant_before_any_repeats(kind):
    variants = generation.ATTRIBUTES[kind]
    drawn = generation.prompts(kind, 2 * len(variants), seed=3)
    for half in (drawn[: len(variants)], drawn[len(variants) :]):
        assert all(any(f"with {variant}," in prompt for prompt in half) for variant in variants)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("generate", "write generate:base=PATH"),
        ("generate:base=a", "write generate:base=PATH"),
        ("generate:base=a,controlnet=b,steps=many", "cannot read 'steps=many'"),
        ("generate:base=a,controlnet=b,colour=red", "settings are base, controlnet, steps"),
    ],
)
def test_badly_written_specs_are_refused(spec, message):
    with pytest.raises(InputError, match=message):
        generation.load(spec)


def test_without_diffusers_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "diffusers", None)
    with pytest.raises(InputError, match=r"pip install 'durian_jax\[torch\]'"):
        generation.load("generate:base=a,controlnet=b")


def test_missing_weights_are_named(tmp_path):
    pytest.importorskip("diffusers")
    with pytest.raises(InputError, match="base must be SDXL"):
        generation.load(f"generate:base={tmp_path},controlnet={tmp_path}")


@pytest.fixture(scope="module")
def tiny_weights(tmp_path_factory):
    """Spec of an SDXL pipeline and a ControlNet of a few thousand random numbers."""
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    unet = dict(
        block_out_channels=(32, 64), layers_per_block=1, in_channels=4, attention_head_dim=(2, 4),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=8, cross_attention_dim=64,
        transformer_layers_per_block=(1, 1), projection_class_embeddings_input_dim=80,
    )  # fmt: skip
    text = transformers.CLIPTextConfig(
        hidden_size=32, intermediate_size=37, num_attention_heads=4, num_hidden_layers=2,
        vocab_size=100, projection_dim=32, max_position_embeddings=160,
        bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    letters = "abcdefghijklmnopqrstuvwxyz,-"
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    tokenizer = transformers.CLIPTokenizer(
        vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=160
    )
    control = diffusers.ControlNetModel(conditioning_embedding_out_channels=(16, 32), **unet)
    for parameter in control.parameters():  # untrained, its outputs are zero
        torch.nn.init.normal_(parameter, std=0.1)
    pipeline = diffusers.StableDiffusionXLControlNetPipeline(
        unet=diffusers.UNet2DConditionModel(
            sample_size=32, out_channels=4, up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            **unet,
        ),
        vae=diffusers.AutoencoderKL(
            block_out_channels=(32, 64), latent_channels=4, sample_size=64,
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        ),
        scheduler=diffusers.EulerDiscreteScheduler(),
        text_encoder=transformers.CLIPTextModel(text),
        text_encoder_2=transformers.CLIPTextModelWithProjection(text),
        tokenizer=tokenizer, tokenizer_2=tokenizer, controlnet=control,
        add_watermarker=False,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("tiny")
    pipeline.save_pretrained(folder / "base")
    control.save_pretrained(folder / "control")
    return f"generate:base={folder}/base,controlnet={folder}/control,steps=2"


def test_the_real_pipeline_with_random_weights_paints_no_faces(tiny_weights, keypoints):
    generator = generation.load(tiny_weights)
    assert str(generator).startswith("generate ")
    assert generator(keypoints, SIZE, "hair", Painted(40), count=3) == []
    assert generator.outcomes == {"no face": 3}


def test_the_real_pipeline_follows_seed_and_condition(tiny_weights, keypoints):
    generator = generation.load(tiny_weights)
    first, again, other_seed, other_pose = (
        generator._paint(points, SIZE, "hat", 2, seed)[1].astype(int)
        for points, seed in [(keypoints, 1), (keypoints, 1), (keypoints, 2), (keypoints + 40, 1)]
    )
    assert first.shape == (SIZE, SIZE, 3) and np.array_equal(first, again)
    assert np.abs(first - other_seed).mean() > 1
    assert (first != other_pose).any()
