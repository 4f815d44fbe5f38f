"""A training run that is killed again and again must end with the bits of one that is not.

    python -m benchmarks.soak --work FOLDER --kills 50

Trains the smallest Durian (tests/reliability/smallest.py) in one go, then again in processes that
end by SIGKILL or SIGTERM at random moments: while they import, compile, take steps and save. Starts
the same command again until the last step is done, and another run if there are kills left. Then
compares every bit of the last checkpoint (parameters, average, optimizer, progress), every line of
metrics but for the times, and the hash of every batch. Prints a report in Markdown, for
benchmarks/results.
"""

import argparse
import collections
import functools
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from input_pipeline.errors import Interrupted
from tests.reliability import runs

# A part of the processes dies before the first step, drawn over the time that takes; the others
# after it, within these seconds.
EARLY, STEPS_SECONDS = 0.35, 12.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for data set and runs")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--steps", type=int, default=60, help="of each run")
    parser.add_argument("--every", type=int, default=5, help="steps between checkpoints")
    parser.add_argument("--model", choices=("durian", "toy"), default="durian")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    data_set = options.work / "data_set"
    if not data_set.exists():
        runs.write_data_set(data_set)
    overrides = f"steps={options.steps}", f"save.every={options.every}"

    def start(workdir: Path) -> subprocess.Popen:
        watch = "toy" if options.model == "toy" else ""
        return subprocess.Popen(
            runs.command(data_set, workdir, *overrides, watch=watch),
            cwd=runs.REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            env={
                **os.environ, "PYTHONPATH": str(runs.REPOSITORY),
                "JAX_COMPILATION_CACHE_DIR": str(options.work / "programs"),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            },
        )  # fmt: skip

    whole = options.work / "whole"
    began = time.monotonic()
    _finish(start(whole))
    wanted = runs.read(whole)
    print(f"{options.model}, {options.steps} steps, a checkpoint every {options.every}; ", end="")
    print(f"{len(wanted.arrays)} arrays; in one go: {time.monotonic() - began:.0f} s\n")
    deaths, differences, rounds = [], [], 0
    while len(deaths) < options.kills:
        workdir = options.work / f"killed_{rounds}"
        _kill(functools.partial(start, workdir), workdir, options.kills, rng, deaths)
        differences += runs.differences(runs.read(workdir), wanted)
        rounds += 1
        print(f"run {rounds}: {len(deaths)} kills, {len(differences)} differences", file=sys.stderr)
    _report(deaths, rounds, differences)
    sys.exit(bool(differences))


def _finish(process: subprocess.Popen) -> None:
    _, errors = process.communicate()
    if process.returncode:
        sys.exit(f"exit code {process.returncode}:\n{errors}")


def _kill(start, workdir: Path, most: int, rng: random.Random, deaths: list[dict]) -> None:
    """Starts the run until it is at its end; adds to `deaths` until there are `most`."""
    log, first_step = workdir / "logs" / "process_0.log", 60.0
    while True:
        said = len(_lines(log))
        process, began = start(), time.monotonic()
        if len(deaths) >= most:
            _finish(process)
            return
        early = rng.random() < EARLY
        moment = rng.uniform(0, first_step if early else STEPS_SECONDS)
        while process.poll() is None and (early or not _steps(log, said)):
            if early and time.monotonic() - began > moment:
                break
            time.sleep(0.02)
        if not early and process.poll() is None:
            first_step = time.monotonic() - began
            time.sleep(moment)
        sent = rng.choice((signal.SIGKILL, signal.SIGTERM))
        process.send_signal(sent)
        _, errors = process.communicate()
        if process.returncode == 0:
            return
        # SIGTERM before the handler is there ends the process as it ends any.
        if process.returncode not in (Interrupted.code, -sent):
            sys.exit(f"exit code {process.returncode}:\n{errors}")
        # Before it restores, a process has not yet removed what the one before it left.
        moment = _moment(_lines(log)[said:])
        unfinished = sorted(p.name.split(".")[0] for p in workdir.glob("checkpoints/*.orbax-*"))
        deaths.append({
            "signal": sent.name,
            "code": process.returncode,
            "moment": moment,
            "saving": ", ".join(unfinished) if moment.startswith("after") else "",
            "complete": max(
                (int(p.name) for p in workdir.glob("checkpoints/*") if p.name.isdigit()), default=0
            ),
        })  # fmt: skip
        print(f"{len(deaths)} {deaths[-1]}", file=sys.stderr, flush=True)


def _lines(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


def _steps(log: Path, said: int) -> list[str]:
    return [line for line in _lines(log)[said:] if re.search(r":\d\d step \d", line)]


def _moment(lines: list[str]) -> str:
    """What a process was doing by the last thing it said."""
    said = [line[20:] for line in lines]
    steps = [match[1] for line in said if (match := re.match(r"step (\d+) ", line))]
    if steps:
        return f"after step {steps[-1]}"
    if any(line.startswith("compiled") for line in said):
        return "before its first step"
    if any(line.startswith("compiling the") for line in said):
        return "compiling the step"
    if any(line.startswith("drawing") for line in said):
        return "drawing the weights"
    return "starting or restoring"


def _report(deaths: list[dict], rounds: int, differences: list[str]) -> None:
    print("| signal | exit code | moment | unfinished save | newest checkpoint |")
    print("|---|---|---|---|---|")
    for death in deaths:
        print("| {signal} | {code} | {moment} | {saving} | {complete} |".format(**death))
    counts = collections.Counter(death["signal"] for death in deaths)
    kinds = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    early = sum(not death["moment"].startswith("after") for death in deaths)
    saving = sum(bool(death["saving"]) for death in deaths)
    print(
        f"\n{len(deaths)} kills ({kinds}) over {rounds} runs, {early} before a first step, ", end=""
    )
    print(f"{saving} while a save was under way; {len(differences)} differences")
    for difference in differences:
        print(f"- {difference}")


if __name__ == "__main__":
    main()
