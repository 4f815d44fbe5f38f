"""Tiny: 64 px, 3 M parameters, minutes on a laptop CPU. What the tests and the demo use.

    durian train --config configs/tiny.py:stage1 --workdir RUN1 --config.data.path=DATASET
    durian train --config configs/tiny.py:stage2 --workdir RUN2 --config.data.path=DATASET \
        --config.init_from=RUN1

Enough to see faces move and hair follow on the clips it was trained on, not more.
"""

from ml_collections import ConfigDict

from configs import small


def get_config(stage: str = "stage1") -> ConfigDict:
    """The config of a stage, "stage1" or "stage2", as in durian.py."""
    config = small.get_config(stage)
    config.model.update(
        autoencoder="patchify",
        channels=(32, 64),
        heads=4,
        max_frames=16,
    )
    # Even weights and timesteps: in a few hundred steps the references are learned from.
    config.diffusion.update(min_snr_gamma=1.0, noise_offset=0.05, timestep_shift=1.0)
    config.data.update(reference_gap=30, augmented=("portrait", "attribute"), jitter=0.2)
    config.optimizer.update(learning_rate=2e-3, warmup_steps=20, beta2=0.999)
    config.ema_decay = 0.99
    config.log_every = 20
    config.validation.update(batches=2, cases=2)
    config.sample.update(every=200, steps=10, guidance=2.0, window=8, overlap=2, clips=4)
    config.save.update(every=200, minutes=30.0)
    if stage == "stage1":
        config.steps = 1400
        config.batch_size = 8
        config.data.frames = 1
    else:
        config.steps = 120
        config.batch_size = 2
        config.data.frames = 8
    return config
