import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from durian_jax.training import state as train_state
from durian_jax.weights import trees
from input_pipeline.errors import InputError

PARAMS = {
    "denoiser": {
        "conv_in": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
        "down_blocks_0": {"motion_modules_0": {"kernel": jnp.full((2, 3), 2.0)}},
    },
    "autoencoder": {"kernel": jnp.full((2, 2), 3.0)},
}


def test_patterns_divide_the_parameters():
    trained, frozen = train_state.partition(PARAMS, ("denoiser/",), (".*/motion_modules_",))
    assert trained == {"denoiser": {"conv_in": PARAMS["denoiser"]["conv_in"]}}
    assert set(frozen) == {"denoiser", "autoencoder"}
    assert jax.tree.structure(trees.merge(trained, frozen)) == jax.tree.structure(PARAMS)


@pytest.mark.parametrize("trainable,frozen", [(("denoyser/",), ()), (("denoiser/",), ("clip/",))])
def test_a_pattern_that_matches_nothing_is_refused(trainable, frozen):
    with pytest.raises(ValueError, match="matches no parameter: the top levels are autoencoder"):
        train_state.partition(PARAMS, trainable, frozen)


def test_freezing_everything_is_refused():
    with pytest.raises(ValueError, match="no parameter trains"):
        train_state.partition(PARAMS, ("denoiser/",), ("denoiser/",))


def test_later_trees_win_a_merge():
    merged = trees.merge(PARAMS, {"autoencoder": {"kernel": jnp.zeros((2, 2))}})
    assert not merged["autoencoder"]["kernel"].any()
    assert (merged["denoiser"]["conv_in"]["kernel"] == 1).all()


def test_gradients_move_the_trained_and_spare_the_frozen():
    optimizer = optax.sgd(0.5)
    state = train_state.init_state(PARAMS, ("denoiser/",), (".*/motion_modules_",), optimizer)
    grads = jax.tree.map(jnp.ones_like, state.trained)
    moved = train_state.apply_gradients(state, grads, optimizer, 0.9, finite=True)
    assert int(moved.step) == 1
    np.testing.assert_allclose(moved.trained["denoiser"]["conv_in"]["kernel"], 0.5)
    assert moved.frozen is state.frozen


def test_a_step_that_is_not_finite_is_counted_and_changes_nothing_else():
    optimizer = optax.adam(0.1)
    state = train_state.init_state(PARAMS, ("denoiser/",), (), optimizer)
    good = jax.tree.map(jnp.ones_like, state.trained)
    bad = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), state.trained)
    step = jax.jit(
        lambda state, grads: train_state.apply_gradients(
            state, grads, optimizer, 0.9, jnp.isfinite(optax.tree.norm(grads))
        )
    )
    moved = step(state, good)
    after, seen = moved, []
    for _ in range(2):
        after = step(after, bad)
        seen.append(after.skipped.tolist())
    assert seen == [[1, 1], [2, 2]]
    assert int(after.step) == 3
    for name in ("trained", "opt_state", "ema", "frozen"):
        jax.tree.map(np.testing.assert_array_equal, getattr(after, name), getattr(moved, name))
    assert step(after, good).skipped.tolist() == [2, 0]


def test_average_warms_up_and_then_decays_as_told():
    optimizer = optax.sgd(1.0)
    state = train_state.init_state(PARAMS, ("autoencoder/",), (), optimizer)
    grads = jax.tree.map(jnp.ones_like, state.trained)
    first = train_state.apply_gradients(state, grads, optimizer, 0.9, finite=True)
    # Decay 1 / 10 at step 0: 0.1 * 3 + 0.9 * 2.
    np.testing.assert_allclose(first.ema["autoencoder"]["kernel"], 2.1, rtol=1e-6)
    late = train_state.apply_gradients(
        state.replace(step=jnp.int32(10_000)), grads, optimizer, 0.9, finite=True
    )
    np.testing.assert_allclose(late.ema["autoencoder"]["kernel"], 0.9 * 3 + 0.1 * 2, rtol=1e-6)


def test_optimizer_clips_the_norm_and_decays_matrices_only():
    optimizer = train_state.make_optimizer(
        10, learning_rate=0.1, warmup_steps=0, weight_decay=0.5, clip_norm=1.0
    )
    params = PARAMS["denoiser"]["conv_in"]
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zero, optimizer.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.1 * 0.5, rtol=1e-6)
    np.testing.assert_allclose(updates["bias"], 0)
    clipped, _ = optax.clip_by_global_norm(1.0).update(params, optax.EmptyState())
    huge = jax.tree.map(lambda leaf: 1e6 * leaf, clipped)
    _, after_huge = optimizer.update(huge, optimizer.init(params), params)
    _, after_clipped = optimizer.update(clipped, optimizer.init(params), params)
    for a, b in zip(jax.tree.leaves(after_huge), jax.tree.leaves(after_clipped)):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_norm_is_taken_over_all_leaves():
    grads = {"a": jnp.arange(6.0).reshape(2, 3), "b": {"c": jnp.float32(-2), "d": jnp.ones(4)}}
    expected = np.sqrt(55 + 4 + 4)
    np.testing.assert_allclose(train_state.global_norm(grads), expected, rtol=1e-6)
    assert jnp.isnan(train_state.global_norm({**grads, "e": jnp.full(2, jnp.nan)}))


def test_norm_is_not_fused_into_one_kernel_of_all_leaves():
    # The compiler's time grows with more than the square of the leaves that one kernel reads.
    def norm(inputs):
        return train_state.global_norm([jnp.cos(x).sum(0) for x in inputs])

    program = jax.jit(norm).lower([jnp.ones((2, 4, 4))] * 100).compile().as_text()
    read = [
        line.split(" fusion(")[1].split(")")[0]
        for line in program.splitlines()
        if " fusion(" in line
    ]
    assert max(operands.count("%") for operands in read) < 10


def test_learning_rate_warms_up_linearly():
    optimizer = train_state.make_optimizer(
        10, learning_rate=0.4, warmup_steps=3, weight_decay=0.0, clip_norm=1e9
    )
    params = {"bias": jnp.zeros(1)}
    opt_state, rates = optimizer.init(params), []
    for _ in range(5):
        updates, opt_state = optimizer.update({"bias": jnp.ones(1)}, opt_state, params)
        # Adam's step on a constant gradient is the learning rate.
        rates.append(float(-updates["bias"][0]))
    np.testing.assert_allclose(rates, [0.1, 0.2, 0.3, 0.4, 0.4], rtol=1e-4)


def test_table_counts_trained_and_frozen_with_motion_modules_apart():
    state = train_state.init_state(PARAMS, (".*/motion_modules_",), (), optax.sgd(1.0))
    rows = {line.rsplit(None, 2)[0]: line.split()[-2:]
            for line in train_state.describe(state).splitlines()[1:]}  # fmt: skip
    assert rows["denoiser"] == ["0", "6"]
    assert rows["denoiser (motion modules)"] == ["6", "0"]
    assert rows["all"] == ["6", "10"]


def test_learning_rate_falls_to_zero_over_the_last_steps():
    rates = [float(train_state.learning_rates(20, 0.4, 4, 10)(step)) for step in (0, 4, 10, 15, 20)]
    np.testing.assert_allclose(rates, [0.08, 0.4, 0.4, 0.2, 0.0], atol=1e-6)


def test_a_decay_longer_than_the_run_is_refused():
    with pytest.raises(
        InputError, match="warmup_steps=4 and decay_steps=10 are more than steps=12"
    ):
        train_state.learning_rates(12, 0.4, 4, 10)
