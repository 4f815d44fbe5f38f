import jax
import numpy as np

from durian_jax.models.attention import PaddedTokens
from durian_jax.models.blocks import GEGLU, ResnetBlock, TransformerBlock, timestep_features


def test_timestep_features_put_cosines_first_and_slow_down_by_10000():
    features = timestep_features(np.array([0, 7]), 8)
    np.testing.assert_allclose(features[0], [1, 1, 1, 1, 0, 0, 0, 0])
    angles = 7 / 10000 ** (np.arange(4) / 4)
    np.testing.assert_allclose(features[1, :4], np.cos(angles), rtol=1e-5)
    np.testing.assert_allclose(features[1, 4:], np.sin(angles), rtol=1e-5)


def test_geglu_gates_with_the_exact_gelu():
    # gelu(2) is 1.9544997 exactly and 1.9545977 in the tanh form.
    params = {"proj": {"kernel": np.array([[1.0, 2.0]], np.float32), "bias": np.zeros(2)}}
    out = GEGLU(1).apply({"params": params}, np.array([[1.0]], np.float32))
    np.testing.assert_allclose(out, [[1.9544997]], rtol=2e-6)


def test_time_reaches_every_frame_of_its_own_clip_only(fill):
    block = ResnetBlock(8, 8, groups=2)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, 4, 4, 8)).astype(np.float32)
    time = rng.standard_normal((2, 16)).astype(np.float32)
    params = fill(jax.eval_shape(block.init, jax.random.key(0), x, time))
    apply = jax.jit(block.apply)
    changed = np.abs(apply(params, x, time) - apply(params, x, time + [[0.0], [1.0]]))
    assert changed[:3].max() == 0
    assert (changed[3:].max(axis=(1, 2, 3)) > 0.01).all()


def test_a_single_context_token_needs_no_queries_and_changes_nothing(fill):
    block = TransformerBlock(16, 2, cross=True)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 5, 16)).astype(np.float32)
    context = rng.standard_normal((2, 1, 12)).astype(np.float32)
    params = fill(jax.eval_shape(block.init, jax.random.key(0), x, context, None))

    def run(context):
        return jax.jit(lambda p: block.apply(p, x, context, None)[0])(params)

    # The same token twice is the same average, by way of queries, keys and a softmax.
    np.testing.assert_allclose(run(context), run(context.repeat(2, 1)), rtol=0, atol=2e-6)
    padded = PaddedTokens(context.repeat(3, 1), np.array([1, 2]))
    np.testing.assert_allclose(run(context), run(padded), rtol=0, atol=2e-6)
    # The parameters are there all the same: checkpoints have them.
    assert {"to_q", "to_k"} < params["params"]["attn2"].keys() and "norm2" in params["params"]
