"""Durian at full size: Stable Diffusion 1.5 shapes at 512 px, two stages.

    durian train --config configs/durian.py:stage1 --workdir RUN1 --config.data.path=DATASET
    durian train --config configs/durian.py:stage2 --workdir RUN2 --config.data.path=DATASET \
        --config.init_from=RUN1

The paper trains 60,000 steps a stage on 8 A6000 (about 6 days). Values it does not state are those
of the AnimateAnyone lineage. Sizes are global: batch_size counts clips over all devices.
"""

from ml_collections import ConfigDict


def get_config(stage: str = "stage1") -> ConfigDict:
    """The config of a stage: "stage1" (spatial, single frames) or "stage2" (temporal layers)."""
    config = ConfigDict()
    config.seed = 0  # of everything that is drawn: weights, order, augmentation, noise
    config.steps = 60_000  # of the optimizer
    config.batch_size = 32  # clips a step, over all devices
    config.accumulate = 1  # parts of a batch whose gradients are summed before the optimizer moves
    config.init_from = ""  # weights to start from: a run, a converted folder, a hub id, "small"
    # Of random initial weights: whether reference encoders start as copies of the denoiser, and
    # key projections as query projections.
    config.aligned_init = False
    config.ema_decay = 0.9999  # of the average of weights, per step
    config.log_every = 50  # steps
    config.profile = ()  # (first, last) step that jax.profiler traces, into RUN/profile
    config.system = "durian"  # folder of durian_jax/systems
    config.model = dict(
        resolution=512,  # side of the square pictures, pixels
        autoencoder="kl",  # or "patchify", "cosine": patches of pixels or of their frequencies
        kl=dict(block_out_channels=(128, 256, 512, 512), latent_channels=4, scaling=0.18215),
        channels=(320, 640, 1280, 1280),  # of the U-Nets, finest level first
        layers_per_block=2,  # residual blocks a level
        attention_levels=(0, 1, 2),  # levels with attention; 0 is the finest
        heads=8,  # of attention
        norm_groups=32,  # of group normalisation
        context_dim=768,  # channels of the CLIP and ArcFace tokens
        keypoint_channels=(16, 32, 96, 256),  # of the keypoint encoder, pixels first
        face_coordinates=False,  # tell the keypoint encoder each pixel's place on the mean face
        reference_keypoints=False,  # tell the reference encoders the keypoints of their photos
        reference_masks=True,  # and what of their photos is hidden
        reference_encoders=2,  # or 1 for portrait and attributes alike
        clip=dict(hidden_size=1024, layers=24, heads=16, patch_size=14),  # ViT-L/14
        arcface=dict(layers=(3, 13, 30, 3)),  # r100
        temporal=False,  # motion modules
        temporal_heads=8,  # of their attention
        max_frames=32,  # that a motion module can tell apart
        temporal_norm="frame",  # or "clip", as in diffusers
        dtype="bfloat16",  # of activations; weights and sums are float32
        remat=(),  # by level "none", "attention" or "full": what the backward pass recomputes
    )
    config.diffusion = dict(
        num_timesteps=1000,
        beta_start=0.00085,  # of the first timestep, of the last: linear in the square root
        beta_end=0.012,
        zero_terminal_snr=True,  # the last timestep is pure noise (2305.08891)
        prediction="v",  # or "x0"; the paper's "eps" needs zero_terminal_snr=False
        min_snr_gamma=5.0,  # most a timestep's signal-to-noise ratio may weigh (2303.09556)
        noise_offset=0.05,  # deviation of noise that is one number for a whole picture
        timestep_shift=1.0,  # above 1 training sees more noise
    )
    config.data = dict(
        path="",  # of the data set, or synth:people=N to render while training
        workers=8,  # processes that make batches; 0: the process that trains
        frames=1,  # targets from each clip
        stride=1,  # frames from one target to the next
        reference_gap=30,  # frames that the references are away from the targets, where possible
        kinds=("hair", "glasses", "beard", "hat"),  # that may be transferred
        expand_probability=0.8,  # of a hidden region to grow by masks of other people
        expand_count=2,  # such masks
        grow=0.04,  # most that a hidden region grows, in face heights
        augmented=("portrait", "attribute"),  # references that are moved and recoloured
        masked=True,  # whether each reference hides what the other shows
        affine_probability=0.8,  # of a reference to be moved
        translate=0.1,  # most, in sides of the picture
        scale=0.15,  # most, as a share
        rotate=10.0,  # most, degrees
        jitter_probability=0.8,  # of a reference to be recoloured
        jitter=0.2,  # most that brightness, contrast and saturation change, as a share
        hue=0.02,  # most that the hue turns, of a full turn
    )
    config.optimizer = dict(
        learning_rate=1e-5,  # of AdamW
        warmup_steps=500,  # linear, from 0
        decay_steps=0,  # at the end of the run the rate falls to 0 as a cosine; 0: constant
        beta2=0.999,  # decay of the mean squared gradient
        weight_decay=1e-2,  # of matrices
        clip_norm=1.0,  # of the gradient, over all parameters
    )
    config.stage = dict(
        trainable=(".*_encoder/", "denoiser/", "face_projection/"),  # patterns of parameter names
        frozen=(),  # of those, what stays as it is; so do parameters that no output depends on
        dropout=0.1,  # share of clips that lose all references and embeddings
    )
    config.mesh = dict(fsdp=1)  # devices that share one copy of the state; -1 for all
    # Long clips go in windows, as long as the clips of training.
    config.sample = dict(
        every=1000,  # steps of training; 0: never
        steps=30,  # of the sampler
        guidance=3.5,  # its scale; 1: none
        window=24,  # frames that are denoised together
        overlap=4,  # frames that neighbouring windows share at least
        clips=4,  # shown
    )
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
    elif stage != "stage1":
        raise ValueError(f"unknown stage {stage!r}: choose stage1 or stage2")
    return config
