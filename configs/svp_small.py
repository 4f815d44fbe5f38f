"""Stable Video-Driven Portraits small enough for two CPU cores: 64 px, from scratch.

    durian synth --out DATASET --people 2000 --control --cases 0 --reenactments 64
    durian train --config configs/svp_small.py:stage1 --workdir RUN1 --config.data.path=DATASET
    durian train --config configs/svp_small.py:stage2 --workdir RUN2 --config.data.path=DATASET \
        --config.init_from=RUN1

And two of the paper's ablations: factorised (stage 1 with attention over frames place by place) and
from_start (both stages in one). Latents are frequencies of patches, as in small.py.
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
        resolution=64,
        autoencoder="cosine",
        patch=4,  # side of a patch, pixels
        transformer=dict(
            layers=6,
            heads=4,
            head_dim=32,
            patch=2,
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
    config.data.frames = 8
    config.data.update(workers=0, reference_gap=2)
    config.optimizer.update(learning_rate=1e-3, warmup_steps=100)
    config.ema_decay = 0.998
    config.log_every = 20
    config.validation.batches = 2
    config.stage.trainable = (".*",)
    config.steps, config.batch_size = (2000 if name == "stage2" else 10_000), 2
    config.sample.update(every=1000, steps=10, window=8, clips=4)
    config.save.update(every=500, minutes=15.0)
    return config
