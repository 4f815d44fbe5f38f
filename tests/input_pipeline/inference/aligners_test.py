import numpy as np
import pytest
from skimage.data import astronaut

from input_pipeline.errors import InputError
from input_pipeline.inference import aligners
from input_pipeline.inference.subject import read_subject
from input_pipeline.masks import alignment
from input_pipeline.media.pictures import write_picture


@pytest.fixture
def people(portrait_picture, landmarker, tmp_path):
    """An attribute source, and a portrait: the same face elsewhere in a larger photo."""
    photo = np.zeros((640, 700, 3), np.uint8)
    photo[128:, 100:612] = astronaut()
    write_picture(tmp_path / "portrait.png", photo)
    portrait = read_subject(tmp_path / "portrait.png", 96, landmarker)
    return read_subject(portrait_picture, 96, landmarker), portrait


def test_geometric_is_the_alignment_in_three_dimensions(people):
    attribute_source, portrait = people
    mask = np.zeros((96, 96), bool)
    mask[60:80, 30:60] = True
    aligned = aligners.load("geometric")(attribute_source, "beard", mask, portrait)
    expected = alignment.align(mask, attribute_source.keypoints, portrait.keypoints, "beard", 96)
    np.testing.assert_array_equal(aligned, expected)


def test_masks_from_files_are_cropped_like_the_portrait(people, tmp_path):
    attribute_source, portrait = people
    painted = np.zeros((640, 700), np.uint8)
    painted[200:300, 300:400] = 255
    write_picture(tmp_path / "hat.png", painted)
    aligned = aligners.load(f"files:{tmp_path}")(
        attribute_source, "hat", np.zeros((96, 96), bool), portrait
    )
    cropped = portrait.crop.apply(np.repeat(painted[..., None], 3, 2), 96)[..., 0]
    np.testing.assert_array_equal(aligned, cropped > 0)


def test_a_file_that_is_missing_or_does_not_fit_is_named(people, tmp_path):
    attribute_source, portrait = people
    align = aligners.load(f"files:{tmp_path}")
    with pytest.raises(InputError, match=r"glasses\.png: no such file"):
        align(attribute_source, "glasses", np.zeros((96, 96), bool), portrait)
    write_picture(tmp_path / "glasses.png", np.zeros((96, 96), np.uint8))
    with pytest.raises(InputError, match=r"glasses\.png: 96x96 pixels, its photo has 700x640"):
        align(attribute_source, "glasses", np.zeros((96, 96), bool), portrait)


@pytest.mark.parametrize("spec", ["warp", "files", "files:", "geometric:x"])
def test_an_unknown_aligner_is_refused(spec):
    with pytest.raises(InputError, match="use geometric, self or files:FOLDER"):
        aligners.load(spec)
