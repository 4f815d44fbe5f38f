"""Stable Video-Driven Portraits small enough for two CPU cores: 32 px, from scratch.

    durian synth --out DATASET --people 2000 --control --cases 0 --reenactments 64
    durian train --config configs/svp_small.py:stage1 --workdir RUN1 --config.data.path=DATASET
    durian train --config configs/svp_small.py:stage2 --workdir RUN2 --config.data.path=DATASET \
        --config.init_from=RUN1

And two of the paper's ablations: factorised (stage 1 with attention over frames place by place) and
from_start (both stages in one). Latents are frequencies of patches, the clean picture is predicted
and one step taken, as in small.py. A token is one latent cell: 48 channels of noise and picture go
through 128 of the transformer, the 192 of four cells would not.
"""

from ml_collections import ConfigDict

from configs import svp

NAMES = ("stage1", "stage2", "factorised", "from_start")


def get_config(name: str = "stage1") -> ConfigDict:
    """The config of a name."""
    if name not in NAMES:
        raise ValueError(f"unknown name {name!r}: choose {', '.join(NAMES)}")
    config = svp.get_config("stage2" if name in ("stage2", "from_start") else "stage1")
    config.model = dict(
        resolution=32,
        autoencoder="cosine",
        patch=4,  # side of a patch, pixels
        transformer=dict(
            layers=6,
            heads=4,
            head_dim=32,
            patch=1,
            dual_layers=(),
            qk_norm=True,
            context_dim=8,
            pooled_dim=8,
            positions=32,
            position_base=32,
            video_layers=(1, 3, 5),
            video_attention="factorised" if name == "factorised" else "full",
        ),
        max_frames=8,
        history=config.model.history,
        prompt_tokens=1,
        dtype="float32",
        remat=(),
    )
    config.diffusion.prediction = "x0"
    # With history and the gap before a reference they must fit into the 12 frames of a record.
    config.data.frames = 7 if config.model.history else 8
    config.data.update(workers=0, reference_gap=2)
    config.optimizer.update(learning_rate=1e-3, warmup_steps=100, beta2=0.99)
    config.ema_decay = 0.998
    config.log_every = 20
    config.validation.batches = 2
    config.stage.trainable = (".*",)
    # Guidance is not used; but the first window of a clip has no history.
    config.stage.dropout = (0.0, 0.0, 0.1)[: len(config.stage.dropout)]
    config.steps, config.batch_size = (600 if name == "stage2" else 6000), 2
    config.optimizer.decay_steps = config.steps // 3
    config.sample.update(every=1000, steps=1, window=config.data.frames, clips=4)
    config.sample.guidance = (1.0,) * len(config.stage.dropout)
    config.save.update(every=500, minutes=15.0)
    return config
