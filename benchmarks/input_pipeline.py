"""Pictures of 512 px that one core prepares in a second, and what an accelerator asks for.

    taskset -c 0 python -m benchmarks.input_pipeline

Writes benchmarks/results/input_pipeline-DATE.md. Without --dataset it prepares two clips of a
moving photograph (scikit-image's astronaut) first, which takes a minute. All times are processor
time of this process, set up as a worker of the loader; stages and ranges are configs/durian.py's.
"""

import argparse
import contextlib
import cProfile
import datetime
import importlib.metadata
import os
import platform
import pstats
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from configs import durian
from durian_jax.training.loop import sample_options
from input_pipeline.dataset import donors, records, shards
from input_pipeline.faces import geometry
from input_pipeline.masks import regions
from input_pipeline.media import video
from input_pipeline.media.pictures import resize
from input_pipeline.prepare import prepare
from input_pipeline.training import augmentation, loader, transforms

REFERENCES = 2
REPEATS = 7
# Clips on each of 8 accelerators.
BATCH = {"stage1": 4, "stage2": 1}
# Forward and backward of one clip, with autoencoder and CLIP: counted on the PyTorch networks at
# 512 px, stage 2 with 24 frames.
TERAFLOPS = {"stage1": 11.47, "stage2": 110.6}
# Dense bf16 peak, vendors' figures.
PEAK = {"H200": 989, "TPU v5p": 459}
MFU = 0.55
STEPS = {
    "read the record": shards.Dataset.__getitem__,
    "parse it": records.decode,
    "decode JPEG": records.decode_frame,
    "decode PNG masks": records.decode_mask,
    "resize": resize,
    "grow the portrait mask": transforms.grow,
    "borrow masks": donors.Donors.borrow,
    "affine": augmentation.warp,
    "jitter": augmentation.jitter,
    "hide": regions.hide,
    "align the face": geometry.align_face,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", type=Path, help="prepared at 512 px (default: made here)")
    parser.add_argument("--seconds", type=float, default=20, help="of each measurement")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    loader.start_worker()
    with tempfile.TemporaryDirectory() as folder:
        dataset = shards.Dataset(options.dataset or prepared(Path(folder)))
        text = report(dataset, options.seconds)
    print(text)
    options.out.mkdir(exist_ok=True)
    path = options.out / f"input_pipeline-{datetime.date.today()}.md"
    path.write_text(text)


def report(dataset: shards.Dataset, seconds: float) -> str:
    """Markdown: rates of both stages, the accelerators' needs, where the time goes."""
    chunk = records.decode(dataset[0])
    size = np.mean([len(frame) for frame in chunk.frames])
    packages = ("numpy", "opencv-python-headless", "simplejpeg", "grain", "array-record")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    rates, needs, steps = [], [], {}
    for stage in TERAFLOPS:
        config = durian.get_config(stage)
        sampling = sample_options(config)
        pictures = sampling.frames + REFERENCES
        whole = seconds_per_sample(dataset, sampling, BATCH[stage], seconds)
        low, rate, high = np.percentile(pictures / np.array(whole), [0, 50, 100])
        whole = pictures / rate
        rates.append(
            f"| {stage} | {BATCH[stage]} | {sampling.frames} + {REFERENCES} | **{rate:.0f}** "
            f"({low:.0f} to {high:.0f}) | {rate * sampling.frames / pictures:.0f} "
            f"| {1e3 * whole:.1f} |"
        )
        for name, peak in PEAK.items():
            clips = MFU * peak / TERAFLOPS[stage]
            needs.append(
                f"| {name} | {stage} | {MFU} x {peak} / {TERAFLOPS[stage]} = {clips:.1f} "
                f"| x {pictures} = {clips * pictures:.0f} | / {rate:.0f} = "
                f"**{clips * pictures / rate:.1f}** |"
            )
        steps[stage] = milliseconds_by_step(dataset, sampling, seconds)
        steps[stage]["batching and threads"] = 1e3 * whole - sum(steps[stage].values())
    lines = [
        f"# Input pipeline, {datetime.date.today()}",
        "",
        f"{processor()}, {os.cpu_count()} cores, {platform.platform()}; load average "
        f"{os.getloadavg()[0]:.1f}. Python {platform.python_version()}, {versions}.",
        "",
        f"    taskset -c 0 python -m benchmarks.input_pipeline {' '.join(sys.argv[1:])}".rstrip(),
        "",
        f"{len(dataset)} records of {len(chunk.frames)} frames, {dataset.size} px, JPEG "
        f"q{records.JPEG_QUALITY} 4:4:4 of {size / 1024:.0f} KiB, from the page cache. A picture "
        "is a target frame or a reference; times are processor time of one core. Rates: median of "
        f"{REPEATS} stretches, in brackets the slowest and the fastest.",
        "",
        "## Full batch: records to stacked arrays, JPEG decoding included",
        "",
        "| stage | batch | pictures a clip | pictures/s per core | targets only/s | ms a clip |",
        "|---|---:|---:|---:|---:|---:|",
        *rates,
        "",
        f"Alone: {per_second(records.decode_frame, chunk.frames):.0f} JPEG decodes/s, "
        f"{per_second(augment, map(records.decode_frame, chunk.frames)):.0f} augmentations of a "
        "reference with its mask/s per core.",
        "",
        f"## What an accelerator at {MFU:.0%} of its peak asks for",
        "",
        "TFLOP/s over TFLOP a clip gives clips/s; times pictures a clip; over our rate gives "
        "cores. Counts: forward and backward with autoencoder and CLIP. Peaks: dense bf16.",
        "",
        "| accelerator | stage | clips/s | pictures/s | cores |",
        "|---|---|---|---|---|",
        *needs,
        "",
        "## Where the time goes, milliseconds a clip",
        "",
        "Profiled sample by sample; the profiler's own time is in it, so that the last row, what "
        "is left of the full batch above, may fall below zero.",
        "",
        "| step | " + " | ".join(steps) + " |",
        "|---|" + "---:|" * len(steps),
        *(
            f"| {step} | " + " | ".join(f"{steps[stage][step]:.1f}" for stage in steps) + " |"
            for step in steps["stage1"]
        ),
        "",
    ]
    return "\n".join(lines)


def seconds_per_sample(dataset, sampling, batch_size: int, seconds: float) -> list[float]:
    """Processor seconds that a clip of a batch costs, from the training's own loader; REPEATS."""
    found = []
    with contextlib.closing(
        loader.Loader(dataset, sampling, seed=0, batch_size=batch_size)
    ) as batches:
        for _ in range(8):  # fills the prefetch buffer
            next(batches)
        for _ in range(REPEATS):
            start, count = time.process_time(), 0
            while time.process_time() - start < seconds / 2:
                next(batches)
                count += batch_size
            found.append((time.process_time() - start) / count)
    return found


def milliseconds_by_step(dataset, sampling, seconds: float) -> dict[str, float]:
    """Processor time of each of STEPS for one clip, and of what is left."""
    samples = loader.Samples(dataset, sampling, 0, 1, 0, 1)
    samples[0]
    profile, count = cProfile.Profile(time.process_time), 0
    start = time.process_time()
    while time.process_time() - start < seconds:
        count += 1
        profile.runcall(samples.__getitem__, count)
    stats = pstats.Stats(profile)
    spent = {}
    for step, function in STEPS.items():
        code = function.__code__
        key = code.co_filename, code.co_firstlineno, code.co_name
        spent[step] = 1e3 * stats.stats[key][3] / count
    return spent | {"everything else": 1e3 * stats.total_tt / count - sum(spent.values())}


def per_second(function, arguments) -> float:
    """Calls in a processor second."""
    arguments = list(arguments)
    start = time.process_time()
    for argument in arguments:
        function(argument)
    return len(arguments) / (time.process_time() - start)


def augment(image: np.ndarray):
    """As a portrait reference, by every step there is."""
    ranges = augmentation.Augmentation(len(image), affine_probability=1, jitter_probability=1)
    mask = np.zeros(image.shape[:2], np.float32)
    rng = np.random.default_rng(0)
    return augmentation.augment(image, mask, ranges, rng, cv2.BORDER_REFLECT_101)


def processor() -> str:
    """Name of the processor, as Linux has it."""
    facts = Path("/proc/cpuinfo")
    names = [line for line in facts.read_text().splitlines() if line.startswith("model name")]
    return names[0].partition(": ")[2] if names else platform.processor()


def prepared(folder: Path) -> Path:
    """A data set of two clips, made from a photograph that sways; grain as of a camera."""
    from skimage.data import astronaut

    (folder / "clips").mkdir()
    photo = cv2.resize(astronaut(), (1024, 1024), interpolation=cv2.INTER_CUBIC)
    rng = np.random.default_rng(0)
    for number in range(2):
        frames = []
        for i in range(64):
            angle = 2 * np.pi * i / 30 + number
            turn = cv2.getRotationMatrix2D((450, 250), 3 * np.sin(angle), 1)
            turn[:, 2] += [8 * np.cos(angle), 4 * np.sin(angle)]
            moved = cv2.warpAffine(photo, turn, (1024, 1024), borderMode=cv2.BORDER_REPLICATE)
            grain = cv2.GaussianBlur(rng.normal(0, 12, moved.shape), (0, 0), 1)
            frames.append(np.clip(moved + grain, 0, 255).astype(np.uint8))
        video.write_video(folder / "clips" / f"{number}.mp4", frames, Fraction(25))
    prepare.prepare(folder / "clips", folder / "set", size=512, workers=1, progress=False)
    return folder / "set"


if __name__ == "__main__":
    main()
