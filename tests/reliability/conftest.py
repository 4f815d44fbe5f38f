"""One data set, one unbroken run of the toy, and one place for compiled programs."""

import pytest

from durian_jax.training import loop
from tests.reliability import runs, smallest, toy


@pytest.fixture(scope="session", autouse=True)
def compiled_programs(tmp_path_factory):
    """Processes of this folder's tests share what they compile, small programs too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.mktemp("programs")))
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        yield


@pytest.fixture(scope="session")
def data_set(tmp_path_factory):
    """Path of a data set of 12 records: an epoch is 3 batches."""
    return runs.write_data_set(tmp_path_factory.mktemp("data_set"))


@pytest.fixture(scope="session")
def unbroken(data_set, tmp_path_factory):
    """Work directory of 24 steps of the toy in one go."""
    workdir = tmp_path_factory.mktemp("unbroken")
    done = runs.run(data_set, workdir)
    assert done.returncode == 0, done.stderr
    return workdir


@pytest.fixture
def train_toy(data_set):
    """A function of (workdir, **top-level changes) that trains the toy in this process."""
    toy.install()

    def run(workdir, **changes):
        config = smallest.get_config()
        config.data.path = str(data_set)
        config.update(changes)
        return loop.train(config, workdir)

    return run
