"""X-Portrait small enough for two CPU cores, and the paper's ablations of it.

    durian synth --out DATASET --people 2000 --control --cases 0 --reenactments 64
    durian train --config configs/x_portrait_small.py:NAME --workdir RUN --config.data.path=DATASET
    durian evaluate --protocol reenact --dataset DATASET --checkpoint RUN --out REPORT

NAME: full, same_person (driven by the person's own frames), no_local_control, no_scaling: single
frames, from scratch. stage3: motion modules on top (--config.init_from=RUN, data with --frames 24
--fps 12.5). The lessons are those of small.py: frequencies of patches, the clean picture predicted
from much noise, one step.
"""

from ml_collections import ConfigDict

from configs import small, x_portrait

CHANGES = {
    "full": {},
    "same_person": {"data": {"control": "self"}},
    "no_local_control": {"model": {"local_control": False}},
    "no_scaling": {"data": {"control_scale": 0.0, "control_shift": 0.0}},
    "stage3": {},
}
NAMES = tuple(CHANGES)


def get_config(name: str = "full") -> ConfigDict:
    """The config of a name."""
    if name not in NAMES:
        raise ValueError(f"unknown name {name!r}: choose {', '.join(NAMES)}")
    moving = name == "stage3"
    config, like = x_portrait.get_config("stage3" if moving else "stage2"), small.get_config()
    config.model = dict(
        resolution=32,
        autoencoder="cosine",
        patch=4,
        channels=(64, 80),
        layers_per_block=1,
        attention_levels=(0, 1),
        heads=2,
        norm_groups=8,
        context_dim=8,
        prompt_tokens=1,
        control_channels=(8, 16, 32),
        local_control=True,
        temporal=moving,
        temporal_heads=4,
        max_frames=24,
        temporal_norm="frame",
        dtype="float32",
        remat=(),
    )
    for part in ("diffusion", "optimizer", "save"):
        config[part] = like[part]
    config.aligned_init, config.ema_decay = like.aligned_init, like.ema_decay
    config.data.update(workers=0, reference_gap=2, control="track")
    config.sample.update(every=1000, steps=1, guidance=1.0, window=24, overlap=4, clips=8)
    # One step from pure noise.
    config.sample.update(windows="overlapping", spacing="trailing", start="noise")
    config.stage.dropout = 0.0  # guidance is not used
    if moving:
        config.steps, config.batch_size = 600, 2
        config.data.frames = config.sample.window = 16
    else:
        config.steps, config.batch_size = 6000, 16
        config.optimizer.decay_steps = 2000
        config.stage.trainable = (".*",)
    for part, changes in CHANGES[name].items():
        config[part].update(changes)
    return config
