"""X-Portrait's stages, in the smallest size there is, one on top of the other."""

import numpy as np
import pytest

from configs import x_portrait_tiny
from durian_jax.training import loop
from durian_jax.weights import loading
from tests.convert.other_weights import leaves


def _config(stage, dataset, **changes):
    config = x_portrait_tiny.get_config(stage)
    config.model.update(
        resolution=32, patch=8, channels=(16,), attention_levels=(0,), heads=2, norm_groups=4,
        temporal_heads=2, control_channels=(4, 4, 4, 4),
    )  # fmt: skip
    config.data.path, config.steps, config.batch_size = str(dataset), 4, 2
    config.optimizer.warmup_steps, config.sample.every, config.validation.batches = 1, 4, 1
    config.sample.update(steps=2, clips=2)
    config.update(changes)
    return config


@pytest.fixture(scope="module")
def second(prepared_dataset, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("second")
    loop.train(_config("stage2", prepared_dataset), workdir)
    return workdir


def test_motion_modules_are_trained_on_top_of_the_rest(second, prepared_dataset, tmp_path):
    config = _config("stage3", prepared_dataset, init_from=str(second))
    config.data.frames = 3
    loop.train(config, tmp_path)
    before, after = leaves(loading.load(second)[0]), leaves(loading.load(tmp_path)[0])
    moving = {name for name in after if "motion_modules" in name}
    assert moving and after.keys() - moving == before.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)
    assert any(np.abs(after[name]).max() > 0 for name in moving if "proj_out" in name)
    assert list((tmp_path / "samples").glob("*.png"))
