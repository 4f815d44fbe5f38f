"""X-Portrait at full size: Stable Diffusion 1.5 shapes at 512 px, three stages.

    durian train --config configs/x_portrait.py:stage1 --workdir RUN1 --config.data.path=DATASET \
        --config.init_from=START
    durian train --config configs/x_portrait.py:stage2 --workdir RUN2 --config.data.path=DATASET \
        --config.init_from=RUN1
    durian train --config configs/x_portrait.py:stage3 --workdir RUN3 --config.data.path=DATASET \
        --config.init_from=RUN2

Its authors published no training code. What is known: the denoiser is that of Stable Diffusion and
stays as it is, the loss is the plain one of the noise, and the reference network, the ControlNets
and the motion modules are trained in this order. Rates, sizes and steps are ours, see
docs/x_portrait.md.
"""

from ml_collections import ConfigDict

from configs import durian


def get_config(stage: str = "stage1") -> ConfigDict:
    """The config of a stage: "stage1" (reference network), "stage2" (and the ControlNets), both on
    single frames, or "stage3" (motion modules)."""
    config = durian.get_config()
    config.system = "x_portrait"
    config.model = dict(
        resolution=512,  # side of the square pictures, pixels
        autoencoder="kl",
        kl=dict(block_out_channels=(128, 256, 512, 512), latent_channels=4, scaling=0.18215),
        channels=(320, 640, 1280, 1280),  # of the U-Nets, finest level first
        layers_per_block=2,  # residual blocks a level
        attention_levels=(0, 1, 2),  # levels with attention; 0 is the finest
        heads=8,  # of attention
        norm_groups=32,  # of group normalisation
        context_dim=768,  # channels of the prompt's tokens
        prompt_tokens=77,  # of the empty prompt, all that cross-attention ever sees
        control_channels=(16, 32, 96, 256),  # of the encoders of control pictures, pixels first
        local_control=True,  # whether eyes and mouth alone have a ControlNet of their own
        temporal=False,  # motion modules
        temporal_heads=8,  # of their attention
        max_frames=24,  # that a motion module can tell apart
        temporal_norm="frame",
        dtype="bfloat16",  # of activations; weights and sums are float32
        remat=(),  # by level "none", "attention" or "full": what the backward pass recomputes
    )
    config.diffusion.update(
        zero_terminal_snr=False, prediction="eps", min_snr_gamma=0.0, noise_offset=0.0
    )
    config.data.update(reference_gap=15, augmented=())
    # Whose pictures control: "track", another person with the same motion, which the data set must
    # have; "self", the target frames in other colours; "auto", the track where there is one.
    config.data.control = "auto"
    config.data.control_scale = 0.25  # largest stretch of a control picture, across and down
    config.data.control_shift = 0.05  # largest shift of it, in sides of the picture
    config.optimizer.update(weight_decay=0.0, clip_norm=0.5)
    config.stage = dict(
        trainable=("portrait_encoder/",),  # patterns of parameter names
        frozen=(),
        dropout=0.1,  # share of clips that lose portrait and controls
    )
    config.sample.update(guidance=5.0, window=16, overlap=4)
    config.sample.windows = "circular"  # through the end of a clip to its beginning
    config.sample.spacing = "leading"  # of the steps: from some signal down to little noise
    config.sample.start = "source"  # from the portrait under noise
    config.validation.cases = 0  # the data set's cases have attributes
    if stage == "stage2":
        config.stage.trainable = ("portrait_encoder/", "(local_)?control/")
    elif stage == "stage3":
        config.model.temporal = True
        config.model.remat = ("full",) * 4
        config.data.frames = 16
        config.batch_size = 8
        config.stage.trainable = (".*/motion_modules_",)
    elif stage != "stage1":
        raise ValueError(f"unknown stage {stage!r}: choose stage1, stage2 or stage3")
    return config
