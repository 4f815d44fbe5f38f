import json

import numpy as np
import pytest

from input_pipeline.errors import InputError
from input_pipeline.masks import segmenters
from input_pipeline.masks.segmenters import Pictures, hub
from input_pipeline.masks.segmenters.classes import CLASS_MAPS

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

FACE = CLASS_MAPS["celebamask"].labels


def save_segformer(folder, labels=FACE, **options):
    torch.manual_seed(0)
    config = transformers.SegformerConfig(
        depths=[1] * 4, hidden_sizes=[8, 8, 16, 16], num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=16, id2label=dict(enumerate(labels)), **options,
    )  # fmt: skip
    transformers.SegformerForSemanticSegmentation(config).save_pretrained(folder)
    return folder


def save_sapiens2(folder):
    torch.manual_seed(0)
    config = transformers.Sapiens2Config(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_attention_heads=1, num_first_full_attention_layers=1,
        num_last_full_attention_layers=1, num_register_tokens=1, image_size=[64, 48],
        num_labels=29, head_config={"upsample_out_channels": [8, 8], "conv_out_channels": [8]},
    )  # fmt: skip
    transformers.Sapiens2ForSemanticSegmentation(config).save_pretrained(folder)
    _save_preprocessor(folder, size={"height": 128, "width": 96})
    return folder


def _save_preprocessor(folder, **facts):
    (folder / "preprocessor_config.json").write_text(json.dumps(facts))


@pytest.fixture(scope="module")
def segformer(tmp_path_factory):
    return save_segformer(tmp_path_factory.mktemp("hub") / "segformer")


def noise(count, size=96):
    images = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)
    return Pictures(images, np.zeros((count, 478, 3), np.float32))


def expected(folder, pictures, size, indices):
    """What the library itself finds: logits, resized, then the best class."""
    model = transformers.AutoModelForSemanticSegmentation.from_pretrained(folder).eval()
    pixels = torch.from_numpy(pictures.images).permute(0, 3, 1, 2).float() / 255
    pixels = torch.nn.functional.interpolate(pixels, size, mode="bilinear", align_corners=False)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        logits = model((pixels - mean[:, None, None]) / deviation[:, None, None]).logits
    logits = torch.nn.functional.interpolate(logits, pictures.images.shape[1:3], mode="bilinear")
    return np.isin(logits.argmax(1).numpy(), indices)


def test_the_masks_are_the_classes_that_the_library_finds(segformer):
    pictures = noise(2)
    masks = segmenters.load(f"segformer:{segformer}")(pictures, frozenset({"hair", "hat"}))
    names = {"hair": FACE.index("hair"), "hat": FACE.index("hat")}
    assert set(masks) == set(names)
    agreement = [
        (masks[kind] == expected(segformer, pictures, (512, 512), [index])).mean()
        for kind, index in names.items()
    ]
    assert min(agreement) > 0.98
    assert all(mask.shape == (2, 96, 96) and mask.dtype == bool for mask in masks.values())


def test_the_class_is_known_by_its_name_and_not_its_place(tmp_path):
    pictures = noise(1)
    first = segmenters.load(f"segformer:{save_segformer(tmp_path / 'a')}")
    swapped = ["hat" if name == "hair" else "hair" if name == "hat" else name for name in FACE]
    second = segmenters.load(f"segformer:{save_segformer(tmp_path / 'b', swapped)}")
    both = frozenset({"hair", "hat"})
    one, other = first(pictures, both), second(pictures, both)
    np.testing.assert_array_equal(one["hair"], other["hat"])
    np.testing.assert_array_equal(one["hat"], other["hair"])


def test_a_batch_is_as_good_as_one_by_one(segformer):
    segment, pictures = segmenters.load(f"segformer:{segformer}"), noise(9)
    hair = frozenset({"hair"})
    together = segment(pictures, hair)["hair"]
    for i in range(9):
        one = Pictures(pictures.images[[i]], pictures.keypoints[[i]])
        assert (segment(one, hair)["hair"][0] == together[i]).mean() > 0.999


def test_size_and_normalisation_come_from_the_models_folder(tmp_path):
    pictures, hair = noise(1), frozenset({"hair"})
    folder = save_segformer(tmp_path / "model")
    _save_preprocessor(folder, size=128, do_normalize=True)
    mask = segmenters.load(f"segformer:{folder}")(pictures, hair)["hair"]
    wanted = expected(folder, pictures, (128, 128), [FACE.index("hair")])
    assert (mask == wanted).mean() > 0.98


@pytest.mark.parametrize(("normalised", "mean"), [(True, (0.4,) * 3), (False, (0.0,) * 3)])
def test_a_model_that_wants_no_normalisation_gets_none(normalised, mean):
    segment = object.__new__(hub.ClassSegmenter)  # only what the model's folder says
    segment._facts = {"do_normalize": normalised, "image_mean": [0.4] * 3, "image_std": [0.3] * 3}
    found = segment._preprocessing((8, 6))
    assert found.mean == mean and found.size == (8, 6)


def test_sapiens2_finds_hair_and_glasses_by_its_own_list_of_classes(tmp_path):
    folder, pictures = save_sapiens2(tmp_path / "sapiens2"), noise(2)
    sapiens = segmenters.load(f"sapiens2:{folder}")
    assert sapiens.kinds == {"hair", "glasses"}
    masks = sapiens(pictures, sapiens.kinds)
    for kind, index in (("glasses", 2), ("hair", 4)):
        assert (masks[kind] == expected(folder, pictures, (128, 96), [index])).mean() > 0.98


def test_other_weights_are_another_version(tmp_path, segformer):
    torch.manual_seed(1)
    model = transformers.SegformerForSemanticSegmentation.from_pretrained(segformer)
    model.decode_head.classifier.bias.data += 1
    model.save_pretrained(tmp_path / "other")
    same = save_segformer(tmp_path / "same")
    versions = [
        segmenters.load(f"segformer:{x}").version for x in (segformer, same, tmp_path / "other")
    ]
    assert versions[0] == versions[1] != versions[2]


def test_a_model_of_another_kind_names_what_was_expected(tmp_path, segformer):
    with pytest.raises(InputError, match="a segformer model: expected sapiens2"):
        segmenters.load(f"sapiens2:{segformer}")
    config = transformers.SegformerConfig(
        depths=[1] * 4, hidden_sizes=[8, 8, 16, 16], num_attention_heads=[1, 1, 2, 2]
    )
    transformers.SegformerForImageClassification(config).save_pretrained(tmp_path / "classifier")
    with pytest.raises(InputError, match=r"weights are missing, the first is decode_head"):
        segmenters.load(f"segformer:{tmp_path / 'classifier'}")
    rooms = save_segformer(tmp_path / "rooms", ["wall", "floor", "bed"])
    with pytest.raises(InputError, match=r"none of its 3 classes \(wall, floor, bed ...\) is hair"):
        segmenters.load(f"segformer:{rooms}")
    nameless = save_segformer(tmp_path / "nameless", [f"LABEL_{i}" for i in range(19)])
    with pytest.raises(InputError, match="19 classes may be bisenet, celebamask"):
        segmenters.load(f"segformer:{nameless}")
    assert segmenters.load(f"segformer:{nameless},classes=bisenet").kinds == {
        "hair",
        "glasses",
        "hat",
    }
    with pytest.raises(InputError, match="segformer:/nowhere/at/all: "):
        segmenters.load("segformer:/nowhere/at/all")
