"""`durian batch` on one device, on eight, and in two processes: the same videos."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from input_pipeline.media import video

REPOSITORY = Path(__file__).parents[2]
# Encoding would make much of a last bit.
LOSSLESS = """
import functools, sys
from input_pipeline.media import video
video.VideoWriter = functools.partial(video.VideoWriter, lossless=True)
from durian_jax.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """Environment of the processes: they share what they compile."""
    return {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "PYTHON": sys.executable,
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("programs")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


@pytest.fixture(scope="module")
def run(portrait_picture, talking_head, random_weights, programs, tmp_path_factory):
    """A function of a folder to what `durian batch` says of five jobs: one has no driver, and a
    folder is in the way of another."""
    jobs = tmp_path_factory.mktemp("jobs")
    for name, phase in (("a", 0.0), ("b", 2.0)):
        video.write_video(jobs / f"{name}.mp4", talking_head(phase=phase, count=5), 25)
    (jobs / "me.png").symlink_to(portrait_picture)
    (jobs / "jobs.csv").write_text(
        "name,portrait,attributes,driving,seed\n"
        "one,me.png,a.mp4:hair,a.mp4,1\n"
        "gone,me.png,b.mp4:hair,nobody.mp4,2\n"
        "blocked,me.png,a.mp4:hair,a.mp4,2\n"
        "two,me.png,b.mp4:hair,a.mp4,2\n"
        "three,me.png,a.mp4:hair,b.mp4,3\n"
    )
    command = [sys.executable, "-c", LOSSLESS, "batch", jobs / "jobs.csv"]

    def batch(out, *options, processes=1, devices=1):
        (out / "blocked_grid.mp4").mkdir(exist_ok=True)
        if processes == 1:
            devices_flag = f" --xla_force_host_platform_device_count={devices}"
            launch, flags = [], programs["XLA_FLAGS"] + devices_flag
        else:
            launch = ["launch/local.sh", "-n", processes, "--devices", devices, "--"]
            flags = programs["XLA_FLAGS"]
        words = [*launch, *command, "--out", out, "--checkpoint", random_weights, *options]
        return subprocess.run(
            [str(word) for word in words],
            cwd=REPOSITORY, env=programs | {"XLA_FLAGS": flags}, capture_output=True, text=True,
            timeout=600,
        )  # fmt: skip

    return batch


@pytest.fixture(scope="module")
def alone(run, tmp_path_factory):
    """Folder and words of a batch on one device."""
    out = tmp_path_factory.mktemp("alone")
    return out, run(out)


def _frames(path):
    return np.int32(list(video.read_frames(path)))


def _lines(folder):
    with open(folder / "report.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    return [(x["name"], x["status"], x["error"].replace(str(folder), "")) for x in lines]


def _assert_the_same(out, other):
    names = sorted(path.name for path in out.iterdir())
    assert names == sorted(path.name for path in other.iterdir())
    for name in names:
        if name.endswith(".mp4") and name != "blocked_grid.mp4":
            assert np.abs(_frames(out / name) - _frames(other / name)).max() <= 1, name
    assert _lines(out) == _lines(other)


def test_good_rows_are_made_and_bad_ones_are_named(alone):
    out, done = alone
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"durian batch: 2 of 5 rows failed: {out}/report.csv lists them: gone (")
    assert "nobody.mp4: no such file; check the path); blocked (" in last
    assert "blocked_grid.mp4: cannot be written (is a folder)" in last
    videos = [f"{name}{end}" for name in ("one", "two", "three") for end in (".mp4", "_grid.mp4")]
    settings = [f"{name}.json" for name in ("one", "two", "three")]
    assert {path.name for path in out.iterdir()} == {
        *videos, *settings, "report.csv", "blocked_grid.mp4"
    }  # fmt: skip
    assert _frames(out / "one.mp4").shape == (5, 32, 32, 3)
    assert np.abs(_frames(out / "one.mp4") - _frames(out / "two.mp4")).mean() > 2


def test_eight_devices_make_the_videos_of_one(alone, run, tmp_path):
    done = run(tmp_path, devices=8)
    assert done.returncode == 2, done.stderr
    _assert_the_same(tmp_path, alone[0])


def test_two_processes_share_the_rows_and_skip_what_is_done(alone, run, tmp_path):
    done = run(tmp_path, processes=2)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("2 of 5 rows failed") == 1
    _assert_the_same(tmp_path, alone[0])
    again = run(tmp_path, "--skip-done", processes=2)
    assert again.returncode == 2, again.stderr
    statuses = {name: status for name, status, _ in _lines(tmp_path)}
    assert statuses == {
        "one": "skipped", "gone": "failed", "blocked": "failed", "two": "skipped",
        "three": "skipped",
    }  # fmt: skip
