import jax
import numpy as np
import pytest

from durian_jax.training.train_step import Training, check_fit
from input_pipeline.errors import InputError
from tests import smallest

WANTED = {
    "denoiser": {
        "conv_in": {"kernel": jax.ShapeDtypeStruct((3, 4), np.float32)},
        "down_blocks_0": {"motion_modules_0": {"bias": jax.ShapeDtypeStruct((4,), np.float32)}},
    },
    "clip": {"kernel": jax.ShapeDtypeStruct((2,), np.float32)},
    "keypoint_encoder": {"kernel": jax.ShapeDtypeStruct((5,), np.float32)},
}


def test_a_hand_over_counts_what_it_takes_and_lists_what_it_does_not():
    loaded = {
        "denoiser": {"conv_in": {"kernel": np.zeros((3, 4))}},
        "keypoint_encoder": {"kernel": np.zeros(5)},
    }
    assert check_fit(loaded, WANTED, "RUN") == (
        "weights: 2 of 4 tensors from RUN; drawn at random: clip, denoiser (motion modules)"
    )
    whole = jax.tree.map(lambda leaf: np.zeros(leaf.shape), WANTED)
    assert check_fit(whole, WANTED, "RUN") == "weights: 4 of 4 tensors from RUN"


def test_as_many_chances_to_drop_conditions_as_there_are():
    config = smallest.get_config("stage1")
    with config.ignore_type():
        config.stage.dropout = (0.1, 0.1)
    message = r"stage.dropout=\(0.1, 0.1\) has 2 chances, the model 1 conditions \(references\)"
    with pytest.raises(InputError, match=message):
        Training.build(config)


@pytest.mark.parametrize(
    ("loaded", "message"),
    [
        ({"clip": {"kernel": np.zeros(3)}}, r"clip/kernel \(3,\) does not fit.*has \(2,\) for it"),
        ({"arcface": {"kernel": np.zeros(3)}}, r"arcface/kernel .*has no such parameter: use"),
    ],
)
def test_weights_without_a_place_are_refused(loaded, message):
    with pytest.raises(InputError, match=f"init_from RUN: {message}"):
        check_fit(loaded, WANTED, "RUN")
