import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from durian_jax.training import loop
from durian_jax.weights import loading
from durian_jax.weights.trees import merge
from input_pipeline.errors import InputError


def test_stage_two_moves_motion_modules_and_nothing_else(stage1_run, stage2_run):
    # Invariant (f) of the method, seen on the trained weights.
    before = flatten_dict(merge(stage1_run[1].frozen, stage1_run[1].ema), sep="/")
    state = stage2_run[1]
    after = flatten_dict(merge(state.frozen, state.trained), sep="/")
    fresh = after.keys() - before.keys()
    assert fresh and all("/motion_modules_" in name for name in fresh)
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value, err_msg=name)
    moved = flatten_dict(state.trained, sep="/")
    assert set(moved) == fresh
    assert all(
        np.asarray(leaf).any() for name, leaf in moved.items() if name.endswith("proj_out/kernel")
    )


def test_optimizer_holds_no_state_of_frozen_parameters(stage2_run):
    state = stage2_run[1]
    size = sum(leaf.size for leaf in jax.tree.leaves(state.trained))
    moments = sum(leaf.size for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim)
    assert moments == 2 * size


def test_checkpoint_gives_averaged_or_raw_weights(stage1_run):
    workdir, state = stage1_run
    for ema, trained in ((True, state.ema), (False, state.trained)):
        params, meta = loading.load(workdir, ema=ema)
        wanted = flatten_dict(merge(state.frozen, trained), sep="/")
        found = flatten_dict(params, sep="/")
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)
    assert meta["config"]["model"]["resolution"] == 32


def test_a_finished_run_is_left_as_it_is(stage1_run, config_of, capsys):
    config = config_of("stage1", steps=400)
    state = loop.train(config, stage1_run[0])
    assert int(state.step) == 400
    assert "nothing to do: 400 of 400" in capsys.readouterr().out


def test_a_run_of_another_config_is_refused_by_name(stage1_run, config_of):
    config = config_of("stage1", steps=500)
    config.optimizer.learning_rate = 0.5
    with pytest.raises(InputError, match=r"learning_rate: saved 0\.002, now 0\.5"):
        loop.train(config, stage1_run[0])


def test_weights_of_another_shape_are_refused_by_name(stage1_run, config_of, tmp_path):
    config = config_of("stage2", init_from=str(stage1_run[0]))
    config.model.channels = (48,)
    with pytest.raises(InputError, match=r"_encoder/.* does not fit, the model has"):
        loop.train(config, tmp_path)


def test_starting_from_no_run_is_refused(config_of, tmp_path):
    config = config_of("stage2", init_from=str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="no checkpoint here"):
        loop.train(config, tmp_path / "run")
