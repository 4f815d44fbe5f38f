"""Every config builds; the full size has exactly the parameters of its pre-trained parts."""

import functools
from collections import Counter

import pytest
from flax.traverse_util import flatten_dict

from configs import (
    ablations,
    durian,
    small,
    svp,
    svp_small,
    tiny,
    x_portrait,
    x_portrait_small,
    x_portrait_tiny,
)
from durian_jax.diffusion.process import Discrete
from durian_jax.diffusion.solvers import Sampling
from durian_jax.systems.system import build
from durian_jax.training import loop, train_step
from durian_jax.training.state import group_name
from durian_jax.weights.trees import merge
from input_pipeline.training.transforms import SampleOptions


@functools.cache
def _layout(module, stage):
    """Abstract state of a run of a config."""
    return train_step.Training.build(module.get_config(stage)).layout


def _shapes(module, stage):
    """Abstract parameters of a config."""
    layout = _layout(module, stage)
    return merge(layout.frozen, layout.trained)


def _check_windows(config):
    """What sees other frames is not asked to look further than in training."""
    frames, window = loop.sample_options(config).frames, config.sample.window
    assert frames <= window <= config.model.max_frames
    assert frames == window or not build(config.to_dict()).temporal


def _counts(tree):
    counts = Counter()
    for name, leaf in flatten_dict(tree, sep="/").items():
        counts[group_name(name)] += leaf.size
    return counts


def test_full_size_parameter_counts():
    # Stable Discrete 1.5, AnimateDiff v2, sd-vae-ft-mse, the AnimateAnyone pose guider, CLIP
    # ViT-L/14; the reference encoders lack the output head and have a mask channel more (2,880).
    counts = _counts(_shapes(durian, "stage2"))
    assert counts["denoiser"] == 859_520_964
    assert counts["denoiser (motion modules)"] == 453_209_280
    assert counts["portrait_encoder"] == counts["attribute_encoder"] == 859_508_800 + 2_880
    assert counts["keypoint_encoder"] == 1_086_480
    assert counts["autoencoder"] == 83_653_863
    assert counts["clip"] == 303_966_208


@pytest.mark.parametrize(
    "module,least,most", [(tiny, 2e6, 5e6), (small, 6e6, 8e6), (durian, 3.4e9, 3.6e9)]
)
def test_sizes_are_what_the_readme_says(module, least, most):
    assert least < sum(_counts(_shapes(module, "stage2")).values()) < most


@pytest.mark.parametrize("module", [tiny, small, durian])
def test_stages_train_what_they_are_meant_to(module):
    for stage in ("stage1", "stage2"):
        layout = _layout(module, stage)
        groups = set(_counts(layout.trained))
        if stage == "stage2":
            assert groups == {"denoiser (motion modules)"}
            assert "denoiser (motion modules)" not in _counts(layout.frozen)
        else:
            networks = {"portrait_encoder", "attribute_encoder", "denoiser", "keypoint_encoder"}
            assert networks <= groups <= networks | {"face_projection"}
            assert not {"autoencoder", "clip", "arcface"} & groups


@pytest.mark.parametrize("module", [tiny, small, durian])
def test_unknown_stages_are_refused(module):
    with pytest.raises(ValueError, match="choose stage1 or stage2"):
        module.get_config("stage3")


@pytest.mark.parametrize("module", [tiny, small, durian])
def test_options_of_data_and_diffusion_are_known(module):
    for stage in ("stage1", "stage2"):
        config = module.get_config(stage)
        assert loop.sample_options(config).size == config.model.resolution
        _check_windows(config)


def test_the_full_size_config_says_what_the_classes_say_by_themselves():
    config = durian.get_config()
    assert Sampling.from_settings(config.sample.to_dict()) == Sampling()
    options = loop.sample_options(config)
    assert options == SampleOptions(size=config.model.resolution)
    assert Discrete(**config.diffusion.to_dict()) == Discrete()


def test_each_ablation_changes_one_thing():
    full = ablations.get_config("full").to_dict()
    for name in ablations.NAMES[1:]:
        changed = ablations.get_config(name).to_dict()
        differ = {
            (part, field)
            for part in ("model", "data", "stage")
            for field in full[part].keys() | changed[part].keys()
            if full[part].get(field) != changed[part].get(field)
        }
        assert len({part for part, _ in differ}) == 1 and len(differ) <= 2, name
        build(changed)
    with pytest.raises(ValueError, match="unknown ablation 'nothing': choose full, "):
        ablations.get_config("nothing")


@pytest.mark.parametrize("module", [x_portrait, x_portrait_tiny])
def test_the_stages_of_x_portrait_build_and_train_what_they_are_meant_to(module):
    wanted = {
        "stage1": {"portrait_encoder"},
        "stage2": {"portrait_encoder", "control", "local_control"},
        "stage3": {"denoiser (motion modules)"},
    }
    for stage, groups in wanted.items():
        config = module.get_config(stage)
        found = set(_counts(_layout(module, stage).trained))
        if module is x_portrait or stage == "stage3":
            assert found == groups
        _check_windows(config)
    with pytest.raises(ValueError, match="choose stage1, stage2 or stage3"):
        module.get_config("stage4")


def test_each_ablation_of_x_portrait_changes_one_thing():
    full = x_portrait_small.get_config("full").to_dict()
    wanted = {
        "same_person": {"control"}, "no_local_control": {"local_control"},
        "no_scaling": {"control_scale", "control_shift"},
    }  # fmt: skip
    for name, fields in wanted.items():
        config = x_portrait_small.get_config(name)
        changed = config.to_dict()
        differ = {
            field
            for part in ("model", "data", "stage", "diffusion", "optimizer", "sample")
            for field in full[part].keys() | changed[part].keys()
            if full[part].get(field) != changed[part].get(field)
        }
        assert differ == fields, name
        train_step.Training.build(config)
        loop.sample_options(config)
    moving = x_portrait_small.get_config("stage3")
    trained = _layout(x_portrait_small, "stage3").trained
    assert set(_counts(trained)) == {"denoiser (motion modules)"}
    _check_windows(moving)
    with pytest.raises(ValueError, match="unknown name 'nothing': choose full, "):
        x_portrait_small.get_config("nothing")


def test_full_size_parameter_counts_of_x_portrait():
    counts = _counts(_shapes(x_portrait, "stage3"))
    assert counts["denoiser"] == 859_520_964
    assert counts["denoiser (motion modules)"] == 166_855_040 + 250_282_560
    assert counts["control"] == counts["local_control"] == 361_279_120
    assert counts["autoencoder"] == 83_653_863


def test_full_size_parameter_counts_of_svp():
    """Stable Diffusion 3.5 Medium as diffusers has it, and a video attention in each block."""
    counts = _counts(_shapes(svp, "stage2"))
    assert counts["denoiser"] == 2_243_171_520
    assert counts["denoiser (video attention)"] == 24 * (4 * (1536**2 + 1536) + 2 * 64 + 1536)
    assert counts["prompt"] == 333 * 4096 + 2048
    assert counts["autoencoder"] == 83_819_683


@pytest.mark.parametrize("name", svp_small.NAMES)
def test_the_stages_of_svp_differ_in_history_alone(name):
    for module in (svp, svp_small) if name in ("stage1", "stage2") else (svp_small,):
        config = module.get_config(name)
        looks_back = 3 if name in ("stage2", "from_start") else 0
        assert config.model.history == config.data.history == looks_back
        system = build(config.to_dict())
        assert len(system.parts) == len(config.stage.dropout) == len(config.sample.guidance)
        _check_windows(config)
        assert not looks_back or config.stage.dropout[-1] > 0, "a clip begins without history"
        Sampling.from_settings(config.sample)
    train_step.Training.build(config)
    with pytest.raises(ValueError, match="unknown name 'stage3': choose stage1, stage2, fact"):
        svp_small.get_config("stage3")
    with pytest.raises(ValueError, match="unknown stage 'stage3': choose stage1 or stage2"):
        svp.get_config("stage3")
