"""Metrics of pixels: L1, PSNR, SSIM, colour overlap of an attribute, flicker.

Pictures are float RGB in [0, 1] and all arithmetic is float64: differences of uint8 would wrap.
"""

import itertools

import cv2
import numpy as np

from input_pipeline.masks.regions import grow

_SSIM_WINDOW, _SSIM_SIGMA = 11, 1.5
_BORDER = slice(_SSIM_WINDOW // 2, -(_SSIM_WINDOW // 2))
INNER = (_BORDER, _BORDER)  # the part of a picture that `ssim_map` covers
_C1, _C2 = 0.01**2, 0.03**2


def l1(prediction: np.ndarray, truth: np.ndarray, region: np.ndarray | None = None) -> float:
    """Mean absolute difference over the pixels of a region and the channels.

    Args:
      prediction, truth: [H, W, 3] in [0, 1]. region: bool [H, W], default all.

    Returns:
      0 .. 1, NaN if the region is empty.
    """
    return mean_over(np.abs(prediction.astype(np.float64) - truth), region)


def psnr(prediction: np.ndarray, truth: np.ndarray, region: np.ndarray | None = None) -> float:
    """10 log10(1 / mean squared error) in dB of one frame, as scikit-image with data range 1.

    Arguments as in `l1`. inf if the region is without error, NaN if it is empty.
    """
    error = mean_over(np.square(prediction.astype(np.float64) - truth), region)
    with np.errstate(divide="ignore"):
        return float(-10 * np.log10(error))


def ssim_map(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Structural similarity of each pixel (Wang et al., 2004), mean over the channels.

    The variant of scikit-image's `structural_similarity(..., gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, data_range=1)`: an 11 x 11 Gaussian window, K1 = 0.01, K2 = 0.03;
    the 5 pixels along the border, where the window leaves the picture, are left out.

    Args:
      prediction, truth: [H, W, 3] in [0, 1].

    Returns:
      float64 [H - 10, W - 10] in [-1, 1], the part `INNER` of the picture.
    """
    x, y = prediction.astype(np.float64), truth.astype(np.float64)
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x = _blur(x * x) - mean_x**2
    variance_y = _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    structure = (2 * covariance + _C2) / (variance_x + variance_y + _C2)
    return (luminance * structure).mean(-1)[INNER]


def mean_psnr(values: np.ndarray, ceiling: float) -> np.ndarray:
    """Mean over the last axis of PSNRs, each counted as at most `ceiling` dB; inf if all are inf.

    Otherwise one perfect frame, as the first of a still portrait, would make any video perfect.
    """
    capped = np.minimum(values, ceiling).mean(-1)
    return np.where(np.isinf(values).all(-1), np.inf, capped)


class AttributeColours:
    """Tells the pixels of an attribute from those round it by their colours in the truth.

    Two RGB histograms, inside the true masks and in a band round them, vote for each pixel of the
    band and the mask: the attribute's must make its colour twice as likely, so that colours that
    neither has seen are no attribute. The log odds are blurred lightly. Prediction and truth are
    classified alike: the truth agrees with itself, however alike the colours are.

    Args:
      truth: [F, S, S, 3] in [0, 1]. masks: bool [F, S, S], not all empty.
      band: width of the band as a share of S. bins: of the histograms, per channel.
    """

    _SMOOTHING = 1.0  # bins
    _FLOOR = 0.01  # of an even spread over all colours
    _BLUR = 1.0  # pixels
    _ODDS = 2.0

    def __init__(self, truth: np.ndarray, masks: np.ndarray, band: float, bins: int):
        self._bins = bins
        self._near = np.stack([grow(mask, band * mask.shape[1]) for mask in masks])
        index = self._index(truth)
        inside, outside = (self._density(index[region]) for region in (masks, self._near & ~masks))
        self._log_odds = np.log(inside) - np.log(outside)
        self._truth = self._classify(truth)

    def overlap(self, prediction: np.ndarray) -> float:
        """Intersection over union of the attribute's pixels in prediction and truth, all frames
        together; NaN if neither has any."""
        found = self._classify(prediction)
        union = (found | self._truth).sum()
        return float((found & self._truth).sum() / union) if union else float("nan")

    def _index(self, frames: np.ndarray) -> np.ndarray:
        levels = np.minimum((frames * self._bins).astype(np.int64), self._bins - 1)
        return (levels[..., 0] * self._bins + levels[..., 1]) * self._bins + levels[..., 2]

    def _density(self, index: np.ndarray) -> np.ndarray:
        count = np.bincount(index, minlength=self._bins**3).astype(np.float64)
        cube = count.reshape((self._bins,) * 3)
        step = np.subtract.outer(np.arange(self._bins), np.arange(self._bins))
        kernel = np.exp(-0.5 * (step / self._SMOOTHING) ** 2)
        kernel /= kernel.sum(0)
        cube = np.einsum("abc,ia,jb,kc->ijk", cube, kernel, kernel, kernel, optimize=True)
        return cube.ravel() / cube.sum() + self._FLOOR / cube.size

    def _classify(self, frames: np.ndarray) -> np.ndarray:
        votes = self._log_odds[self._index(frames)]
        blurred = np.stack([cv2.GaussianBlur(frame, (0, 0), self._BLUR) for frame in votes])
        return (blurred > np.log(self._ODDS)) & self._near


def flicker(frames: np.ndarray) -> float:
    """Mean `warping_error` of neighbouring frames: change that motion does not explain.

    0 .. 1; a still picture has 0, a true video its noise and occlusions.

    frames: [F, S, S, 3] in [0, 1]; NaN for a single frame.
    """
    errors = [warping_error(*pair) for pair in itertools.pairwise(frames)]
    return float(np.mean(errors)) if errors else float("nan")


def warping_error(frame: np.ndarray, following: np.ndarray) -> float:
    """E_warp of Lai et al., 2018, with L1.

    Mean absolute difference between a frame and its successor, warped back by the optical flow
    between them (DIS, medium preset), over pixels whose forward and backward flow agree (Sundaram
    et al., 2010); over all pixels if none does.

    frame, following: [H, W, 3] in [0, 1].
    """
    first, second = (
        cv2.cvtColor(np.round(x * 255).astype(np.uint8), cv2.COLOR_RGB2GRAY)
        for x in (frame, following)
    )
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # DIS cuts the picture into one stripe per thread: results would differ
    try:
        forward, backward = _flow(first, second), _flow(second, first)
    finally:
        cv2.setNumThreads(threads)
    y, x = np.mgrid[: frame.shape[0], : frame.shape[1]].astype(np.float32)
    place = x + forward[..., 0], y + forward[..., 1]
    back = cv2.remap(backward, *place, cv2.INTER_LINEAR)
    gap = np.square(forward + back).sum(-1)
    length = np.square(forward).sum(-1) + np.square(back).sum(-1)
    seen = gap <= 0.01 * length + 0.5
    seen &= (place[0] >= 0) & (place[0] <= x.max()) & (place[1] >= 0) & (place[1] <= y.max())
    warped = cv2.remap(following.astype(np.float32), *place, cv2.INTER_LINEAR)
    change = np.abs(warped.astype(np.float64) - frame).mean(-1)
    return float(change[seen].mean() if seen.any() else change.mean())


def _flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(first, second, None)


def _blur(image: np.ndarray) -> np.ndarray:
    window = (_SSIM_WINDOW, _SSIM_WINDOW)
    return cv2.GaussianBlur(image, window, _SSIM_SIGMA, borderType=cv2.BORDER_REFLECT)


def mean_over(values: np.ndarray, region: np.ndarray | None) -> float:
    """Mean over a region, bool [H, W], or all; NaN if it is empty."""
    values = values if region is None else values[region]
    return float(values.mean()) if values.size else float("nan")
