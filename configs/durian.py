"""Durian at full size: Stable Diffusion 1.5 shapes at 512 px, two stages.

    durian train --config configs/durian.py:stage1 --workdir RUN1 --config.data.path=DATASET
    durian train --config configs/durian.py:stage2 --workdir RUN2 --config.data.path=DATASET \
        --config.init_from=RUN1

The paper trains 60,000 steps a stage on 8 A6000 (about 6 days). Values it does not state are those
of the AnimateAnyone lineage. Sizes are global: batch_size counts clips over all devices.
"""

from ml_collections import ConfigDict


def dead_parameters(model: ConfigDict) -> tuple[str, ...]:
    """Patterns of parameters that no output depends on; weight decay must not move them.

    The reference encoders end at the tokens of their last attention, in the finest level that has
    any. Attention over a single context token does not depend on queries and keys.
    """
    levels = len(model.channels)
    end = levels - 1 - min(model.attention_levels)
    tails = [
        f"up_blocks_{end}/attentions_{model.layers_per_block}/"
        "(proj_out|transformer_blocks_0/(attn1|attn2|norm2|norm3|ff))/"
    ]
    if end < levels - 1:
        tails += [f"up_blocks_{end}/upsamplers_0/"]
        tails += [f"up_blocks_{block}/" for block in range(end + 1, levels)]
    patterns = tuple(f"(portrait|attribute)_encoder/{tail}" for tail in tails)
    if model.clip is not None:
        patterns += ("(attribute_encoder|denoiser)/.*/(attn2/to_(q|k)|norm2)/",)
    return patterns


def get_config(stage: str = "stage1") -> ConfigDict:
    """The config of a stage: "stage1" (spatial, single frames) or "stage2" (temporal layers)."""
    config = ConfigDict()
    config.seed = 0
    config.steps = 60_000
    config.batch_size = 32
    config.accumulate = 1  # parts of a batch whose gradients are summed before the optimizer moves
    config.init_from = ""  # workdir of the run whose weights to start from
    # Weights that are drawn: whether reference encoders start as the denoiser and keys as queries.
    config.aligned_init = False
    config.ema_decay = 0.9999
    config.log_every = 50
    config.model = dict(
        resolution=512,
        autoencoder="kl",
        kl=dict(block_out_channels=(128, 256, 512, 512), latent_channels=4, scaling=0.18215),
        channels=(320, 640, 1280, 1280),
        layers_per_block=2,
        attention_levels=(0, 1, 2),
        heads=8,
        norm_groups=32,
        context_dim=768,
        keypoint_channels=(16, 32, 96, 256),
        face_coordinates=False,
        reference_keypoints=False,
        clip=dict(hidden_size=1024, layers=24, heads=16, patch_size=14),  # ViT-L/14
        arcface=dict(layers=(3, 13, 30, 3)),  # r100
        temporal=False,
        temporal_heads=8,
        max_frames=32,
        temporal_norm="frame",  # or "clip", as in diffusers
        dtype="bfloat16",
        remat=(),
    )
    config.diffusion = dict(
        num_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        zero_terminal_snr=True,
        prediction="v",  # or "x0"; the paper's "eps" needs zero_terminal_snr=False
        min_snr_gamma=5.0,
        noise_offset=0.05,
        timestep_shift=1.0,  # above 1 training sees more noise
    )
    config.data = dict(
        path="",
        workers=8,
        frames=1,
        stride=1,
        reference_gap=30,
        kinds=("hair", "glasses", "beard", "hat"),
        expand_probability=0.8,
        expand_count=2,
        grow=0.04,
        augmented=("portrait", "attribute"),  # references
        affine_probability=0.8,
        translate=0.1,
        scale=0.15,
        rotate=10.0,
        jitter_probability=0.8,
        jitter=0.2,
        hue=0.02,
    )
    config.optimizer = dict(
        learning_rate=1e-5,
        warmup_steps=500,  # linear, from 0
        decay_steps=0,  # at the end of the run the rate falls to 0 as a cosine; 0: constant
        beta2=0.999,
        weight_decay=1e-2,  # of matrices
        clip_norm=1.0,  # of the gradient, over all parameters
    )
    config.stage = dict(
        trainable=(".*_encoder/", "denoiser/", "face_projection/"),
        frozen=dead_parameters(config.model),
        dropout=0.1,  # share of clips that lose all references and embeddings
    )
    config.mesh = dict(fsdp=1)  # devices that share one copy of the state; -1 for all
    # Long clips go in windows, as long as the clips of training.
    config.sample = dict(every=1000, steps=30, guidance=3.5, window=24, overlap=4, clips=4)
    config.sample.solver = "ddim"  # or "dpm++", for fewer steps
    # With every sample: batches of the split "val" that the validation loss is taken over, and
    # counterfactual cases of the data set that are animated and scored. 0 for none.
    config.validation = dict(batches=8, cases=8)
    # Checkpoints by steps and by minutes (0: not by these); of the older ones those stay whose step
    # is a multiple of keep_every.
    config.save = dict(every=1000, minutes=30.0, keep=3, keep_every=0)
    # Steps in a row whose loss or gradient is not finite before training stops; how long nothing
    # may move before the process ends (0: for ever).
    config.guards = dict(max_skipped=10, timeout_minutes=30.0)
    if stage == "stage2":
        config.model.temporal = True
        config.model.remat = ("full",) * 4
        config.data.frames = 24
        config.batch_size = 8
        config.stage.trainable = (".*/motion_modules_",)
        config.stage.frozen = ()
    elif stage != "stage1":
        raise ValueError(f"unknown stage {stage!r}: choose stage1 or stage2")
    return config
