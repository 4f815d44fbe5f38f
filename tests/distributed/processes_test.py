"""How the processes of a run find each other, and what they say when they do not."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from durian_jax.distributed import processes
from input_pipeline.errors import InputError

REPOSITORY = Path(__file__).parents[2]
WHOLE = {
    "JAX_COORDINATOR_ADDRESS": "localhost:9999",
    "JAX_NUM_PROCESSES": "2",
    "JAX_PROCESS_ID": "1",
}


@pytest.fixture
def environment(monkeypatch):
    """A function that leaves only these of the variables that name the processes of a run."""

    def set_only(variables):
        for name in list(os.environ):
            if name.startswith(("SLURM_", "OMPI_", "KUBERNETES_")) or name in WHOLE:
                monkeypatch.delenv(name)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_only


@pytest.mark.parametrize("missing", WHOLE)
def test_a_half_set_environment_is_refused_by_name(missing, environment):
    environment({name: value for name, value in WHOLE.items() if name != missing})
    with pytest.raises(InputError, match=rf"^{missing} is missing beside JAX_\w+ and JAX_\w+: set"):
        processes.initialize()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"JAX_PROCESS_ID": "2"}, r"JAX_PROCESS_ID is 2, JAX_NUM_PROCESSES 2: number them 0 to 1"),
        ({"JAX_PROCESS_ID": "-1"}, r"JAX_PROCESS_ID is '-1': write a whole number"),
        ({"JAX_NUM_PROCESSES": "two"}, r"JAX_NUM_PROCESSES is 'two': write a whole number"),
        ({"JAX_COORDINATOR_ADDRESS": "head"}, r"JAX_COORDINATOR_ADDRESS is 'head': .* HOST:PORT"),
        ({"DURIAN_JOIN_TIMEOUT": "soon"}, r"DURIAN_JOIN_TIMEOUT is 'soon': write seconds"),
    ],
)
def test_a_wrong_environment_is_refused_by_name(changes, message, environment):
    environment(WHOLE | changes)
    with pytest.raises(InputError, match=message):
        processes.initialize()


def test_a_process_that_uses_devices_already_works_alone(environment):
    environment({})
    jax.device_count()
    processes.initialize()
    assert not jax.distributed.is_initialized()
    environment(WHOLE)
    with pytest.raises(InputError, match="must be called before"):
        processes.initialize()


def test_one_machine_needs_no_environment():
    # In a process of its own: pytest's has used devices, and jax can be told of others no more.
    code = (
        "from durian_jax.distributed import processes\n"
        "processes.initialize()\n"
        "import jax\n"
        "assert jax.process_count() == 1 and not jax.distributed.is_initialized()\n"
        "processes.shutdown(0)\n"
    )
    alone = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SLURM_", "OMPI_", "KUBERNETES_")) and name not in WHOLE
    }
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=alone, text=True, capture_output=True
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("index", [0, 1])
def test_a_peer_that_does_not_come_ends_the_wait_with_one_line(index):
    environment = os.environ | WHOLE | {"JAX_PROCESS_ID": str(index), "DURIAN_JOIN_TIMEOUT": "1"}
    code = "from durian_jax.distributed import processes; processes.initialize()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY, env=environment, text=True, capture_output=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 70
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"durian: process {index} of 2 waited 1 s for the others at localhost")
    assert "Traceback" not in done.stderr
