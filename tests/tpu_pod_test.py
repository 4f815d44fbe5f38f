"""The script that trains on TPU VMs, launch/tpu_pod.sh, against a stand-in for gcloud."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(
    not shutil.which("git"), reason="the script installs what git holds"
)

# gcloud as far as launch/tpu_pod.sh knows it: machines are one folder, and their states and the
# exit codes of the runs are read from files, a line each time. ssh fails once for each line of
# `deaf`, after half of an answer.
GCLOUD = """#!/usr/bin/env bash
set -euo pipefail
cd "$MACHINE"
echo "$3 $4" >>calls
next() { head -n 1 "$1"; [ "$(wc -l <"$1")" -le 1 ] || sed -i 1d "$1"; }
case "$3 $4" in
    "queued-resources describe") next states ;;
    "queued-resources "*) ;;
    "tpu-vm ssh")
        for argument in "$@"; do
            case $argument in --command=*) command=${argument#--command=} ;; esac
        done
        if [ -s deaf ]; then
            sed -i 1d deaf
            echo NO
            exit 255
        fi
        case $command in
            *"uv venv"*) mkdir -p durian/.venv/bin && cp run durian/.venv/bin/durian ;;
            *) HOME=$MACHINE bash -c "$command" ;;
        esac ;;
    "tpu-vm scp")
        case "$*" in
            *output.log*) [[ "$*" = *--worker=0* ]] && cp durian/output.log "${@: -1}" ;;
        esac ;;
esac
"""


@pytest.fixture
def tpu(tmp_path):
    """A function (states, codes of the runs, failures of ssh) to the finished script, what gcloud
    was asked, and the commands run."""
    machine, programs = tmp_path / "machine", tmp_path / "bin"
    machine.mkdir()
    programs.mkdir()
    (programs / "gcloud").write_text(GCLOUD)
    (programs / "gcloud").chmod(0o755)
    run = """#!/bin/sh
echo "$@" >>../commands
code=$(head -n 1 ../codes)
sed -i 1d ../codes
[ "$code" != replaced ] || rm -r ../durian
# Nobody has this number: where nobody reaps orphans, that of the killed would stay taken.
[ "$code" != rebooted ] || { echo 4194305 >pid; kill -KILL "$PPID"; }
exit $code
"""
    (machine / "run").write_text(run)
    (machine / "run").chmod(0o755)
    # The run starts later than the script looks for it first.
    slow = f'#!/bin/sh\nsleep 0.5\nexec {shutil.which("setsid")} "$@"\n'
    (programs / "setsid").write_text(slow)
    (programs / "setsid").chmod(0o755)

    def train(states, codes, deaf=0):
        (machine / "states").write_text("".join(f"{state}\n" for state in states))
        (machine / "codes").write_text("".join(f"{code}\n" for code in codes))
        (machine / "deaf").write_text("once\n" * deaf)
        (machine / "commands").touch()
        environment = os.environ | {
            "MACHINE": str(machine), "TPU": "pod", "ZONE": "z", "POLL": "0.1",
            "LOGS": str(tmp_path / "logs"),
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        }  # fmt: skip
        done = subprocess.run(
            [REPOSITORY / "launch" / "tpu_pod.sh", "durian", "train", "--x=it's two words"],
            env=environment, text=True, capture_output=True, timeout=120,
        )  # fmt: skip
        commands = (machine / "commands").read_text().splitlines()
        return done, (machine / "calls").read_text().splitlines(), commands

    return train


def test_a_tpu_run_goes_on_until_it_ends(tpu, tmp_path):
    # Not there, waiting, there; interrupted and saved; then bad input.
    states = ["WAITING_FOR_RESOURCES", "ACTIVE"]
    done, calls, commands = tpu(states, [75, 2])
    assert done.returncode == 2, done.stderr
    assert commands == ["train --x=it's two words"] * 2
    assert "waiting for the machines (WAITING_FOR_RESOURCES)" in done.stdout
    assert "interrupted and saved: once more" in done.stdout
    assert (tmp_path / "logs" / "output_0.log").exists()
    assert "queued-resources delete" not in calls


def test_tpu_machines_that_are_gone_are_asked_for_anew(tpu):
    done, calls, commands = tpu(["SUSPENDED", "MISSING", "PROVISIONING", "ACTIVE"], [0])
    assert done.returncode == 0, done.stderr
    asked = [call for call in calls if call.split()[1] in ("create", "delete")]
    assert asked == ["queued-resources delete", "queued-resources create"]
    assert len(commands) == 1


def test_a_tpu_run_goes_on_when_other_machines_took_the_place_of_its_own_unseen(tpu):
    done, _, commands = tpu(["ACTIVE"], ["replaced", 3])
    assert done.returncode == 3, done.stderr
    assert "the machines were taken away or rebooted: once more" in done.stdout
    assert len(commands) == 2


def test_a_tpu_run_goes_on_when_its_machines_were_rebooted(tpu):
    done, _, commands = tpu(["ACTIVE"], ["rebooted", 3])
    assert done.returncode == 3, done.stderr
    assert "the machines were taken away or rebooted: once more" in done.stdout
    assert len(commands) == 2


@pytest.fixture
def live_run(tpu, tmp_path):
    """A run that an earlier start of the script left; it ends with code 7, a few looks later."""
    folder = tmp_path / "machine" / "durian"
    folder.mkdir()
    (folder / "output.log").write_text("step 3\n")
    (tmp_path / "machine" / "calls").touch()
    code = 'until [ "$(grep -c ssh ../calls)" -ge 8 ]; do sleep 0.1; done; echo 7 >exit_code'
    run = subprocess.Popen(["sh", "-c", code], cwd=folder)
    (folder / "pid").write_text(f"{run.pid}\n")
    yield
    run.kill()
    run.wait()


@pytest.mark.parametrize("deaf", [0, 3])
def test_a_tpu_run_that_goes_on_is_followed_though_ssh_fails_at_first(tpu, live_run, deaf):
    done, calls, commands = tpu(["ACTIVE"], [0], deaf)
    assert done.returncode == 7, done.stderr
    # Nothing is installed under it: the log of the first machine is copied, and of no second.
    assert commands == [] and calls.count("tpu-vm scp") == 2


def test_a_tpu_run_out_of_reach_is_left_alone(tpu, live_run):
    done, calls, commands = tpu(["ACTIVE"], [0], deaf=1000)
    assert done.returncode == 1 and commands == []
    assert "pod is ACTIVE but its first machine does not answer: see why ssh fails" in done.stderr
    assert calls.count("tpu-vm ssh") == 10 and "tpu-vm scp" not in calls
