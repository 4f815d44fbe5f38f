"""HDR and wide-gamut pictures on a usual screen: BT.709 primaries, the sRGB curve.

Curves: ITU-R BT.2100. Reference white (203 cd/m^2, 75 % of HLG) becomes 1, as BT.2408 has it; what
is brighter is compressed, and hue kept, by one factor for the three channels.
"""

import functools

import cv2
import numpy as np

# Codes of ITU-T H.273.
LINEAR, _PQ, _HLG = 8, 16, 18
TRANSFERS = {_PQ: "PQ", _HLG: "HLG"}
PRIMARIES = {9: "BT.2020", 11: "DCI-P3", 12: "Display P3"}
_P3 = [[1.2249, -0.2247, 0], [-0.0420, 1.0419, 0], [-0.0197, -0.0786, 1.0979]]
_TO_BT709 = {
    9: [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]],
    11: _P3,
    12: _P3,
}
_KNEE = 0.8  # light, of reference white, from which on it is compressed
_PEAK = {_PQ: 1000 / 203, _HLG: 1 / 0.265}  # the brightest that is told apart, likewise
_LEVELS = 4096


def kind(primaries: int, transfer: int) -> str | None:
    """What a picture with these codes is called, None for a usual one."""
    if transfer in TRANSFERS:
        return f"HDR ({TRANSFERS[transfer]})"
    return PRIMARIES.get(primaries)


def to_sdr(signal: np.ndarray, primaries: int, transfer: int) -> np.ndarray:
    """uint8 [H, W, 3] sRGB of a uint16 [H, W, 3] RGB signal of these codes."""
    light = _decoder(transfer)[signal >> 4]
    if primaries in _TO_BT709:
        light = cv2.transform(light, np.array(_TO_BT709[primaries], np.float32))
    light = np.maximum(light, 0)
    if transfer in _PEAK:
        brightest = light.max(-1)
        bright = brightest > _KNEE
        light[bright] *= (_compressed(brightest[bright], _PEAK[transfer]) / brightest[bright])[
            :, None
        ]
    # The table is even in the root of light: dark levels need the finer steps.
    return _encoder()[(np.sqrt(np.minimum(light, 1)) * (_LEVELS - 1) + 0.5).astype(np.uint16)]


def to_srgb(light: np.ndarray) -> np.ndarray:
    """The sRGB curve, 0 to 1 to 0 to 1."""
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def _compressed(light: np.ndarray, peak: float) -> np.ndarray:
    """Reinhard's curve with a white point (2002, eq. 4), from the knee to 1 at the peak."""
    above, most = (light - _KNEE) / (1 - _KNEE), (peak - _KNEE) / (1 - _KNEE)
    above = np.minimum(above, most)
    return _KNEE + (1 - _KNEE) * above * (1 + above / most**2) / (1 + above)


@functools.cache
def _decoder(transfer: int) -> np.ndarray:
    x = np.linspace(0, 1, _LEVELS)
    if transfer == LINEAR:
        light = x
    elif transfer == _HLG:
        high = (np.exp((x - 0.55991073) / 0.17883277) + 0.28466892) / 12
        light = np.where(x <= 0.5, x**2 / 3, high) / 0.265
    elif transfer == _PQ:
        power = x ** (1 / 78.84375)
        ratio = np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)
        light = 10000 / 203 * ratio ** (1 / 0.1593017578125)
    else:
        light = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    return light.astype(np.float32)


@functools.cache
def _encoder() -> np.ndarray:
    return np.rint(255 * to_srgb(np.linspace(0, 1, _LEVELS) ** 2)).astype(np.uint8)
