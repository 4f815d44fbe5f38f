"""Preparation that is killed again and again must end with exactly the records of one that is not.

    durian synth --out PEOPLE --videos --people 125 --clips 1 --size 256 --frames 48 --fps 12.5
    python -m benchmarks.prepare_soak PEOPLE --work FOLDER --clips 2000 --kills 4 \
        --options '--runner DirectRunner'

Makes `--clips` clips of the rendered ones, by mirroring, reversing time and changing the colours:
other files with other content, but not other people. Prepares them in one go, then once more under
SIGKILL to the whole process group at random moments, the last one while shards are written.
Compares every shard byte for byte. Prints a report in Markdown, for benchmarks/results.
"""

import argparse
import csv
import hashlib
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from input_pipeline.dataset import shards
from input_pipeline.media import video
from input_pipeline.prepare.clip_jobs import WORK


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("people", type=Path, help="what `durian synth --videos` wrote")
    parser.add_argument("--work", type=Path, required=True, help="folder for clips and data sets")
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--options", default="", help="of `durian prepare`, in quotes")
    options = parser.parse_args()
    further = shlex.split(options.options)
    clips, whole, killed = (options.work / name for name in ("clips", "whole", "killed"))
    derive(options.people, clips, options.clips)
    command = [sys.executable, "-m", "durian_jax.cli.main", "prepare", str(clips)]
    command += ["--labels", str(clips / "labels.csv"), "--masks", f"truth:{clips / 'masks'}"]
    command += ["--size", str(options.size)]
    start, before = time.monotonic(), os.times()
    subprocess.run([*command, "--out", str(whole), *further], check=True, stdout=sys.stderr)
    spent, after = time.monotonic() - start, os.times()
    processor = after.children_user + after.children_system
    processor -= before.children_user + before.children_system
    survived = kill(
        [*command, "--out", str(killed), *further], killed, options.clips,
        options.kills, random.Random(options.seed),
    )  # fmt: skip
    wanted, found = contents(whole), contents(killed)
    differing = sum(found.get(name) != digest for name, digest in wanted.items())
    records = sum(len(shards.Dataset(killed, split)) for split in ("train", "val", "test"))
    print(f"clips {options.clips}, {options.size} px; options: {options.options or 'none'}")
    print(f"in one go: {spent:.0f} s, {processor:.0f} s of processor time, ", end="")
    print(f"{options.clips / processor:.2f} clips per second and core\n")
    print("| killed after | finished by then | of these made again |\n|---|---|---|")
    for moment, done, again in survived:
        print(f"| {moment} | {done} | {again} |")
    print(f"\n{records} records; {len(wanted)} files, {differing} differ, ", end="")
    print(f"{len(found.keys() - wanted.keys())} too many")
    sys.exit(differing > 0 or found.keys() != wanted.keys())


def derive(people: Path, out: Path, count: int) -> None:
    """Writes `count` clips with masks and labels, each rendered clip in turn, then its variants."""
    with open(people / "labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    labels = []
    for number in tqdm(range(count), unit="clip", desc="variants"):
        variant, row = number // len(rows), rows[number % len(rows)]
        mirrored, backwards, colour = variant % 2, variant // 2 % 2, variant // 4
        name = Path(row["file"]).with_suffix("")
        other = f"{name}_{variant:02d}"
        labels.append(row | {"file": f"{other}.mp4"})
        if (out / f"{other}.mp4").exists():
            continue
        gains = np.random.default_rng(colour).uniform(0.7, 1.0, 3) if colour else np.ones(3)
        frames = np.stack(list(video.read_frames(people / row["file"])))
        frames = (frames[:: -1 if backwards else 1, :, :: -1 if mirrored else 1] * gains).round()
        for mask in (people / "masks" / name).rglob("*.png"):
            frame = len(frames) - 1 - int(mask.stem) if backwards else int(mask.stem)
            target = out / "masks" / other / mask.parent.name / f"{frame:05d}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            picture = Image.open(mask)
            if mirrored:
                picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            picture.save(target)
        video.write_video(
            out / f"{other}.mp4", frames.astype(np.uint8), Fraction(25, 2), lossless=True
        )
    shutil.copy(people / "masks" / "truth.json", out / "masks")
    with open(out / "labels.csv", "w", newline="") as file:
        table = csv.DictWriter(file, labels[0])
        table.writeheader()
        table.writerows(labels)


def kill(command: list[str], out: Path, clips: int, kills: int, rng: random.Random) -> list[tuple]:
    """Runs the command until it ends, killed so many times on the way.

    Returns for each kill: when, how many clips were finished, and how many of those that were
    finished at the kill before it have been made again since.
    """
    survived, last = [], {}
    targets = sorted(rng.randrange(clips // 20, clips - clips // 20) for _ in range(kills - 1))
    for target in [*targets, None]:
        run = subprocess.Popen(command, start_new_session=True, stdout=sys.stderr)
        wait = rng.uniform(0, 1)
        if target is None:  # all clips are finished, shards are being written
            moment = "while shards were written"
            while not list((out / shards.STAGING).glob("*durian-*")) and run.poll() is None:
                time.sleep(0.01)
        else:
            moment = f"{target} clips and {wait:.2f} s"
            while len(finished(out)) < target and run.poll() is None:
                time.sleep(0.2)
            time.sleep(wait)
        assert run.poll() is None, "the run ended before it could be killed"
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        now = finished(out)
        survived.append((moment, len(now), sum(now.get(name) != t for name, t in last.items())))
        last = now
    subprocess.run(command, check=True, stdout=sys.stderr)
    return survived


def finished(out: Path) -> dict[str, int]:
    """Finished clips, and when each was."""
    found = (out / WORK).glob("*.json") if (out / WORK).is_dir() else ()
    return {path.name: path.stat().st_mtime_ns for path in found}


def contents(dataset: Path) -> dict[str, str]:
    """SHA-256 of each file of a data set."""
    files = [*dataset.glob("durian-*"), *dataset.glob("*.json*"), dataset / "skipped.csv"]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


if __name__ == "__main__":
    main()
