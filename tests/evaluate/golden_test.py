"""Every metric without weights, the Frechet distance and the bootstrap, on painted cases."""

import json
from pathlib import Path

import numpy as np

from durian_jax.evaluate import scores
from durian_jax.evaluate.protocol import Protocol
from durian_jax.metrics.frechet import frechet_distance
from input_pipeline.dataset.cases import Attribute, Case, Pictures, Truth
from input_pipeline.faces.landmarker import Track

_GOLDEN = Path(__file__).parent / "golden.json"
_SIZE, _FRAMES, _CASES = 64, 6, 4
# Relative. Optical flow is computed in float32, in an order that depends on the processor.
_TOLERANCE, _FLOW_TOLERANCE = 1e-6, 1e-3


def compute() -> dict[str, float]:
    """Means, interval bounds and a Frechet distance, from fixed seeds."""
    protocol = Protocol.load("counterfactual")
    rows = [scores.score(_answer(seed), protocol) for seed in range(_CASES)]
    found = {}
    for name in rows[0]:
        cell = scores.summarise(name, [row[name] for row in rows], protocol)
        found[name] = cell["mean"]
        if name in ("psnr", "flicker"):
            found |= {f"{name} low": cell["low"], f"{name} high": cell["high"]}
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(40, 8)), rng.normal(0.3, 1.2, size=(50, 8))
    found["frechet"] = frechet_distance(first, second)
    return found


def _answer(seed: int) -> scores.Prediction:
    """A disc, the attribute, moves over a wavy background; the prediction is noisy and late."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:_SIZE, :_SIZE]
    waves = np.stack([np.sin((x * a + y * b) / 9) for a, b in rng.uniform(-1, 1, (3, 2))], -1)
    colour = rng.uniform(0.2, 0.9, 3)
    truth, masks = [], []
    for frame in range(_FRAMES):
        mask = np.hypot(x - 24 - 2 * frame, y - 30 - frame) < 12 + seed
        shade = 0.05 * np.sin((x + y - 3 * frame) / 3)[..., None]
        picture = np.where(mask[..., None], colour + shade, 0.45 + 0.3 * waves)
        truth.append(np.round(picture.clip(0, 1) * 255).astype(np.uint8))
        masks.append(mask)
    truth, masks = np.stack(truth), np.stack(masks)
    late = np.concatenate([truth[:1], truth[:-1]]) / np.float32(255)
    frames = (late + rng.normal(0, 0.03, late.shape)).clip(0, 1).astype(np.float32)

    face = rng.normal(0, 12, (478, 3)) + [32, 32, 0]
    keypoints = (face + np.arange(_FRAMES)[:, None, None] * [1.0, 0.5, 0.0]).astype(np.float32)
    track = Track(
        (keypoints + rng.normal(0, 0.5, keypoints.shape)).astype(np.float32),
        np.arange(_FRAMES) != seed,
        1,
    )
    usable = np.arange(_FRAMES) != 5
    case = Case("0000", "hair", (Attribute("hair"),), _FRAMES, {}, scored_from=seed % 2)
    pictures = Pictures(
        truth[0], masks[0], truth[:1], masks[:1], truth, Truth(truth, {"hair": masks}, keypoints)
    )
    reference = scores.Reference(
        keypoints[0], [keypoints[0]], keypoints, keypoints, usable, keypoints
    )
    return scores.Prediction(frames, track, case, pictures, reference)


def test_this_machine_computes_the_stored_numbers():
    """If a metric is meant to change, raise the protocols' versions and store what `compute` gives
    in golden.json. If not: look at the versions of numpy and opencv-python-headless."""
    golden, found = json.loads(_GOLDEN.read_text()), compute()
    assert found.keys() == golden.keys()
    for name, value in found.items():
        tolerance = _FLOW_TOLERANCE if name.startswith("flicker") else _TOLERANCE
        np.testing.assert_allclose(value, golden[name], rtol=tolerance, atol=1e-9, err_msg=name)
