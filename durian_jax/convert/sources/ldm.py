"""Stable Diffusion checkpoints in the layout of its first code (LDM): `v1-5-pruned.ckpt` and kin.

Its names and diffusers' are lists of the same modules: one table of prefixes serves both ways, for
X-Portrait's networks, too, which come in this layout.
"""

import re
from collections.abc import Callable
from pathlib import Path

from durian_jax.convert.source import UNETS, Source
from durian_jax.convert.sources.files import open_weights
from durian_jax.weights.storage import Stored
from input_pipeline.errors import InputError

Pairs = list[tuple[str, str]]  # (their prefix, ours)

UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model."
_RESNET: Pairs = [
    ("in_layers.0.", "norm1."), ("in_layers.2.", "conv1."), ("emb_layers.1.", "time_emb_proj."),
    ("out_layers.0.", "norm2."), ("out_layers.3.", "conv2."),
    ("skip_connection.", "conv_shortcut."),
]  # fmt: skip
_MOTION: Pairs = [
    ("transformer_blocks.0.attention_blocks.0.", "transformer_blocks.0.attn1."),
    ("transformer_blocks.0.attention_blocks.1.", "transformer_blocks.0.attn2."),
    ("transformer_blocks.0.norms.0.", "transformer_blocks.0.norm1."),
    ("transformer_blocks.0.norms.1.", "transformer_blocks.0.norm2."),
    ("transformer_blocks.0.ff_norm.", "transformer_blocks.0.norm3."),
    ("", ""),
]
_OTHER = re.compile(r"(^|_)control_model\.|_motion_module\.")


def read(path: Path) -> Source:
    """A file of a Stable Diffusion 1.x. Raises InputError: it holds no such networks."""
    path = Path(path)
    weights = open_weights(path)
    # A network alone, whose keys have nothing in front of them.
    for key, prefix in (("input_blocks.0.0.weight", UNET), ("encoder.conv_in.weight", VAE)):
        if key in weights:
            weights = {prefix + key: stored for key, stored in weights.items()}
    unet, vae = within(weights, UNET), within(weights, VAE)
    vae = {key: stored for key, stored in vae.items() if not key.startswith("loss.")}
    if others := [key for key in weights if _OTHER.search(key)]:
        raise InputError(
            f"{path}: {others[0]}: not Stable Diffusion alone: X-Portrait's is of the "
            "kind x-portrait"
        )
    fields, networks = {}, {}
    if unet:
        found = unet_fields(unet, path)
        inputs = unet["input_blocks.0.0.weight"].shape
        if "out.2.weight" in unet and inputs[1] != unet["out.2.weight"].shape[0]:
            raise InputError(
                f"{path}: {UNET}input_blocks.0.0.weight is {inputs}: only plain denoisers fit, not "
                "those for inpainting or depth"
            )
        ours = renamed(unet, unet_pairs(found))
        fields |= found
        networks |= {network: dict(ours) for network in UNETS}
    if vae:
        fields["kl"] = vae_fields(vae, path)
        networks["autoencoder"] = renamed(vae, vae_pairs(fields["kl"]))
    if not networks:
        raise InputError(
            f"{path}: has neither {UNET}* nor {VAE}*: give a Stable Diffusion 1.x checkpoint in "
            "the layout of its first code"
        )
    return Source(str(path), fields, networks)


def within(weights: dict[str, Stored], prefix: str) -> dict[str, Stored]:
    """Those whose key begins with a prefix, without it."""
    return {
        key.removeprefix(prefix): stored
        for key, stored in weights.items()
        if key.startswith(prefix)
    }


def renamed(weights: dict[str, Stored], pairs: Pairs) -> dict[str, Stored]:
    """Under our names; what no pair knows keeps its own, and finds no place in the model."""
    name = translator(pairs)
    return {name(key) or key: stored for key, stored in weights.items()}


def translator(pairs: Pairs) -> Callable[[str], str | None]:
    """A function that puts the second of a pair where a key begins with the first."""
    ordered = sorted(pairs, key=lambda pair: -len(pair[0]))

    def translate(key: str) -> str | None:
        for before, after in ordered:
            if key.startswith(before):
                return after + key[len(before) :]
        return None

    return translate


def unet_fields(unet: dict[str, Stored], path: Path, prefix: str = UNET) -> dict:
    """Fields of `config.model` that a U-Net in this layout, or half of one, tells by its shapes.

    Raises:
      InputError: a key is missing. `path`, `prefix`: of the keys, for messages.
    """
    steps = sorted(
        int(found[1]) for key in unet if (found := re.match(r"input_blocks\.(\d+)\.0\.op\.w", key))
    )
    layers = steps[0] - 1 if steps else 1
    try:
        firsts = [1 + level * (layers + 1) for level in range(len(steps) + 1)]
        return {
            "channels": tuple(
                unet[f"input_blocks.{i}.0.out_layers.3.weight"].shape[0] for i in firsts
            ),
            "layers_per_block": layers,
            "attention_levels": tuple(
                level for level, i in enumerate(firsts) if f"input_blocks.{i}.1.norm.weight" in unet
            ),
            "context_dim": unet["middle_block.1.transformer_blocks.0.attn2.to_k.weight"].shape[1],
            "latent_channels": unet["input_blocks.0.0.weight"].shape[1],
        }
    except KeyError as error:
        raise InputError(f"{path}: {prefix}{error.args[0]} is missing: download it again") from None


def unet_pairs(fields: dict) -> Pairs:
    """The names of a U-Net of such fields, its control trunk and X-Portrait's motion modules."""
    layers, levels = fields["layers_per_block"], len(fields["channels"])
    attention, pairs = fields["attention_levels"], []

    def resnet(theirs: str, ours: str) -> None:
        pairs.extend((f"{theirs}{one}", f"{ours}{two}") for one, two in _RESNET)

    def motion(theirs: str, ours: str) -> None:
        pairs.extend((f"{theirs}{one}", f"{ours}{two}") for one, two in _MOTION)

    for level in range(levels):
        for i in range(layers):
            block, ours = level * (layers + 1) + i + 1, f"down_blocks.{level}"
            resnet(f"input_blocks.{block}.0.", f"{ours}.resnets.{i}.")
            pairs.append((f"input_blocks.{block}.1.", f"{ours}.attentions.{i}."))
            number = level * layers + i
            motion(_motion("input", number), f"{ours}.motion_modules.{i}.")
        pairs.append(
            (f"input_blocks.{(level + 1) * (layers + 1)}.0.op.",
             f"down_blocks.{level}.downsamplers.0.conv.")
        )  # fmt: skip
        for i in range(layers + 1):
            block, ours = level * (layers + 1) + i, f"up_blocks.{level}"
            has_attention = levels - 1 - level in attention
            resnet(f"output_blocks.{block}.0.", f"{ours}.resnets.{i}.")
            if has_attention:
                pairs.append((f"output_blocks.{block}.1.", f"{ours}.attentions.{i}."))
            motion(_motion("output", block), f"{ours}.motion_modules.{i}.")
        pairs.append(
            (f"output_blocks.{block}.{1 + has_attention}.conv.", f"{ours}.upsamplers.0.conv.")
        )
    resnet("middle_block.0.", "mid_block.resnets.0.")
    pairs.append(("middle_block.1.", "mid_block.attentions.0."))
    resnet("middle_block.2.", "mid_block.resnets.1.")
    pairs += [
        ("time_embed.0.", "time_embedding.linear_1."), ("input_blocks.0.0.", "conv_in."),
        ("time_embed.2.", "time_embedding.linear_2."), ("out.0.", "conv_norm_out."),
        ("out.2.", "conv_out."), ("middle_block_out.0.", "controlnet_mid_block."),
    ]  # fmt: skip
    pairs += [
        (f"zero_convs.{k}.0.", f"controlnet_down_blocks.{k}.") for k in range(levels * (layers + 1))
    ]
    stages = 2 * len(fields.get("control_channels", ())) - 2
    names = ["conv_in", *(f"blocks.{i}" for i in range(stages)), "conv_out"]
    pairs += [
        (f"input_hint_block.{2 * i}.", f"controlnet_cond_embedding.{name}.")
        for i, name in enumerate(names)
    ]
    return pairs


def _motion(side: str, number: int) -> str:
    return f"{side}_blocks_motion_module.{number}.0.temporal_transformer."


def vae_fields(vae: dict[str, Stored], path: Path) -> dict:
    """Shape of the autoencoder. Raises InputError: a key is missing."""

    def count(pattern: str) -> int:
        return len({found[1] for key in vae if (found := re.match(pattern, key))})

    levels = count(r"encoder\.down\.(\d+)\.")
    try:
        return {
            "block_out_channels": tuple(
                vae[f"encoder.down.{level}.block.0.conv2.weight"].shape[0]
                for level in range(levels)
            ),
            "layers_per_block": count(r"encoder\.down\.0\.block\.(\d+)\."),
            "latent_channels": vae["post_quant_conv.weight"].shape[0],
        }
    except KeyError as error:
        raise InputError(f"{path}: {VAE}{error.args[0]} is missing: download it again") from None


def vae_pairs(fields: dict) -> Pairs:
    """The names of an autoencoder of such fields."""
    levels, layers = len(fields["block_out_channels"]), fields["layers_per_block"]
    pairs: Pairs = [("quant_conv.", "quant_conv."), ("post_quant_conv.", "post_quant_conv.")]

    def resnet(theirs: str, ours: str) -> None:
        pairs.extend([(f"{theirs}nin_shortcut.", f"{ours}conv_shortcut."), (theirs, ours)])

    for half, down, sampler, blocks in (
        ("encoder", "down", "downsample", layers), ("decoder", "up", "upsample", layers + 1)
    ):  # fmt: skip
        for level in range(levels):
            # LDM numbers levels from fine to coarse on the way up, too.
            place = level if down == "down" else levels - 1 - level
            theirs, ours = f"{half}.{down}.{level}.", f"{half}.{down}_blocks.{place}."
            for i in range(blocks):
                resnet(f"{theirs}block.{i}.", f"{ours}resnets.{i}.")
            pairs.append((f"{theirs}{sampler}.", f"{ours}{sampler}rs.0."))
        for i in range(2):
            resnet(f"{half}.mid.block_{i + 1}.", f"{half}.mid_block.resnets.{i}.")
        theirs, ours = f"{half}.mid.attn_1.", f"{half}.mid_block.attentions.0."
        pairs += [
            (f"{theirs}{one}.", f"{ours}{two}.")
            for one, two in (
                ("norm", "group_norm"), ("q", "to_q"), ("k", "to_k"), ("v", "to_v"),
                ("proj_out", "to_out.0"),
            )
        ]  # fmt: skip
        pairs += [
            (f"{half}.norm_out.", f"{half}.conv_norm_out."),
            (f"{half}.conv_in.", f"{half}.conv_in."), (f"{half}.conv_out.", f"{half}.conv_out."),
        ]  # fmt: skip
    return pairs
