"""The scripts that start a run in several processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
SCRIPTS = sorted(
    path for path in (REPOSITORY / "launch").iterdir() if path.suffix in (".sh", ".sbatch")
)


def _environment():
    """That of this process, its Python in front of any other."""
    folder = str(Path(sys.executable).parent)
    return os.environ | {
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
    }


def _local(*arguments, **options):
    return subprocess.run(
        [REPOSITORY / "launch" / "local.sh", *map(str, arguments)],
        cwd=REPOSITORY, env=_environment(), text=True, capture_output=True, timeout=900, **options,
    )  # fmt: skip


def _all(code, count=2):
    """Runs Python code in processes that know their number as `i`."""
    head = "import os, signal, sys, time; i = int(os.environ['JAX_PROCESS_ID'])\n"
    return _local("-n", count, "--", sys.executable, "-c", head + code)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_has_nothing_to_say(path):
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([shellcheck, path], text=True, capture_output=True)
    assert done.returncode == 0, done.stdout


def test_processes_meet_and_only_the_first_is_heard():
    done = _all(
        "from durian_jax import processes\n"
        "processes.initialize()\n"
        "import jax\n"
        "from jax.experimental import multihost_utils\n"
        "numbers = multihost_utils.process_allgather(jax.numpy.int32(i))\n"
        "print(numbers.tolist(), jax.device_count())\n"
        "print(f'grumble {i}', file=sys.stderr)\n"
        "processes.part(0)\n"
    )
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if "Gloo" not in line] == ["[0, 1] 2"]
    lines = done.stderr.splitlines()
    assert "grumble 0" in lines and "[1] grumble 1" in lines


def test_a_process_that_fails_alone_keeps_its_code_and_words():
    done = _all(
        "from durian_jax import processes\n"
        "processes.FAIL_SECONDS = 1.0\n"
        "processes.initialize()\n"
        "try:\n"
        "    if i == 1: raise OSError('disk full')\n"
        "    time.sleep(3)\n"
        "finally:\n"
        "    processes.part(1)\n"
    )
    assert done.returncode == 1
    assert "[1] OSError: disk full" in done.stderr.splitlines()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("sys.exit(0)", 0),
        ("sys.exit(75)", 75),
        ("time.sleep(i); sys.exit(3 + i)", 3),
        ("i == 1 and os.kill(os.getpid(), signal.SIGKILL); time.sleep(2); sys.exit(5)", 137),
    ],
)
def test_the_first_failure_is_the_exit_code(code, expected):
    assert _all(code).returncode == expected


def test_when_one_dies_the_others_are_stopped_with_their_workers():
    start = time.monotonic()
    done = _all(
        "import subprocess\n"
        "if i == 1: sys.exit(9)\n"
        "subprocess.Popen(['sleep', '300'])\n"
        "time.sleep(300)\n"
    )
    # As long as the worker lived it would hold this end of the pipe open.
    assert done.returncode == 9 and time.monotonic() - start < 60


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_every_process(sent, tmp_path):
    code = (
        "import os, pathlib, signal, sys, time\n"
        "def stop(number, _):\n"
        "    pathlib.Path(sys.argv[1], os.environ['JAX_PROCESS_ID']).write_text(str(number))\n"
        "    sys.exit(75)\n"
        "signal.signal(signal.SIGTERM, stop); signal.signal(signal.SIGINT, stop)\n"
        "pathlib.Path(sys.argv[1], 'ready' + os.environ['JAX_PROCESS_ID']).touch()\n"
        "time.sleep(60)\n"
    )
    launcher = subprocess.Popen(
        [REPOSITORY / "launch" / "local.sh", "-n", "2", "--",
         sys.executable, "-c", code, tmp_path],
        env=_environment(),
    )  # fmt: skip
    while not all((tmp_path / f"ready{i}").exists() for i in range(2)):
        time.sleep(0.05)
        assert launcher.poll() is None
    launcher.send_signal(sent)
    assert launcher.wait(60) == 75
    assert [(tmp_path / str(i)).read_text() for i in range(2)] == [str(int(sent))] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "-n '': give a number of processes"),
        (["-n", "two", "--", "true"], "-n 'two': give a number of processes"),
        (["-n", "2", "--devices", "0", "--", "true"], "--devices '0': give a number of devices"),
        (["-n", "2", "--"], "no command: write it after --"),
        (["--gpus", "2"], "unknown option --gpus: see the head of this file"),
    ],
)
def test_wrong_options_are_refused(arguments, message):
    done = _local(*arguments)
    assert (done.returncode, done.stderr) == (2, f"launch/local.sh: {message}\n")
