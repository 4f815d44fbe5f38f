"""Tiny: 64 px, 3.5 M parameters, minutes on a laptop CPU. What the tests and the demo use.

    durian train --config configs/tiny.py:stage1 --workdir RUN1 --config.data.path=DATASET
    durian train --config configs/tiny.py:stage2 --workdir RUN2 --config.data.path=DATASET \
        --config.init_from=RUN1

Enough to see faces move and hair follow on the clips it was trained on, not more.
"""

from ml_collections import ConfigDict

from configs import durian, small


def get_config(stage: str = "stage1") -> ConfigDict:
    """The config of a stage, "stage1" or "stage2", as in durian.py."""
    config = small.get_config(stage)
    config.model.update(
        resolution=64,
        channels=(32, 64),
        attention_levels=(0, 1),
        norm_groups=8,
        keypoint_channels=(8, 16, 32),
        max_frames=16,
        dtype="float32",
    )
    # Even weights: in a few hundred steps the references are learned from, if much noise counts.
    config.diffusion.min_snr_gamma = 1.0
    config.optimizer.update(learning_rate=2e-3, warmup_steps=20)
    config.ema_decay = 0.99
    config.log_every = 20
    config.data.workers = 0
    config.sample.update(every=200, steps=10, guidance=2.0, window=8, overlap=2, clips=4)
    config.save.every = 200
    if stage == "stage1":
        config.steps = 1400
        config.batch_size = 8
        config.stage.frozen = durian.dead_parameters(config.model)
    else:
        config.steps = 120
        config.batch_size = 2
        config.data.frames = 8
    return config
