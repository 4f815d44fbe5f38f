import numpy as np
import pytest

from durian_jax.systems.system import build, check_batch
from input_pipeline.errors import InputError
from tests import smallest

SYSTEM = build(smallest.get_config().to_dict())


@pytest.fixture
def batch():
    return {name: np.asarray(value) for name, value in SYSTEM.blank_batch(3, 5).items()}


def test_clips_frames_and_attributes_are_free_and_more_keys_are_taken(batch):
    del batch["video"], batch["id"]
    for name in ("attribute", "attribute_mask", "attribute_keypoints"):
        batch[name] = np.repeat(batch[name], 4, 1)
    check_batch(batch | {"attribute_count": np.ones(3, np.int32)}, SYSTEM, "DATASET")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("portrait", None, r"DATASET: the batch has no 'portrait', uint8 \('any', 32, 32, 3\)"),
        ("portrait", np.zeros((3, 64, 64, 3), np.uint8),
         r"'portrait' of the batch is uint8 \(3, 64, 64, 3\), the model takes uint8 \('any', 32"),
        ("attribute_mask", np.zeros((3, 1, 32, 32), np.uint8), "is uint8 .* takes bool"),
        ("keypoints", np.zeros((3, 478, 2), np.float32), r"'any', 'any', 478, 2"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_with_both_shapes(batch, name, value, message):
    del batch[name]
    with pytest.raises(InputError, match=message):
        check_batch(batch if value is None else batch | {name: value}, SYSTEM, "DATASET")
