"""Small: 128 px, patchified pixels, no pre-trained network, about 20 M parameters, two stages.

    durian train --config configs/small.py:stage1 --workdir RUN1 --config.data.path=DATASET
    durian train --config configs/small.py:stage2 --workdir RUN2 --config.data.path=DATASET \
        --config.init_from=RUN1

Made for one GPU. Not trained to the end yet: the schedule is a first guess, not a recipe.
"""

from ml_collections import ConfigDict

from configs import durian


def get_config(stage: str = "stage1") -> ConfigDict:
    """The config of a stage, "stage1" or "stage2", as in durian.py."""
    config = durian.get_config(stage)
    config.model = dict(
        resolution=128,
        autoencoder="patchify",
        patch=4,
        channels=(64, 96, 144),
        layers_per_block=1,
        attention_levels=(1, 2),
        heads=4,
        norm_groups=16,
        context_dim=0,
        keypoint_channels=(16, 32, 64),
        clip=None,
        arcface=None,
        temporal=stage == "stage2",
        temporal_heads=4,
        max_frames=24,
        temporal_norm="frame",
        dtype="bfloat16",
        remat=(),
    )
    config.diffusion.prediction = "x0"  # patches have more channels than the noise lets through
    config.optimizer.learning_rate = 2e-4
    config.ema_decay = 0.999
    config.sample.window = 16
    if stage == "stage1":
        config.batch_size = 64
        config.stage.trainable = (".*_encoder/", "denoiser/")
        config.stage.frozen = durian.dead_parameters(config.model)
    else:
        config.batch_size = 8
        config.data.frames = 16
    return config
