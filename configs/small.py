"""Small: 64 px, frequencies of patches, two stages; the recipe of the shipped model.

    durian synth --out DATASET --cases 16
    durian train --config configs/small.py:stage1 --workdir RUN0 --config.data.path=DATASET \
        --config.model.resolution=32 --config.steps=3000
    durian train --config configs/small.py:stage1 --workdir RUN1 --config.data.path=DATASET \
        --config.init_from=RUN0 --config.optimizer.learning_rate=1.5e-3 --config.steps=9000 \
        --config.optimizer.decay_steps=2400
    durian synth --tracked --out DATASET2 --people 3000 --seed 3517 --cases 0
    durian train --config configs/small.py:stage1 --workdir RUN2 --config.data.path=DATASET2 \
        --config.init_from=RUN1 --config.optimizer.learning_rate=1.2e-3 --config.steps=6600 \
        --config.optimizer.decay_steps=3200 --config.diffusion.timestep_shift=20.

What was shipped ran as more runs, see docs/model_card.md: two CPU cores, about 5.5 hours, 298,000
frames; validation loss 0.307 (so shifted); on 112 counterfactual cases 24.1 dB (still portrait
19.7), keypoints 0.070 of the eye distance (0.261), attribute IoU 0.48 (0.17).
"""

from ml_collections import ConfigDict

from configs import durian


def get_config(stage: str = "stage1") -> ConfigDict:
    """The config of a stage, "stage1" or "stage2", as in durian.py."""
    config = durian.get_config(stage)
    config.model = dict(
        resolution=64,
        autoencoder="cosine",
        patch=4,
        channels=(64, 80),
        layers_per_block=1,
        attention_levels=(0, 1),
        heads=2,
        norm_groups=8,
        context_dim=0,
        keypoint_channels=(8, 16, 32),
        face_coordinates=True,
        reference_keypoints=True,
        clip=None,
        arcface=None,
        temporal=stage == "stage2",
        temporal_heads=4,
        max_frames=24,
        temporal_norm="frame",
        dtype="float32",
        remat=(),
    )
    config.aligned_init = True
    # The references tell nearly all, so that most is to be learned at much noise.
    config.diffusion.update(
        prediction="x0", min_snr_gamma=1.0, noise_offset=0.0, timestep_shift=3.0
    )
    config.data.update(workers=0, reference_gap=2, augmented=("attribute",), jitter=0.1)
    config.optimizer.update(learning_rate=2e-3, warmup_steps=50, beta2=0.99)
    config.ema_decay = 0.998
    config.sample.update(every=1000, steps=1, guidance=1.0, window=24, overlap=4, clips=8)
    config.save.update(every=500, minutes=15.0)
    if stage == "stage1":
        config.steps = 100_000
        config.batch_size = 4
        config.data.frames = 4
        config.stage.trainable = (".*_encoder/", "denoiser/")
    else:
        config.batch_size = 2
        config.data.frames = config.sample.window = 16
    return config
