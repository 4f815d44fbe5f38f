"""X-Portrait's published checkpoint, `model_state-415001.th`, and its layout for export.

What becomes of its keys:

    model.diffusion_model.          denoiser and its motion modules
    appearance_control_model.       portrait_encoder; its input_hint_block is never run: dropped
    pose_control_model.             control
    local_pose_control_model.       local_control
    first_stage_model.              autoencoder
    cond_stage_model.               CLIP's text tower, run once on the empty prompt: prompt
    *.pos_encoder.pe                tables of positions, which are computed here: compared, dropped
    betas, alphas_cumprod, ...      the noise schedule, which is computed here: compared, dropped
"""

import json
import re
from pathlib import Path

import numpy as np

from durian_jax.convert.archive import write_torch
from durian_jax.convert.names import to_torch, torch_key, transposed
from durian_jax.convert.source import Source
from durian_jax.convert.sources import ldm, prompt
from durian_jax.convert.sources.files import open_weights, read_json
from durian_jax.diffusion.process import make_process
from durian_jax.models.temporal import frame_positions
from durian_jax.weights.storage import Stored, write_safetensors
from input_pipeline.errors import InputError

NETWORKS = {
    "denoiser": ldm.UNET,
    "portrait_encoder": "appearance_control_model.",
    "control": "pose_control_model.",
    "local_control": "local_pose_control_model.",
    "autoencoder": ldm.VAE,
}
_NEEDED = ("denoiser", "portrait_encoder", "control", "local_control")
HINT = "input_hint_block."
PROMPT = "prompt.safetensors"  # beside a checkpoint without a text tower
_SUFFIXES = (".th", ".ckpt", ".pth", ".safetensors")
SCHEDULE = (
    "betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod", "log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod", "posterior_variance", "posterior_log_variance_clipped",
    "posterior_mean_coef1", "posterior_mean_coef2", "logvar",
)  # fmt: skip
DIFFUSION = {
    "prediction": "eps", "zero_terminal_snr": False, "min_snr_gamma": 0.0, "noise_offset": 0.0,
}  # fmt: skip
SAMPLE = {
    "steps": 30, "solver": "ddim", "guidance": 5.0, "window": 16, "overlap": 4,
    "spacing": "leading", "start": "source", "windows": "circular",
}  # fmt: skip


def read(path: Path) -> Source:
    """The checkpoint, or the folder that holds it; it may lack autoencoder and text tower.

    Heads cannot be read from it: 8 and 8, unless a config.json beside it, the official yaml as
    JSON, says otherwise.

    Raises:
      InputError: a checkpoint of something else, or a key that is missing or unknown.
    """
    path = _file(Path(path))
    weights = open_weights(path)
    parts = {network: ldm.within(weights, prefix) for network, prefix in NETWORKS.items()}
    text = ldm.within(weights, ldm.TEXT)
    _check_keys(path, weights, parts)
    fields = ldm.unet_fields(parts["denoiser"], path)
    tables = [stored.shape[1] for key, stored in parts["denoiser"].items() if key.endswith(".pe")]
    fields |= {
        "control_channels": _hint_channels(parts["control"], path),
        "temporal": any("motion_module" in key for key in parts["denoiser"]),
        **({"max_frames": min(tables)} if tables else {}),
        **_heads(path.parent / "config.json"),
    }
    pairs, found = ldm.unet_pairs(fields), {}
    dropped = [key for key in parts["portrait_encoder"] if key.startswith(HINT)]
    for key in dropped:
        del parts["portrait_encoder"][key]
    for network in _NEEDED:
        found[network] = ldm.renamed(parts[network], pairs)
    if parts["autoencoder"]:
        fields["kl"] = ldm.vae_fields(parts["autoencoder"], path)
        found["autoencoder"] = ldm.renamed(parts["autoencoder"], ldm.vae_pairs(fields["kl"]))
    if text:
        context = prompt.tower(text)
    elif (path.parent / PROMPT).is_file():
        context = next(iter(prompt.read(path.parent / PROMPT).weights["prompt"].values()))
    else:
        context = None
    if context is not None:
        found["prompt"] = {"weight": context}
        fields["prompt_tokens"] = context.shape[0]
    _check_schedule(weights)
    steps = sum(name in weights for name in SCHEDULE)
    pe = sum(key.endswith(".pe") for key in weights)
    print(
        f"note: {path}: {len(weights)} tensors: dropped are {len(dropped)} of the reference "
        f"network's {HINT}* (never run), {steps} of the noise schedule and {pe} tables of "
        f"positions (computed), {len(text)} of the text tower (run once, on the empty prompt)"
    )
    sample = SAMPLE | {"window": min(SAMPLE["window"], fields.get("max_frames", SAMPLE["window"]))}
    sample["overlap"] = min(sample["overlap"], sample["window"] // 4)
    settings = {"diffusion": DIFFUSION, "sample": sample}
    return Source(str(path), fields, found, settings, "x_portrait")


def _file(path: Path) -> Path:
    """The checkpoint in a folder."""
    if not path.is_dir():
        return path
    found = [file for file in sorted(path.glob("model_state*")) if file.suffix in _SUFFIXES]
    if len(found) != 1:
        there = ", ".join(file.name for file in found) or "none"
        raise InputError(f"{path}: one file model_state*.th is wanted, there is {there}: name it")
    return found[0]


def _check_keys(path: Path, weights: dict[str, Stored], parts: dict[str, dict]) -> None:
    """Every key has its network; every network that is needed is there."""
    known = (*NETWORKS.values(), ldm.TEXT)
    if (first := "input_blocks.0.0.weight") in weights:
        raise InputError(
            f"{path}: {first}: one network alone, not X-Portrait's checkpoint: Stable Diffusion's "
            "is of the kind ldm"
        )
    for key in weights:
        if key.startswith("model_ema."):
            raise InputError(f"{path}: {key}: averaged weights (EMA): give a file without them")
        if not key.startswith(known) and key not in (*SCHEDULE, "lvlb_weights"):
            raise InputError(f"{path}: {key}: no key of X-Portrait's checkpoint")
    for network in _NEEDED:
        if not parts[network]:
            plain = parts["denoiser"] and network != "denoiser"
            hint = "Stable Diffusion alone is of the kind ldm" if plain else "give model_state*.th"
            raise InputError(
                f"{path}: has no {NETWORKS[network]}*: not X-Portrait's checkpoint; {hint}"
            )


def _hint_channels(control: dict[str, Stored], path: Path) -> tuple[int, ...]:
    """Channels of the stem and after each stride-2 convolution, every other one."""
    try:
        channels = [control[f"{HINT}0.weight"].shape[0]]
    except KeyError as error:
        raise InputError(
            f"{path}: {NETWORKS['control']}{error.args[0]} is missing: download it again"
        ) from None
    count = len([key for key in control if re.fullmatch(rf"{HINT}\d+\.weight", key)])
    for i in range(2, count - 1, 2):
        channels.append(control[f"{HINT}{2 * i}.weight"].shape[0])
    return tuple(channels)


def _heads(config: Path) -> dict[str, int]:
    """Heads of attention over pixels and over frames by the official config in JSON."""
    if not config.is_file():
        return {}
    try:
        unet = read_json(config)["model"]["params"]["unet_config"]["params"]
        motion = unet["unet_additional_kwargs"]["motion_module_kwargs"]
        found = {"heads": unet["num_heads"], "temporal_heads": motion["num_attention_heads"]}
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{config}: no official config ({error} is missing): give "
            "config/cldm_v15_appearance_pose_local_mm.yaml as JSON, or leave it out"
        ) from None
    for name, value in found.items():
        if not isinstance(value, int) or value < 1:
            raise InputError(f"{config}: {name} is {value!r}: use a whole number")
    return found


def _check_schedule(weights: dict[str, Stored]) -> None:
    if "alphas_cumprod" not in weights:
        return
    stored, ours = weights["alphas_cumprod"], make_process(DIFFUSION).alphas_cumprod
    found = stored.read()
    # Half precision keeps three digits.
    if found.shape != ours.shape or not np.allclose(found.astype(np.float64), ours, 2e-3, 1e-3):
        raise InputError(
            f"{stored.file}: alphas_cumprod is another noise schedule than Stable Diffusion's"
        )


def write(source: Path, config: dict, networks: dict[str, dict[str, Stored]], folder: Path) -> None:
    """A folder with model_state.th as the official script loads it.

    source: of the weights, for messages.

    The text tower, which is CLIP's own and not kept, is left out: the official code loads it by
    itself. Beside the file lie what it does not tell: heads, and the prompt, for export.

    Raises:
      InputError: weights of another system, or some of whose networks are missing.
    """
    model = config["model"]
    for network in _NEEDED:
        if network not in networks:
            raise InputError(
                f"{source}: no {network} among these weights: only complete ones of x_portrait can "
                "leave as x-portrait"
            )
    if model["autoencoder"] != "kl" or not model["temporal"]:
        raise InputError(
            f"{source}: the official script wants latents of Stable Diffusion and motion modules"
        )
    write_torch(folder / "model_state.th", {"state_dict": state(config, networks)})
    motion = {"motion_module_kwargs": {"num_attention_heads": model["temporal_heads"]}}
    unet = {"params": {"num_heads": model["heads"], "unet_additional_kwargs": motion}}
    values = {"model": {"params": {"unet_config": unet}}}
    (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n")
    if "prompt" in networks:
        context = {"context": networks["prompt"]["embedding"]}
        write_safetensors(folder / PROMPT, context, {"format": "pt"})


def state(config: dict, networks: dict[str, dict[str, Stored]]) -> dict[str, Stored]:
    """The official state dict, but for the text tower, of networks in our names and layout."""
    model = config["model"]
    made = {name: _held(name, array) for name, array in _schedule(config).items()}
    pairs = {
        network: ldm.vae_pairs(model["kl"]) if network == "autoencoder" else ldm.unet_pairs(model)
        for network in NETWORKS
    }
    for network, prefix in NETWORKS.items():
        name = ldm.translator([(ours, theirs) for theirs, ours in pairs[network]])
        for path, stored in networks.get(network, {}).items():
            key = prefix + name(torch_key(path))
            made[key] = transposed(stored, path, _to_ldm, "torch")
            if "attention_blocks" in key and key.endswith("to_q.weight"):
                table = key.replace("to_q.weight", "pos_encoder.pe")
                made[table] = _held(
                    table, frame_positions(model["max_frames"], stored.shape[0])[None]
                )
    control, appearance = NETWORKS["control"], NETWORKS["portrait_encoder"]
    for key in [key for key in made if key.startswith(control + HINT)]:
        dead = appearance + key.removeprefix(control)
        made[dead] = _held(dead, np.zeros(made[key].shape, np.float32))
    return made


def _held(key: str, array: np.ndarray) -> Stored:
    return Stored(Path(), key, array.shape, str(array.dtype), lambda: array)


def _to_ldm(array: np.ndarray, path: str) -> np.ndarray:
    """As `to_torch`; LDM's autoencoder attends by convolutions."""
    array = to_torch(array, path)
    pixels = re.search(r"coder/mid_block/attentions_0/to_\w+/kernel$", path)
    return array[:, :, None, None] if pixels else array


def _schedule(config: dict) -> dict[str, np.ndarray]:
    """The 13 vectors of the official sampler, float32 [T]."""
    alphas = make_process(config["diffusion"]).alphas_cumprod
    before = np.append(1.0, alphas[:-1])
    betas = 1 - alphas / before
    variance = betas * (1 - before) / (1 - alphas)
    values = (
        betas, alphas, before, alphas**0.5, (1 - alphas) ** 0.5, np.log(1 - alphas),
        (1 / alphas) ** 0.5, (1 / alphas - 1) ** 0.5, variance, np.log(np.maximum(variance, 1e-20)),
        betas * before**0.5 / (1 - alphas), (1 - before) * (1 - betas) ** 0.5 / (1 - alphas),
        np.zeros(len(alphas)),
    )  # fmt: skip
    return {name: value.astype(np.float32) for name, value in zip(SCHEDULE, values, strict=True)}
