"""What limits the scores of a model: the same cases, with parts of the truth given away.

    python -m benchmarks.limits TEST/counterfactual --checkpoint small

"motion": the keypoints that the landmarker finds in the true video, in place of the driver's on the
portrait's face. "source": each attribute as the person herself wears it in the middle of the true
video, in place of the other person's photo; cases that interpolate keep theirs. With both, what is
asked is what training asks: another frame of the same clip. Prints a table in Markdown, means over
the cases, and below each the gain over what is asked, case by case, with its 95 % bootstrap
interval.
"""

import argparse
from pathlib import Path

import numpy as np

from durian_jax.animation.animator import Animator
from durian_jax.evaluate import scores
from durian_jax.evaluate.predictions import job_of
from durian_jax.evaluate.protocol import Protocol
from durian_jax.sampling.program import Stopwatch
from input_pipeline.dataset.cases import Case, CaseSet, Pictures
from input_pipeline.faces.landmarker import FaceLandmarker
from input_pipeline.inference.inputs import Scene
from input_pipeline.masks import regions

GIVEN = {"asked": (), "motion": ("motion",), "source": ("source",), "both": ("motion", "source")}
METRICS = ("psnr", "psnr_inside", "psnr_outside", "iou", "keypoints")
_RESAMPLES = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", type=Path, help="a folder of counterfactual cases")
    parser.add_argument("--checkpoint", help="as of durian animate")
    parser.add_argument("--first", type=int, help="so many cases only")
    options = parser.parse_args()
    animator, landmarker = Animator.load(options.checkpoint), FaceLandmarker()
    cases, protocol = CaseSet.read(options.cases), Protocol.load("counterfactual")
    rows = {name: [] for name in GIVEN}
    for case in cases.cases[: options.first]:
        pictures = cases.load(case)
        reference = scores.find_reference(case, pictures, landmarker)
        scene = animator.read(job_of(cases.path, case, seed=0))
        for name, given in GIVEN.items():
            frames = sample(animator, give(given, scene, case, pictures, reference))
            track = scores.find_track(frames, landmarker)
            prediction = scores.Prediction(frames, track, case, pictures, reference)
            found = scores.score(prediction, protocol)
            rows[name].append([np.nan if found[m] is None else found[m] for m in METRICS])
    print(f"| given | {' | '.join(METRICS)} |\n|---|{'---|' * len(METRICS)}")
    for name, values in rows.items():
        print(f"| {name} | {' | '.join(f'{mean:.3f}' for mean in np.nanmean(values, 0))} |")
        if name != "asked":
            gain = np.array(values) - rows["asked"]
            print(f"| | {' | '.join(map(interval, gain.T))} |")


def interval(gains: np.ndarray) -> str:
    """Mean and 95 % bootstrap interval of the gains of cases [n]."""
    rng = np.random.default_rng(0)
    means = np.nanmean(gains[rng.integers(len(gains), size=(_RESAMPLES, len(gains)))], 1)
    low, high = np.percentile(means, (2.5, 97.5))
    return f"{np.nanmean(gains):+.3f} [{low:+.3f}, {high:+.3f}]"


def give(
    given: tuple[str, ...],
    scene: Scene,
    case: Case,
    pictures: Pictures,
    reference: scores.Reference,
) -> dict:
    """The batch of a case in which parts of the truth are given away."""
    batch, truth = dict(scene.batch), pictures.truth
    if "motion" in given:
        batch["keypoints"] = reference.keypoints[..., :2]
    if "source" in given and not case.interpolates:
        middle = len(truth.video) // 2
        names = ("attribute", "attribute_mask", "attribute_keypoints")
        batch |= {name: batch[name].copy() for name in names}
        for i, (_, kind) in enumerate(scene.sources):
            mask = truth.masks[kind][middle]
            batch["attribute"][i] = regions.hide(truth.video[middle], ~mask)
            batch["attribute_mask"][i] = mask
            batch["attribute_keypoints"][i] = reference.keypoints[middle, :, :2]
    return batch


def sample(animator: Animator, batch: dict) -> np.ndarray:
    """float32 [F, S, S, 3] in [0, 1]."""
    parts = animator.generator([batch], [0], animator.sampling, Stopwatch(quiet=True))
    return np.concatenate(list(parts), axis=1)[0] / np.float32(255)


if __name__ == "__main__":
    main()
