"""What a system is: the members that loop, sampler, planner, evaluator and animator use.

A system is one folder of `durian_jax.systems`; its `model.py` has a function `build` of the values
of `config.model`. Nothing outside asks which system it has. Letters: `durian_jax.models`.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from durian_jax import systems
from input_pipeline.errors import InputError

Batch = Mapping[str, jax.Array]
Tree = Any  # a pytree of arrays


class System(Protocol):
    """A linen module with these members; those of arrays are called through `apply`.

    Attributes:
      config: the shape of the model, a dataclass.
      size: side of the square pictures, pixels.
      latent_shape: (h, w, c) of a frame's latents.
      max_frames: most frames that are denoised together.
      temporal: whether the frames of a clip see each other, and so share their time.
      parts: conditions that training drops and guidance leaves out, each after those it needs.
      frame_inputs: keys of the batch that have an axis of frames and that `encode_frames` reads.
      timed: whether what a clip tells depends on the time; then there is `at_time`.
      history: how many frames before its window `predict` can be told of; 0 for none. Else the last
        of `parts` is "history", there is `encode_history`, and `encode_clip` gives a dict.
      networks: top-level names of the parameters, the denoiser first.
    """

    config: Any
    size: int
    latent_shape: tuple[int, int, int]
    max_frames: int
    temporal: bool
    parts: tuple[str, ...]
    frame_inputs: tuple[str, ...]
    timed: bool
    history: int
    networks: tuple[str, ...]

    def blank_batch(self, clips: int, frames: int) -> dict[str, jax.Array]:
        """The batch contract in zeros: keys, shapes and dtypes; see `check_batch`."""

    def __call__(self, batch: Batch, z: jax.Array, t: jax.Array, keep: jax.Array | None = None):
        """The training forward pass, all of the below; with `init` it makes every parameter."""

    def encode_video(self, video: jax.Array, noise: jax.Array | None = None) -> jax.Array:
        """uint8 [B, F, H, W, 3] -> float32 [B, F, h, w, c]; noise of that shape draws from the
        posterior of an autoencoder that has one."""

    def decode_video(self, latents: jax.Array) -> jax.Array:
        """[B, F, h, w, c] -> float32 [B, F, H, W, 3], about [-1, 1]."""

    def encode_clip(self, batch: Batch) -> Tree:
        """What holds for a whole clip and every step."""

    def at_time(self, clip: Tree, t: jax.Array) -> Tree:
        """What `predict` is told of a clip at times t, where that differs: once a step, however
        many windows of frames there are. t: int32 [B], or [B, F] as in `predict`. The leaves of
        `clip` begin with B."""

    def encode_history(self, latents: jax.Array) -> Tree:
        """What the frames before a window tell, from their clean latents [B, history, h, w, c]:
        once for a window. `predict` finds it in the clip, as "history"."""

    def encode_frames(self, batch: Batch) -> Tree:
        """What belongs to single frames; leaves [B, F, ...], so that a window is a slice."""

    def predict(
        self,
        z: jax.Array,
        t: jax.Array,
        clip: Tree,
        frames: Tree,
        parts: tuple[str, ...],
        keep: jax.Array | None = None,
    ) -> jax.Array:
        """One evaluation of the denoiser.

        Args:
          z: [B, F, h, w, c], noisy. t: [B], or [B, F] where frames do not see each other.
          clip: of `encode_clip`, or of `at_time` where `timed`. frames: of `encode_frames`.
          parts: the conditions that are there at all; static, so that an absent one costs nothing.
          keep: bool [B, len(parts)]; False drops a condition of a clip, as training does.

        Returns:
          float32, shaped like z, in the units of `Process.target`.
        """

    def remarks(self, batch: Batch) -> list[str]:
        """What the user should know about the first batch of his data."""

    def dead_parameters(self) -> tuple[str, ...]:
        """Patterns of parameters that no output depends on: never trained, never decayed."""

    def align(self, params: dict) -> dict:
        """Initial parameters as `config.aligned_init` wants them, for training from scratch."""


def build(config: Mapping) -> System:
    """The system of a config in plain values: `config["system"]` and `config["model"]`.

    Raises:
      InputError: no such system.
      ValueError: fields of `config.model` that it does not have, or that do not fit together.
    """
    name, values = system_name(config), dict(config["model"].items())
    values.pop("references", None)
    if not values.get("control_channels", True):  # of configs of before x_portrait had them
        del values["control_channels"]
    known = sorted(found.name for found in pkgutil.iter_modules(systems.__path__) if found.ispkg)
    if name not in known:
        raise InputError(f"config: system={name!r}: choose {', '.join(known)}")
    return importlib.import_module(f"durian_jax.systems.{name}.model").build(values)


def system_name(config: Mapping) -> str:
    """`config["system"]`; configs of before there were several say it in `model.references`."""
    single = config["model"].get("references") == "single"
    return config.get("system", "animate_anyone" if single else "durian")


def init_params(system: System, key: jax.Array) -> dict:
    """Freshly drawn parameters of all networks; `jax.eval_shape` it for shapes."""
    z = jnp.zeros((1, 1, *system.latent_shape))
    return system.init(key, system.blank_batch(1, 1), z, jnp.zeros(1, jnp.int32))["params"]


def takes_attributes(system: System) -> bool:
    """Whether it wears attributes of others, or animates a portrait as it is."""
    return "attribute" in jax.eval_shape(lambda: system.blank_batch(1, 1))


def check_batch(batch: Batch, system: System, source: str) -> None:
    """Compares a batch with the contract, whose clips, frames and number of references are free.

    Keys that the contract does not have (of padding, interpolation) pass; `video` and `id` may be
    missing, as they are at inference, and `history` then, too.

    Raises:
      InputError: a key is missing, or has another dtype, other axes or another size.
    """
    for name, one in jax.eval_shape(lambda: system.blank_batch(1, 1)).items():
        # Axes of 1 are those of clips, of frames and of references.
        wanted = tuple("any" if size == 1 else size for size in one.shape)
        if name not in batch:
            if name in ("video", "id") or (name == "history" and "video" not in batch):
                continue
            raise InputError(f"{source}: the batch has no {name!r}, {one.dtype} {wanted}")
        found = batch[name]
        same = len(found.shape) == len(wanted) and all(
            want in ("any", size) for want, size in zip(wanted, found.shape)
        )
        if found.dtype != one.dtype or not same:
            raise InputError(
                f"{source}: {name!r} of the batch is {found.dtype} {tuple(found.shape)}, the model "
                f"takes {one.dtype} {wanted}"
            )
