import numpy as np
import pytest

from durian_jax.weights import storage
from input_pipeline.errors import InputError
from input_pipeline.inference import aligners
from input_pipeline.inference.inputs import Masking
from input_pipeline.inference.readers import READERS
from input_pipeline.masks import segmenters

EXAMPLE = storage._PACKAGED.parent / "examples" / "0000"


@pytest.fixture(scope="module")
def masking():
    return Masking(segmenters.load("heuristic"), aligners.geometric, 0.02)


def _read(system, landmarker, masking, attributes=(), **options):
    return READERS[system](
        EXAMPLE / "portrait.png", list(attributes), EXAMPLE / "driving.mp4", 64, landmarker,
        masking, framed=True, **options,
    )  # fmt: skip


def test_without_attributes_durian_gets_what_training_gives_it_of_clips_without(
    landmarker, masking
):
    scene = _read("durian", landmarker, masking)
    batch = scene.batch
    assert batch["attribute"].shape == (1, 64, 64, 3) and not batch["attribute"].any()
    assert batch["attribute_mask"].shape == (1, 64, 64) and not batch["attribute_mask"].any()
    np.testing.assert_array_equal(batch["attribute_keypoints"][0], batch["portrait_keypoints"])
    np.testing.assert_array_equal(batch["portrait"], scene.portrait.image)
    assert not batch["portrait_mask"].any() and len(scene.photos) == 1
    assert scene.notes == ["no attribute is given: the portrait is animated as it is"]


@pytest.mark.parametrize("system", ["animate_anyone", "x_portrait"])
def test_systems_without_attributes_refuse_them(landmarker, masking, system):
    given = [(EXAMPLE / "attribute_0.png", "hair", EXAMPLE / "attribute_0_mask.png")]
    with pytest.raises(InputError, match="takes no attributes"):
        _read(system, landmarker, masking, given)


def test_more_photos_are_refused_where_one_is_taken(landmarker, masking):
    with pytest.raises(InputError, match="takes one photo of the person"):
        _read("durian", landmarker, masking, references=[EXAMPLE / "portrait.png"])


@pytest.mark.parametrize("system", ["durian", "animate_anyone"])
def test_a_mask_for_no_attribute_is_refused(landmarker, masking, system):
    mask = EXAMPLE / "portrait_mask.png"
    with pytest.raises(InputError, match=r"^portrait_mask .*portrait_mask.png: hides what an attr"):
        _read(system, landmarker, masking, portrait_mask=mask)
