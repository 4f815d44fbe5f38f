"""The scripts that start a run in several processes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from launch import xla_flags

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


def test_each_animation_of_the_demo_hides_what_its_own_example_says(tmp_path):
    """The mask of the hair example, in the glasses animation, showed her bald."""
    for name in ("durian", "python"):
        fake = tmp_path / name
        fake.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/asked\n')
        fake.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    script = REPOSITORY / "launch" / "demo.sh"
    subprocess.run([script, tmp_path / "run"], cwd=REPOSITORY, env=environment, check=True)
    examples = REPOSITORY / "durian_jax" / "examples"
    cases = json.loads((examples / "cases.json").read_text())["cases"]
    example = {
        frozenset(attribute["kind"] for attribute in case["attributes"]): case["id"]
        for case in cases
        if "interpolation" not in case["group"]
    }
    animations = [line for line in (tmp_path / "asked").read_text().splitlines()
                  if line.startswith("animate ")]  # fmt: skip
    assert len(animations) == 3
    for line in animations:
        kinds = frozenset(re.findall(r"--attribute \S+?:(\w+):", line))
        assert f"/{example[kinds]}/portrait_mask.png" in line


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_has_nothing_to_say(path):
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([shellcheck, path], text=True, capture_output=True)
    assert done.returncode == 0, done.stdout


def test_processes_meet_and_only_the_first_is_heard():
    done = _all(
        "from durian_jax.distributed import processes\n"
        "processes.initialize()\n"
        "import jax\n"
        "from jax.experimental import multihost_utils\n"
        "numbers = multihost_utils.process_allgather(jax.numpy.int32(i))\n"
        "print(numbers.tolist(), jax.device_count())\n"
        "print(f'grumble {i}', file=sys.stderr)\n"
        "processes.shutdown(0)\n"
    )
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if "Gloo" not in line] == ["[0, 1] 2"]
    lines = done.stderr.splitlines()
    assert "grumble 0" in lines and "[1] grumble 1" in lines


def test_a_process_that_fails_alone_keeps_its_code_and_words():
    done = _all(
        "from durian_jax.distributed import processes\n"
        "processes.FAIL_SECONDS = 1.0\n"
        "processes.initialize()\n"
        "try:\n"
        "    if i == 1: raise OSError('disk full')\n"
        "    time.sleep(3)\n"
        "finally:\n"
        "    processes.shutdown(1)\n"
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
        # A shell in the background ignores SIGINT, its children with it, and cannot trap it then.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
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


def _job_set():
    (document,) = yaml.safe_load_all((REPOSITORY / "launch" / "gke.yaml").read_text())
    return document


def test_the_job_set_has_a_pod_for_each_machine():
    job_set = _job_set()
    assert (job_set["apiVersion"], job_set["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (workers,) = job_set["spec"]["replicatedJobs"]
    job = workers["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    rows, columns = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")
    chips = container["resources"]["limits"]["google.com/tpu"]
    assert job["completions"] == job["parallelism"] == int(rows) * int(columns) // chips
    assert job["completionMode"] == "Indexed"
    names = {entry["name"] for entry in container["env"]}
    # jax asks GKE who is who; a coordinator named here as well would contradict it.
    assert names == {"JAX_COMPILATION_CACHE_DIR"}
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    command = container["command"][-1]
    # The state of full size does not fit on a chip: the slice shares one.
    assert "durian train" in command and f"--config.mesh.fsdp={int(rows) * int(columns)}" in command


def test_the_job_set_restarts_after_interruptions_without_limit():
    spec = _job_set()["spec"]
    job = spec["replicatedJobs"][0]["template"]["spec"]
    rules = job["podFailurePolicy"]["rules"]
    assert [rule["action"] for rule in rules] == ["FailJob"] * 2
    assert rules[0]["onExitCodes"] == {
        "containerName": job["template"]["spec"]["containers"][0]["name"],
        "operator": "In", "values": [75],
    }  # fmt: skip
    assert rules[1]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    # Kubernetes takes pod failure policies with this alone.
    assert job["template"]["spec"]["restartPolicy"] == "Never" and job["backoffLimit"] == 0
    (rule,) = spec["failurePolicy"]["rules"]
    assert rule["action"] == "RestartJobSetAndIgnoreMaxRestarts"
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    assert spec["failurePolicy"]["maxRestarts"] > 0


# durian as far as launch/in_turns.sh knows it. `train` does as `act` says, and `convert` fails
# where there is a file `fail`; both write down what they were asked.
DURIAN = """#!/bin/bash
echo "$@" >>asked
case $1 in
    train) source ./act ;;
    convert)
        out=${@: -1}
        [ ! -e "$out" ] && mkdir "$out" && echo new >"$out/weights" && [ ! -e fail ] ;;
esac
"""


SAVE = "mkdir -p run/checkpoints/4;"


@pytest.fixture
def in_turns(tmp_path):
    """A function (what `train` does) to the code of launch/in_turns.sh and the weights it leaves,
    where there are some of a call before."""
    programs, out = tmp_path / "bin", tmp_path / "out"
    programs.mkdir()
    (programs / "durian").write_text(DURIAN)
    (programs / "durian").chmod(0o755)
    out.mkdir()
    (out / "weights").write_text("old\n")

    def call(act):
        (tmp_path / "act").write_text(act)
        environment = os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(
            [REPOSITORY / "launch" / "in_turns.sh", "1", "run", "out/", "--config", "x.py"],
            cwd=tmp_path, env=environment, text=True, capture_output=True, timeout=60,
        )  # fmt: skip
        return done.returncode, (out / "weights").read_text().strip()

    return call


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        ("true", (0, "new")),
        (f"{SAVE} trap 'exit 75' TERM; while true; do sleep 0.1; done", (0, "new")),
        # Before the handler is there.
        (f"{SAVE} exec sleep 30", (0, "new")),
        # A first turn that ends before anything is there to save.
        ("trap 'exit 75' TERM; while true; do sleep 0.1; done", (75, "old")),
        ("exec sleep 30", (143, "old")),
        ("exit 2", (2, "old")),
        # Its time was over, but then it could not save.
        ("trap 'exit 1' TERM; while true; do sleep 0.1; done", (1, "old")),
    ],
)
def test_a_turn_leaves_new_weights_unless_training_fails(in_turns, tmp_path, act, expected):
    assert in_turns(act) == expected
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked[0] == "train --workdir run --config x.py"
    convert = "convert --to safetensors --half --checkpoint run --out out.new"
    assert asked[1:] == [convert] * (expected == (0, "new"))


def test_a_turn_that_cannot_write_weights_keeps_the_old_and_the_next_goes_on(in_turns, tmp_path):
    (tmp_path / "fail").touch()
    assert in_turns("true") == (1, "old")
    (tmp_path / "fail").unlink()
    assert in_turns("true") == (0, "new")
    assert not (tmp_path / "out.new").exists()


def _slurm(tmp_path, code, arguments=("durian", "train")):
    """Runs launch/slurm.sbatch as Slurm would on a node of two GPUs; what srun and scontrol saw."""
    saw = '"$JAX_LOCAL_DEVICE_IDS cpus=$SRUN_CPUS_PER_TASK srun $*"'
    for name, body in (("srun", f"echo {saw}; exit {code}"),
                       ("scontrol", 'echo "scontrol $*"')):  # fmt: skip
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "SLURM_GPUS_ON_NODE": "2", "SLURM_CPUS_PER_TASK": "64", "SLURM_JOB_ID": "7",
    }  # fmt: skip
    return subprocess.run(
        ["bash", REPOSITORY / "launch" / "slurm.sbatch", *arguments],
        env=environment, text=True, capture_output=True,
    )  # fmt: skip


def test_slurm_puts_an_interrupted_job_back(tmp_path):
    done = _slurm(tmp_path, 75)
    assert done.returncode == 75
    first, _, last = done.stdout.splitlines()
    assert (first, last) == ("0,1 cpus=64 srun --wait=60 durian train", "scontrol requeue 7")


@pytest.mark.parametrize("code", [0, 1, 2, 70])
def test_slurm_leaves_a_job_that_ended(tmp_path, code):
    done = _slurm(tmp_path, code)
    assert done.returncode == code and "requeue" not in done.stdout


def test_the_image_installs_extras_that_there_are():
    text = (REPOSITORY / "launch" / "Dockerfile").read_text()
    extras = set(re.findall(r"^ {8}(.+)\) extras=", text, re.M))
    assert extras == {"none", "cuda13 | cuda12 | tpu"}
    setup = (REPOSITORY / "setup.py").read_text()
    for extra in ("cuda13", "cuda12", "tpu", "stores"):
        assert f'"{extra}": [' in setup
    for line in re.findall(r"^COPY (.+) \S+$", text, re.M):
        for name in line.split():
            assert (REPOSITORY / name).exists(), name
    assert re.search(r"^ARG PYTHON=3\.(1[1-9])$", text, re.M)


@pytest.mark.parametrize("chip", xla_flags.CHIPS)
def test_every_flag_says_why(chip):
    for flag in xla_flags.CHIPS[chip]:
        assert flag.name.startswith("xla_") and flag.reason and flag.source
    done = subprocess.run(
        [sys.executable, "-m", "launch.xla_flags", chip],
        cwd=REPOSITORY, text=True, capture_output=True,
    )  # fmt: skip
    name = xla_flags.variable(chip)
    told = subprocess.run(
        ["sh", "-c", f'{name}=--before; {done.stdout}printf %s "${name}"'],
        text=True, capture_output=True,
    )  # fmt: skip
    flags = " ".join(map(str, xla_flags.CHIPS[chip]))
    assert told.stdout == f"--before {flags}"


def test_an_unknown_chip_has_no_flags():
    done = subprocess.run(
        [sys.executable, "-m", "launch.xla_flags", "a100"],
        cwd=REPOSITORY, text=True, capture_output=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "xla_flags: a100: choose from v5e, v5p, v6e, h100, h200, cpu\n"


def _starts(code, **variables):
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"JAX_PLATFORMS": "cpu"} | variables, text=True, capture_output=True,
    )  # fmt: skip
    return done.returncode == 0, done.stderr


def test_xla_knows_the_flags_of_gpus_and_cpus():
    code = "import jax; jax.devices()"
    known = {str(flag) for chip in ("h100", "h200", "cpu") for flag in xla_flags.CHIPS[chip]}
    started, error = _starts(code, XLA_FLAGS=" ".join(sorted(known)))
    assert started, error
    started, error = _starts(code, XLA_FLAGS="--xla_gpu_no_such_flag=true")
    assert not started and "Unknown flag" in error


def test_libtpu_knows_the_flags_of_tpus():
    pytest.importorskip("libtpu", reason="comes with the extra tpu")
    code = (
        "from jax.experimental import topologies\n"
        "topologies.get_topology_desc(platform='tpu', topology_name='v5e:2x2')\n"
    )
    quiet = {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    for chip in ("v5e", "v5p", "v6e"):
        flags = " ".join(map(str, xla_flags.CHIPS[chip]))
        started, error = _starts(code, LIBTPU_INIT_ARGS=flags, **quiet)
        assert started, error
    started, error = _starts(code, LIBTPU_INIT_ARGS="--xla_tpu_no_such_flag=true", **quiet)
    assert not started and "Unknown command line flag" in error
