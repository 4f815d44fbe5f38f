"""The Generator: inference inputs in, videos out, a clip on each device at a time."""

import contextlib
import functools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from durian_jax import sampler, sharding
from durian_jax.diffusion import Diffusion
from durian_jax.models.durian import Durian, DurianConfig

PROGRESS_PARTS = 10


class Stopwatch:
    """Seconds by phase; each phase says on one line what is going on."""

    def __init__(self, quiet: bool = False):
        self.quiet = quiet
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def phase(self, name: str, silent: bool = False):
        if not silent:
            tqdm.write(f"{name} ...")
        start = time.perf_counter()
        yield
        spent = self.seconds.get(name, 0.0) + time.perf_counter() - start
        self.seconds[name] = round(spent, 2)


class Generator:
    """Samples on some devices of this process; compiled programs are kept between calls.

    Attributes:
      model, diffusion: what the config describes.
      params: whole on every device.
      mesh: of the devices; clips are split over it.
    """

    def __init__(self, params: dict, config: dict, devices: list | None = None):
        """
        Args:
          params: all parameters of the model.
          config: the config that they were trained with, in plain values.
          devices: of this process; default the first.
        """
        self.model = Durian(DurianConfig.from_dict(config["model"]))
        self.diffusion = Diffusion(**config["diffusion"])
        self.mesh = sharding.make_mesh(1, devices or jax.local_devices()[:1])
        self.params = jax.device_put(params, sharding.replicated(self.mesh))
        self._window, self._overlap = config["sample"]["window"], config["sample"]["overlap"]
        self._programs = {}

    def __call__(
        self,
        inputs: list[dict],
        seeds: list[int],
        schedule: sampler.Schedule,
        guidance: float,
        watch: Stopwatch,
    ) -> np.ndarray:
        """Videos uint8 [N, F, S, S, 3].

        The noise of a clip depends on its seed alone, not on what is sampled beside it.

        Args:
          inputs: N batch contracts without their clip axis, of equal shapes.
          seeds: one for each.
          guidance: classifier-free guidance scale; at 1 the program has no unconditional half.
        """
        options = sampler.SamplerOptions(self._window, self._overlap, guided=guidance != 1)
        spread, scale = sharding.batch_sharding(self.mesh), jnp.float32(guidance)
        # Devices without a clip of their own repeat the last one.
        filled = [min(i, len(inputs) - 1) for i in range(_up(len(inputs), self.mesh.size))]
        batch = {
            name: jax.device_put(np.stack([inputs[i][name] for i in filled]), spread)
            for name in inputs[0]
        }
        encoded = self._run(sampler.encode, watch, batch)
        frames = encoded[1].shape[1]
        noise = [
            sampler.initial_noise(self.model, jax.random.key(seeds[i]), 1, frames) for i in filled
        ]
        start = jax.device_put(jnp.concatenate(noise), spread)
        walk, steps = sampler.Trajectory.start(start), len(schedule.timesteps)
        with tqdm(total=steps, desc="denoising", unit="step", disable=watch.quiet) as bar:
            for part in schedule.slices(PROGRESS_PARTS):
                walk = self._run(
                    sampler.denoise, watch, walk, *encoded, scale, part,
                    place=spread, diffusion=self.diffusion, options=options,
                )  # fmt: skip
                bar.update(len(part.timesteps))
        videos = sampler.to_uint8(self._run(sampler.decode, watch, walk.latents))
        return np.asarray(videos)[: len(inputs)]

    def _run(self, function: Callable, watch: Stopwatch, *arguments, place=None, **fixed):
        """Calls a part of the sampler; says so and times it when it has to be compiled first.

        `place` is where its results shall lie; None leaves that to the compiler.
        """
        name = function.__name__
        shapes = jax.tree.map(lambda x: (x.shape, str(x.dtype)), arguments)
        key = (name, str(shapes), str(fixed))
        if key not in self._programs:
            with watch.phase(f"compiling {name}"):
                program = jax.jit(
                    functools.partial(function, self.model, **fixed), out_shardings=place
                )
                self._programs[key] = program.lower(self.params, *arguments).compile()
        with watch.phase(name, silent=True):
            return jax.block_until_ready(self._programs[key](self.params, *arguments))


def _up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple
