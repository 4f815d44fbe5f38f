"""How far retargeted keypoints are from the truth, and what smoothing takes away.

    python -m benchmarks.retarget

Writes benchmarks/results/retarget-DATE.md. 200 pairs of synthetic people; 40 of them, and eight
clips at 25 fps for the smoothing, are rendered for the landmarker, which takes a quarter of an
hour or more on two cores. `--before FILE` adds the `retarget` of another version of
input_pipeline/motion/retarget.py.
"""

import argparse
import datetime
import importlib.metadata
import importlib.util
import os
import platform
from pathlib import Path

import numpy as np

from benchmarks import drivers
from durian_jax.metrics.face_motion import openings
from input_pipeline.faces import geometry
from input_pipeline.motion.retarget import retarget
from input_pipeline.motion.smoothing import smooth

FRAMES, FPS = 25, 8
CLIP_FRAMES, CLIP_FPS = 60, 25
_BLINK = 0.035  # depth from which a dip of an opening counts as one, eye distances


def errors(predicted: np.ndarray, true: np.ndarray, motion: str) -> np.ndarray:
    """[3]: keypoints, mouth, eyes in % of the true head's eye distance, means over [F, 478, 3].

    Where an absolute motion lies in the picture is a matter of framing: one shift of the whole
    clip is taken out.
    """
    predicted, true = predicted.astype(np.float64), true.astype(np.float64)
    if motion == "absolute":
        predicted = predicted - (predicted - true).mean((0, 1))
    _, scale, _ = geometry.head_pose(true)
    apart = np.linalg.norm((predicted - true)[..., :2], axis=-1).mean(-1) / scale
    eyes, mouth = openings(predicted, scale)
    true_eyes, true_mouth = openings(true, scale)
    return 100 * np.array(
        [apart.mean(), np.abs(mouth - true_mouth).mean(), np.abs(eyes - true_eyes).mean()]
    )


def raw(driver: np.ndarray, portrait: np.ndarray, motion: str) -> np.ndarray:
    return driver


def aligned(driver: np.ndarray, portrait: np.ndarray, motion: str) -> np.ndarray:
    """Moved by the similarity from the driver's first frame to the portrait."""
    matrix = geometry.similarity(driver[0, :, :2], portrait[:, :2])
    moved = driver.copy()
    moved[..., :2] = driver[..., :2] @ matrix[:, :2].T + matrix[:, 2]
    return moved


def compare(pairs: drivers.Pairs, methods: dict) -> list[str]:
    """Rows of the table."""
    looked_at = list(drivers.LOOKED_AT)
    rows = []
    for motion in ("relative", "absolute"):
        true, seen = getattr(pairs, motion), getattr(pairs, f"found_{motion}")
        usable = [
            i
            for i in range(len(seen))
            if not np.isnan([pairs.found_driver[i].sum(), pairs.found_portrait[i].sum()]).any()
            and not np.isnan(seen[i]).any()
        ]
        for name, method in methods.items():
            if motion == "absolute" and name in ("similarity", "before"):
                continue
            exact = [
                errors(method(driver, portrait, motion), prediction, motion)
                for driver, portrait, prediction in zip(pairs.driver, pairs.portrait, true)
            ]
            found = [
                method(pairs.found_driver[i], pairs.found_portrait[i], motion)[looked_at]
                for i in usable
            ]
            against_truth = [errors(f, true[i][looked_at], motion) for f, i in zip(found, usable)]
            against_seen = [errors(f, seen[i], motion) for f, i in zip(found, usable)]
            rows.append(_row(motion, name, exact, against_truth, against_seen))
        floor = [errors(seen[i], true[i][looked_at], motion) for i in usable]
        rows.append(_row(motion, "the landmarker on the truth itself", None, floor, None))
    return rows


def _row(motion: str, name: str, *groups) -> str:
    cells = []
    for group in groups:
        cells += ["-"] * 3 if group is None else [f"{x:.2f}" for x in np.mean(group, 0)]
    return f"| {motion} | {name} | {' | '.join(cells)} |"


def smoothing(clips: list) -> list[str]:
    """Rows of the table of strengths."""
    rows = []
    for strength in (0, 0.5, 1, 2, 4):
        values, kept = [], {"blinks": [], "lips": []}
        for true, found in clips:
            if np.isnan(found).any():
                continue
            scale = float(np.median(geometry.head_pose(true)[1]))
            result = smooth(found, CLIP_FPS, strength)
            error = (result - true)[..., :2] / scale
            # Error without what is constant or slow: what the eye sees as trembling.
            trembling = error[2:] - 2 * error[1:-1] + error[:-2]
            values.append([np.linalg.norm(e, axis=-1).mean() for e in (trembling / 6**0.5, error)])
            for name, share in _kept(found, result, scale):
                kept[name].append(share)
        jitter, error = 100 * np.mean(values, 0)
        shares = " | ".join(f"{np.mean(k):.0%}" if k else "-" for k in kept.values())
        rows.append(f"| {strength:g} | {jitter:.2f} | {error:.2f} | {shares} |")
    counts = ", ".join(f"{len(shares)} {name}" for name, shares in kept.items())
    return [*rows, "", f"Dips counted: {counts}."]


def _kept(before: np.ndarray, after: np.ndarray, scale: float):
    """(kind, share of its depth left) of every short dip of an opening."""
    for name, part in (("blinks", 0), ("lips", 1)):
        was, now = (
            openings(k.astype(np.float64), np.full(len(k), scale))[part] for k in (before, after)
        )
        was, now = (c.mean(-1) if c.ndim > 1 else c for c in (was, now))
        for i in range(4, len(was) - 4):
            depth = np.median(was[max(0, i - 10) : i + 11]) - was[i]
            if depth > _BLINK and was[i] == was[i - 4 : i + 5].min():
                yield name, 1 - (now[i - 1 : i + 2].min() - was[i]) / depth


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--rendered", type=int, default=40)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--before", type=Path, help="another version of retarget.py")
    parser.add_argument("--cache", type=Path, help="folder to keep the rendered pairs in")
    options = parser.parse_args()
    methods = {"raw driver": raw, "similarity": aligned}
    if options.before:
        spec = importlib.util.spec_from_file_location("before", options.before)
        other = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(other)
        methods["before"] = lambda driver, portrait, _: other.retarget(driver, portrait)
    methods["retarget"] = retarget
    pairs = drivers.pairs(options.pairs, FRAMES, FPS, options.rendered, options.cache)
    clips = drivers.tracked_clips(options.clips, CLIP_FRAMES, CLIP_FPS)
    today = datetime.date.today().isoformat()
    versions = ", ".join(f"{n} {importlib.metadata.version(n)}" for n in ("jax", "numpy"))
    command = f"python -m benchmarks.retarget --pairs {options.pairs} --rendered {options.rendered}"
    text = _TEXT.format(
        today=today, machine=f"{os.cpu_count()} cores {platform.machine()}", versions=versions,
        command=command + (" --before FILE" if options.before else ""), frames=FRAMES, fps=FPS,
        pairs=options.pairs, rendered=options.rendered, size=drivers.SIZE,
        rows="\n".join(compare(pairs, methods)), clips=options.clips, clip_frames=CLIP_FRAMES,
        clip_fps=CLIP_FPS, smoothing="\n".join(smoothing(clips)),
    )  # fmt: skip
    out = Path(__file__).parent / "results" / f"retarget-{today}.md"
    out.parent.mkdir(exist_ok=True)
    out.write_text(text)
    print(text)


_TEXT = """# Retargeted keypoints against the truth

{today}, {machine}, {versions}

    {command}

{pairs} pairs of synthetic people (portrait A, driver C; half of them with a calm portrait and a
calm first frame), {frames} frames at {fps} fps. Truth: A's own head moving like C. Mean errors in %
of the distance of the outer eye corners: all 478 points in the picture, opening of the mouth,
opening of the eyes.

- exact: from the true keypoints of portrait and driver.
- truth, found: from what the landmarker finds in {rendered} rendered pairs, {size} px, four frames
  each; against the truth, and against what the landmarker finds in the rendered truth.
- absolute: one shift of the whole clip is taken out, for all. Size and camera are the same in all
  pictures, which flatters raw drivers.
- before: this project's earlier version, without neck and contact.

| motion | keypoints | exact | mouth | eyes | truth | mouth | eyes | found | mouth | eyes |
|---|---|---|---|---|---|---|---|---|---|---|
{rows}

## Smoothing

{clips} rendered clips of {clip_frames} frames at {clip_fps} fps, keypoints as found. Trembling:
second difference in time of the error, by the square root of 6 (white noise has its standard
deviation), % of the eye distance. Blinks and lips: how much of the depth of short dips is left.

| strength | trembling | error | blinks kept | lip closures kept |
|---|---|---|---|---|
{smoothing}
"""


if __name__ == "__main__":
    main()
