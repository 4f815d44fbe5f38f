"""What all systems have in common of their shape: pictures and their latents, in plain values."""

import dataclasses
from collections.abc import Mapping
from dataclasses import field
from typing import ClassVar, Self

from durian_jax.models.autoencoder import AutoencoderConfig, AutoencoderKL, CosinePatches, Patchify


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Pictures and the autoencoder that makes latents of them; the defaults are the full size.

    Attributes:
        resolution: side of the square pictures, in pixels.
        autoencoder: "kl" for Stable Diffusion's, "patchify" for exact patches of pixels, "cosine"
            for their frequencies, see CosinePatches.
        kl: shape of the autoencoder, for "kl"; else it may be None.
        patch: side of a patch in pixels, for all but "kl".
        dtype: compute dtype, "bfloat16" or "float32"; parameters are float32 either way.

    Raises:
        ValueError: values that do not fit together.
    """

    resolution: int = 512
    autoencoder: str = "kl"
    kl: AutoencoderConfig | None = field(default_factory=AutoencoderConfig)
    patch: int = 8
    dtype: str = "bfloat16"

    # Fields that are configs themselves.
    nested: ClassVar[dict[str, type]] = {"kl": AutoencoderConfig}

    @classmethod
    def from_dict(cls, values: Mapping) -> Self:
        """Builds the config from a plain (or ml_collections) dict of fields.

        Those of `nested` are dicts of fields themselves, or None; their dtype is the model's unless
        they state one. What is not given is as by default.

        Raises:
            ValueError: unknown fields, or values that do not fit together.
        """
        values = dict(values.items())
        dtype = {"dtype": values.get("dtype", cls.dtype)}
        for one in dataclasses.fields(cls):
            if one.name not in cls.nested:
                continue
            if one.name not in values:
                values[one.name] = dataclasses.replace(one.default_factory(), **dtype)
            elif (fields := values[one.name]) is not None:
                fields = dtype | dict(fields.items())
                kind = cls.nested[one.name]
                values[one.name] = _from_fields(kind, fields, f"model.{one.name}")
        return _from_fields(cls, values, "model")

    def __post_init__(self):
        if self.autoencoder not in ("kl", "patchify", "cosine"):
            raise ValueError(
                f"autoencoder must be 'kl', 'patchify' or 'cosine', not {self.autoencoder!r}"
            )
        if self.autoencoder == "cosine" and self.patch % 2:
            raise ValueError(f"patch={self.patch}: 'cosine' needs an even number of pixels")
        if self.autoencoder == "kl" and self.kl is None:
            raise ValueError("autoencoder 'kl' needs its shape in kl")
        for part in (getattr(self, name) for name in self.nested):
            if part is not None and part.dtype not in ("bfloat16", "float32"):
                raise ValueError(f"dtype must be 'bfloat16' or 'float32', not {part.dtype!r}")

    @property
    def factor(self) -> int:
        """Pixels per latent cell, each way."""
        if self.autoencoder != "kl":
            return self.patch
        return 2 ** (len(self.kl.block_out_channels) - 1)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(h, w, c) of one frame's latents."""
        size = self.resolution // self.factor
        if self.autoencoder == "kl":
            return size, size, self.kl.latent_channels
        # Of the frequencies of both colour differences a quarter is kept.
        return size, size, self.patch**2 * 3 // (1 if self.autoencoder == "patchify" else 2)

    def make_autoencoder(self) -> AutoencoderKL | Patchify | CosinePatches:
        """The module that makes latents of pictures and pictures of latents."""
        if self.autoencoder == "kl":
            return AutoencoderKL(self.kl)
        return {"patchify": Patchify, "cosine": CosinePatches}[self.autoencoder](self.patch)


def _from_fields(kind: type, fields: Mapping, where: str):
    """Builds a config dataclass; lists become tuples, unknown names are refused."""
    known = [f.name for f in dataclasses.fields(kind)]
    for name in fields:
        if name not in known:
            raise ValueError(f"{where} has no field {name!r}; it has {', '.join(known)}")
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})
