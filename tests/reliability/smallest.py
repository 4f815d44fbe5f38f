"""The smallest runs there are, on the data set of `runs.write_data_set`: 12 records, 3 batches each
epoch. "toy" is for tests/reliability/toy.py in place of the model, "durian" is the real one.

    durian train --config tests/reliability/smallest.py:durian --workdir RUN \
        --config.data.path=DATASET
"""

from configs import durian, tiny


def get_config(stage: str = "toy"):
    """The config of a model, "toy" or "durian", at 32 px and one frame."""
    config = tiny.get_config("stage1")
    config.model.update(
        resolution=32,
        patch=8,
        channels=(16,),
        attention_levels=(0,),
        heads=2,
        norm_groups=4,
        keypoint_channels=(4, 4, 4, 4),
    )
    config.steps = 24
    config.batch_size = 4
    config.log_every = 1
    config.optimizer.warmup_steps = 3
    config.save.update(every=4, minutes=0.0, keep=2)
    config.sample.every = 0
    if stage == "toy":
        config.stage.update(trainable=("denoiser/",), frozen=())
    elif stage == "durian":
        config.stage.frozen = durian.dead_parameters(config.model)
    else:
        raise ValueError(f"unknown model {stage!r}: choose toy or durian")
    return config
