"""X-Portrait in tiny: 64 px, minutes on a laptop CPU. What the tests use.

    durian train --config configs/x_portrait_tiny.py:stage2 --workdir RUN2 \
        --config.data.path=DATASET
    durian train --config configs/x_portrait_tiny.py:stage3 --workdir RUN3 \
        --config.data.path=DATASET --config.init_from=RUN2

Without Stable Diffusion's weights the denoiser is trained, too, and stage 1 joins stage 2.
"""

from ml_collections import ConfigDict

from configs import x_portrait


def get_config(stage: str = "stage2") -> ConfigDict:
    """The config of a stage, as in x_portrait.py."""
    config = x_portrait.get_config(stage)
    config.model = dict(
        resolution=64,
        autoencoder="patchify",
        patch=8,
        channels=(32, 64),
        layers_per_block=1,
        attention_levels=(0, 1),
        heads=4,
        norm_groups=8,
        context_dim=16,
        prompt_tokens=1,
        control_channels=(8, 16, 16, 32),
        temporal=stage == "stage3",
        temporal_heads=4,
        max_frames=16,
        temporal_norm="frame",
        dtype="float32",
        remat=(),
    )
    config.aligned_init = True
    config.data.workers = 0
    config.ema_decay = 0.99
    config.log_every = 20
    config.optimizer.update(learning_rate=2e-3, warmup_steps=20)
    config.validation.batches = 2
    config.sample.update(every=200, steps=10, guidance=2.0, window=8, overlap=2, clips=4)
    config.save.update(every=200, minutes=30.0)
    config.steps, config.batch_size = 1400, 8
    if stage != "stage3":
        config.stage.trainable = (".*",)
    else:
        config.steps, config.batch_size, config.data.frames = 120, 2, 8
    return config
