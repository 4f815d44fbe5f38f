import numpy as np
import pytest
from skimage import metrics as skimage_metrics

from durian_jax.metrics import pixels


@pytest.fixture(scope="module")
def pair():
    rng = np.random.default_rng(0)
    truth = rng.random((96, 80, 3))
    return (truth + rng.normal(0, 0.1, truth.shape)).clip(0, 1), truth


def test_psnr_and_l1_agree_with_scikit_image(pair):
    expected = skimage_metrics.peak_signal_noise_ratio(pair[1], pair[0], data_range=1.0)
    assert pixels.psnr(*pair) == pytest.approx(expected, abs=1e-9)
    assert pixels.l1(*pair) == pytest.approx(np.abs(pair[0] - pair[1]).mean(), abs=1e-12)


@pytest.mark.parametrize("dtype,tolerance", [(np.float64, 1e-10), (np.float32, 1e-6)])
def test_ssim_agrees_with_scikit_image(pair, dtype, tolerance):
    mean, full = skimage_metrics.structural_similarity(
        *pair, channel_axis=-1, data_range=1.0, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, full=True,
    )  # fmt: skip
    found = pixels.ssim_map(*(picture.astype(dtype) for picture in pair))
    assert found.mean() == pytest.approx(mean, abs=tolerance)
    np.testing.assert_allclose(found, full.mean(-1)[pixels.INNER], atol=tolerance)


def test_a_region_is_measured_as_if_it_were_alone(pair):
    region = np.zeros((96, 80), bool)
    region[10:40, 20:70] = True
    cut = [picture[10:40, 20:70] for picture in pair]
    assert pixels.l1(*pair, region) == pytest.approx(pixels.l1(*cut), abs=1e-12)
    assert pixels.psnr(*pair, region) == pytest.approx(pixels.psnr(*cut), abs=1e-9)
    assert np.isnan(pixels.l1(*pair, np.zeros((96, 80), bool)))


def test_uint8_sized_errors_do_not_wrap():
    white, black = np.ones((16, 16, 3)), np.zeros((16, 16, 3))
    assert pixels.psnr(white, black) == 0 and pixels.l1(black, white) == 1
    assert pixels.psnr(white, white) == np.inf


def test_one_perfect_frame_does_not_make_a_perfect_video():
    values = np.array([[np.inf, 20.0, 30.0], [np.inf, np.inf, np.inf], [80.0, 20.0, 20.0]])
    np.testing.assert_allclose(pixels.mean_psnr(values, 60.0), [110 / 3, np.inf, 100 / 3])


def _disc(offset=0, colour=(0.9, 0.1, 0.1)):
    """A striped picture with a disc [4, 64, 64, 3], and the disc's mask."""
    y, x = np.mgrid[:64, :64]
    masks = np.stack([np.hypot(x - 30 - f - offset, y - 32) < 12 for f in range(4)])
    ground = np.float32([0.2, 0.5, 0.3]) + 0.1 * np.sin(x / 3)[..., None]
    return np.where(masks[..., None], np.float32(colour), ground).astype(np.float32), masks


def test_colour_overlap_follows_place_and_colour_of_the_attribute():
    truth, masks = _disc()
    colours = pixels.AttributeColours(truth, masks, band=0.15, bins=16)
    assert colours.overlap(truth) == 1
    moved = [colours.overlap(_disc(offset)[0]) for offset in (2, 4, 8)]
    # Two discs of radius 12, 2 pixels apart, share 0.81 of their union.
    assert moved[0] == pytest.approx(0.81, abs=0.04) and moved == sorted(moved, reverse=True)
    assert colours.overlap(_disc(colour=(0.2, 0.5, 0.3))[0]) == 0
    # Colours of neither are no attribute, however few pixels it has.
    assert colours.overlap(np.full_like(truth, 0.99)) == 0
    assert colours.overlap(_disc(colour=(0.87, 0.12, 0.1))[0]) > 0.95


def test_flicker_sees_change_but_not_motion():
    rng = np.random.default_rng(0)
    import cv2

    still = cv2.GaussianBlur(rng.random((80, 80, 3)), (0, 0), 2).astype(np.float32)
    still = (still - still.min()) / np.ptp(still)
    moving = np.stack([np.roll(still, 2 * i, 1) for i in range(5)])[:, 8:-8, 12:-12]
    flashing = moving * np.float32([1, 0.9, 1, 0.9, 1])[:, None, None, None]
    assert pixels.flicker(np.repeat(still[None], 4, 0)) == 0
    unexplained = np.abs(np.diff(moving, axis=0)).mean()
    assert pixels.flicker(moving) < 0.1 * unexplained
    assert pixels.flicker(flashing) > 3 * pixels.flicker(moving)
    assert np.isnan(pixels.flicker(moving[:1]))


def test_flicker_does_not_depend_on_the_number_of_threads():
    import cv2

    frames = np.random.default_rng(1).random((3, 64, 64, 3)).astype(np.float32)
    threads, values = cv2.getNumThreads(), []
    for count in (1, 2, 4):
        cv2.setNumThreads(count)
        values.append(pixels.flicker(frames))
        assert cv2.getNumThreads() == count
    cv2.setNumThreads(threads)
    assert len(set(values)) == 1
