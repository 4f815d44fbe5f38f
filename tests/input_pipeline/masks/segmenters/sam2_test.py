import numpy as np
import pytest
from skimage import data

from input_pipeline.faces.geometry import Crop
from input_pipeline.faces.landmarker import FaceLandmarker
from input_pipeline.kinds import KINDS
from input_pipeline.masks import segmenters
from input_pipeline.masks.segmenters import Pictures, sam2

ALL = frozenset(KINDS)


@pytest.fixture(scope="module")
def portrait():
    """A woman with brown shoulder-length hair, twice, and the masks of the heuristic."""
    image = data.astronaut()
    keypoints = FaceLandmarker().track([image]).keypoints
    crop = Crop.around(keypoints, *image.shape[:2])
    points = crop.points(keypoints, 256)
    pictures = Pictures(np.stack([crop.apply(image, 256)] * 2), np.repeat(points, 2, axis=0))
    return pictures, segmenters.load("heuristic")(pictures, frozenset({"hair", "glasses", "beard"}))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Folder of a tiny model with random weights."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    backbone = {
        "model_type": "sam2_hiera_det_model", "hidden_size": 8, "image_size": [64, 64],
        "window_positional_embedding_background_size": [4, 4], "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [8, 16, 32, 64], "num_attention_heads_per_stage": [1, 2, 4, 8],
        "window_size_per_stage": [4, 4, 4, 2], "global_attention_blocks": [3],
    }  # fmt: skip
    vision = {
        "backbone_config": backbone, "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]], "fpn_hidden_size": 32,
    }  # fmt: skip
    config = transformers.Sam2Config(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 32, "image_size": 64, "mask_input_channels": 8},
        mask_decoder_config={
            "hidden_size": 32, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 32,
        },
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("sam2")
    transformers.Sam2Model(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["hair", "glasses", "beard"])
def test_points_lie_inside_and_outside_the_attribute(portrait, kind):
    pictures, masks = portrait
    asked = sam2.prompts(pictures.keypoints[..., :2], kind)
    for (x, y), inside in zip(
        np.round(asked["input_points"][0, 0]).astype(int), asked["input_labels"][0, 0]
    ):
        assert masks[kind][0, y, x] == bool(inside), (x, y)
    if "input_boxes" in asked:
        left, top, right, bottom = asked["input_boxes"][0, 0]
        rows, columns = np.nonzero(masks[kind][0])
        inside = (columns >= left) & (columns <= right) & (rows >= top) & (rows <= bottom)
        assert inside.mean() > 0.9


def test_what_a_hat_covers_is_not_taken_for_hair(portrait):
    points = portrait[0].keypoints[:1, :, :2]
    hair, hat = sam2.prompts(points, "hair below a hat"), sam2.prompts(points, "hat")
    outside = hair["input_points"][hair["input_labels"] == 0]
    inside = hat["input_points"][hat["input_labels"] == 1]
    assert {tuple(point) for point in inside} <= {tuple(point) for point in outside}


def test_points_follow_the_head(portrait):
    points = portrait[0].keypoints[:1, :, :2]
    turn = np.float32([[0, -1], [1, 0]])
    for kind in KINDS:
        upright, turned = sam2.prompts(points, kind), sam2.prompts(points @ turn.T, kind)
        np.testing.assert_allclose(
            upright["input_points"] @ turn.T, turned["input_points"], atol=1e-2
        )


def test_every_kind_gets_a_mask_of_the_pictures_size(portrait, model):
    sam = segmenters.load(f"sam2:{model}")
    masks = sam(portrait[0], ALL)
    assert set(masks) == ALL
    assert all(mask.shape == (2, 256, 256) and mask.dtype == bool for mask in masks.values())
    np.testing.assert_array_equal(masks["hair"][0], masks["hair"][1])
    one = Pictures(portrait[0].images[:1], portrait[0].keypoints[:1])
    for kind, mask in sam(one, ALL).items():
        assert (mask[0] == masks[kind][0]).mean() > 0.999


def test_the_mask_depends_on_what_is_asked_for(portrait, model):
    masks = segmenters.load(f"sam2:{model}")(portrait[0], ALL)
    assert len({mask.tobytes() for mask in masks.values()}) == len(KINDS)
