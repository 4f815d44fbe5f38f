"""Stable Video-Driven Portraits at full size: Stable Diffusion 3.5 Medium at 512 px, two stages.

    durian convert --from diffusers --source stable-diffusion-3.5-medium --out SD35
    durian train --config configs/svp.py:stage1 --workdir RUN1 --config.data.path=DATASET \
        --config.init_from=SD35
    durian train --config configs/svp.py:stage2 --workdir RUN2 --config.data.path=DATASET \
        --config.init_from=RUN1

DATASET has a control track: `durian prepare --control`, or `durian synth --control`. The paper
trains 50,000 steps on 32 H100, the last 10,000 of them with history; rates, batch and dropout are
ours: docs/svp.md.
"""

from ml_collections import ConfigDict

from configs import durian


def get_config(stage: str = "stage1") -> ConfigDict:
    """The config of a stage: "stage1" (without history) or "stage2" (with it)."""
    config = durian.get_config()
    config.system = "svp"
    config.model = dict(
        resolution=512,  # side of the square pictures, pixels
        autoencoder="kl",
        kl=dict(
            block_out_channels=(128, 256, 512, 512), latent_channels=16, scaling=1.5305,
            shift=0.0609, quant_convs=False,
        ),
        transformer=dict(
            layers=24,  # blocks
            heads=24,  # of attention, in all of them
            head_dim=64,  # channels of a head
            patch=2,  # side of a token, latent cells
            dual_layers=tuple(range(13)),  # blocks with a second attention of the picture alone
            qk_norm=True,  # of queries and keys
            context_dim=4096,  # channels of a text token
            pooled_dim=2048,  # of the pooled text
            positions=384,  # side of the table of positions, tokens
            position_base=64,  # tokens that its unit belongs to
            video_layers=tuple(range(24)),  # blocks with attention over all frames
            video_attention="full",  # or "factorised": over frames place by place
        ),
        max_frames=16,  # denoised together
        history=0,  # frames before them that the model is told of
        prompt_tokens=333,  # of the empty prompt: 77 of CLIP, 256 of T5
        dtype="bfloat16",  # of activations; weights and sums are float32
        remat=("full",),  # () or one of "none", "attention", "full": what is computed again
    )  # fmt: skip
    config.diffusion = dict(
        process="flow",
        prediction="v",  # what the network predicts: v, the velocity, or x0, the clean latents
        shift=3.0,  # of the times towards noise
        logit_mean=0.0,  # of the logit of the times of training, before the shift
        logit_std=1.0,
    )
    config.data.update(frames=16, reference_gap=15, augmented=())
    # Whose pictures control, see x_portrait.py.
    config.data.control = "auto"
    config.data.control_scale = 0.25  # largest stretch of a driving picture, across and down
    config.data.control_shift = 0.05  # largest shift of it, in sides of the picture
    config.data.history = 0  # as model.history
    config.optimizer.update(weight_decay=0.0)
    # Share of clips that lose the source; of those that have it, that lose the driver; and so on.
    config.stage = dict(trainable=("denoiser/",), frozen=(), dropout=(0.1, 0.1))
    config.steps, config.batch_size = 40_000, 32
    config.sample.update(steps=40, window=16, overlap=0)
    with config.ignore_type():
        # How far from nothing to the source, from there to the driver, and on to the history.
        config.sample.guidance = (2.0, 2.5)
    config.sample.windows = "chained"  # each begins where the one before it ended
    config.validation.cases = 0  # the data set's cases have attributes
    if stage == "stage2":
        config.steps = 10_000
        config.model.history = config.data.history = 3
        config.stage.dropout = (0.1, 0.1, 0.1)
        config.sample.guidance = (2.0, 2.5, 1.0)
    elif stage != "stage1":
        raise ValueError(f"unknown stage {stage!r}: choose stage1 or stage2")
    return config
