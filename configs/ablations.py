"""The small model at 32 px with one thing left out, to see what it is good for: docs/model_card.md.

    durian train --config configs/ablations.py:NAME --workdir RUN --config.data.path=DATASET

NAME: full, no_reference_keypoints, no_mask_expansion, no_reference_augmentation, no_mask_input,
one_reference_net, unmasked_references. Each 1,000 steps of 16 frames;
the paper ablates all but the first, at full size.
"""

from ml_collections import ConfigDict

from configs import small

CHANGES = {
    "full": {},
    "no_reference_keypoints": {"model": {"reference_keypoints": False}},
    "no_mask_expansion": {"data": {"expand_probability": 0.0, "grow": 0.0}},
    "no_reference_augmentation": {"data": {"augmented": ()}},
    "no_mask_input": {"model": {"reference_masks": False}},
    "one_reference_net": {"model": {"reference_encoders": 1}},
    "unmasked_references": {"data": {"masked": False}},
}
NAMES = tuple(CHANGES)


def get_config(name: str = "full") -> ConfigDict:
    """The config of an ablation."""
    if name not in NAMES:
        raise ValueError(f"unknown ablation {name!r}: choose {', '.join(NAMES)}")
    config = small.get_config("stage1")
    config.model.resolution = 32
    config.steps = 1000
    config.optimizer.decay_steps = 400
    config.validation.cases = 0
    config.sample.every = 0
    for part, changes in CHANGES[name].items():
        config[part].update(changes)
    return config
