"""The smallest runs there are, on the data set of `runs.write_data_set`: 12 records, 3 batches each
epoch. "toy" is the system of tests/reliability/systems, "durian" the real one.

    durian train --config tests/reliability/smallest.py:durian --workdir RUN \
        --config.data.path=DATASET
"""

from tests import smallest


def get_config(stage: str = "toy"):
    """The config of a model, "toy" or "durian", at 32 px and one frame."""
    config = smallest.get_config("stage1")
    config.steps = 24
    config.batch_size = 4
    config.log_every = 1
    config.optimizer.warmup_steps = 3
    config.save.update(every=4, minutes=0.0, keep=2)
    config.sample.every = 0
    if stage == "toy":
        config.system = "toy"
        config.model = dict(resolution=32, patch=8)
        config.stage.update(trainable=("denoiser/",), frozen=())
    elif stage != "durian":
        raise ValueError(f"unknown model {stage!r}: choose toy or durian")
    return config
