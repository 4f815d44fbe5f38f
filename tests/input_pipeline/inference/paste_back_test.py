import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from input_pipeline.errors import InputError
from input_pipeline.faces import geometry
from input_pipeline.inference.paste_back import Paste
from input_pipeline.inference.subject import read_subject
from input_pipeline.media import video
from input_pipeline.media.pictures import write_picture

CROPS = {
    "inside": geometry.Crop(250.3, 240.6, 300.4),
    "over a corner": geometry.Crop(90.2, 60.7, 260.0),
    "over all edges": geometry.Crop(256.0, 256.0, 700.0),
    "the whole": geometry.Crop.whole(512),
}


def weight(photo, crop, feather=0.08):
    """How much a frame counts at each pixel: white on black."""
    white = np.full((32, 32, 3), 255, np.uint8)
    return Paste(np.zeros_like(photo), crop, feather)(white)[..., 0] / 255


def psnr(a, b):
    return -10 * np.log10(np.mean((a / 255.0 - b / 255.0) ** 2))


def within(crop):
    y, x = np.indices((512, 512))
    return np.maximum(abs(x - crop.cx), abs(y - crop.cy)) <= crop.side / 2


@pytest.mark.parametrize(
    ("name", "size", "decibels"),
    # Measured inside the square, rounded down; 128 pixels cannot hold more of this photo.
    [
        ("inside", 1024, 36),
        ("inside", 300, 37),
        ("inside", 128, 28),
        ("over a corner", 1024, 41),
        ("over a corner", 128, 35),
        ("over all edges", 1024, 35),
        ("over all edges", 128, 23),
        ("the whole", 1024, 37),
        ("the whole", 128, 25),
    ],
)
def test_the_photos_own_crop_gives_the_photo_back(name, size, decibels):
    photo, crop = astronaut(), CROPS[name]
    pasted = Paste(photo, crop)(crop.apply(photo, size))
    assert pasted.shape == photo.shape and pasted.dtype == np.uint8
    square = within(crop)
    assert psnr(pasted[square], photo[square]) > decibels


def test_a_photo_as_large_as_the_frame_comes_back_bit_for_bit():
    photo, crop = astronaut(), CROPS["the whole"]
    np.testing.assert_array_equal(Paste(photo, crop)(crop.apply(photo, 512)), photo)


@pytest.mark.parametrize("name", ["inside", "over a corner"])
def test_outside_the_square_not_a_bit_changes(name):
    noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    crop = CROPS[name]
    pasted = Paste(noise, crop)(255 - crop.apply(noise, 256))
    outside = ~within(crop)
    assert outside.any()
    np.testing.assert_array_equal(pasted[outside], noise[outside])
    assert (pasted[~outside] != noise[~outside]).mean() > 0.7
    np.testing.assert_array_equal(
        noise, np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    )


def test_ramps_only_where_there_is_photo_beyond_the_edge():
    photo = astronaut()
    assert (weight(photo, CROPS["the whole"]) == 1).all()
    assert (weight(photo, CROPS["over all edges"]) == 1).all()
    corner = weight(photo, CROPS["over a corner"])
    assert (corner[:100, :100] == 1).all()
    assert corner[0, 219] < 0.01 and corner[190, 0] < 0.01
    inside = weight(photo, CROPS["inside"])
    assert (inside[150:330, 160:340] == 1).all() and inside[240, 101] < 0.01


def test_the_ramp_is_smooth_and_as_wide_as_asked():
    photo, crop = astronaut(), CROPS["inside"]
    for feather in (0.05, 0.2, 0.5):
        line = weight(photo, crop, feather)[240, :250]
        width = feather * crop.side
        start = crop.cx - crop.side / 2
        assert abs(np.interp(0.5, line[:245], np.arange(245)) - start - width / 2) < 1
        # 3t^2 - 2t^3 rises by 1.5 in the middle at most, and starts and ends level; 8-bit steps.
        assert np.diff(line).min() >= 0 and np.diff(line).max() <= 1.5 / width + 1 / 255
        assert abs(np.diff(line, 2)).max() <= 6 / width**2 + 2 / 255
    hard = weight(photo, crop, 0)
    assert set(np.unique(hard)) == {0.0, 1.0}


def test_no_edge_is_seen_where_a_frame_has_another_light():
    photo = cv2.GaussianBlur(astronaut(), (0, 0), 6)
    crop = CROPS["inside"]
    frame = np.clip(crop.apply(photo, 256).astype(int) + 30, 0, 255).astype(np.uint8)

    def steepest(picture):
        return abs(np.diff(picture.astype(int), axis=1)).max(-1)[:, 95:125]

    soft, hard = (Paste(photo, crop, feather)(frame) for feather in (0.08, 0))
    added = 1.5 * 30 / (0.08 * crop.side) + 2
    assert (steepest(soft) - steepest(photo)).max() <= added
    assert (steepest(hard) - steepest(photo)).max() > 20


def test_a_frame_lies_where_its_pixels_came_from():
    y, x = np.mgrid[:400, :640]
    photo = np.repeat((127 + 60 * np.sin(x / 9) + 60 * np.cos(y / 7))[..., None], 3, 2)
    photo = photo.round().astype(np.uint8)
    for crop in (geometry.Crop(310.3, 200.7, 256.0), geometry.Crop(600.0, 350.5, 333.3)):
        for size in (200, 512, 1000):
            pasted = Paste(photo, crop, 0.0)(crop.apply(photo, size))
            # Half a pixel aside would make 3 grey levels on average.
            assert abs(pasted.astype(int) - photo).mean() < 0.7


@pytest.mark.parametrize("shape", [(300, 500), (500, 300), (301, 257)])
def test_photos_of_any_shape_read_again_by_their_subject(tmp_path, landmarker, shape):
    height, width = shape
    photo = np.zeros((height, width, 3), np.uint8)
    face = cv2.resize(astronaut()[:256, 96:352], (256, 256))
    photo[20:276, width - 257 : width - 1] = face
    write_picture(tmp_path / "photo.png", photo)
    subject = read_subject(tmp_path / "photo.png", 512, landmarker)
    pasted = Paste.into(subject)(subject.image)
    assert pasted.shape == (height, width, 3) and psnr(pasted, photo) > 30


def test_a_clip_gives_its_first_frame(talking_head_clips, landmarker):
    path = talking_head_clips / "cool.mp4"
    subject = read_subject(path, 256, landmarker)
    pasted = Paste.into(subject)(subject.image)
    assert psnr(pasted, next(video.read_frames(path))) > 35


@pytest.mark.parametrize("feather", [-0.1, 0.51, float("nan")])
def test_a_feather_that_cannot_be_is_refused(feather):
    with pytest.raises(InputError, match=r"^feather .*: use 0 to 0\.5"):
        Paste(astronaut(), CROPS["inside"], feather)
