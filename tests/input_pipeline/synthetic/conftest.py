"""A small synthetic data set with cases, shared by the tests of this folder."""

import pytest

from input_pipeline.synthetic import dataset, population


@pytest.fixture(scope="session")
def settings():
    return population.Settings(people=3, clips=1, frames=3, size=64, seed=5)


@pytest.fixture(scope="session")
def small_set(settings, tmp_path_factory):
    """Folder of a data set of three people and four cases."""
    out = tmp_path_factory.mktemp("synthetic") / "small"
    dataset.synth(out, settings, cases=4)
    return out
