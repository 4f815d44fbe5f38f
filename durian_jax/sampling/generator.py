"""The Generator: inference inputs in, frames out, a clip on each device at a time."""

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np
from tqdm import tqdm

from durian_jax.diffusion import solvers
from durian_jax.diffusion.process import Diffusion
from durian_jax.diffusion.windows import Windows, walk
from durian_jax.distributed import chips, sharding
from durian_jax.sampling import sampler
from durian_jax.systems.durian.config import check_batch
from durian_jax.systems.durian.model import Durian, DurianConfig
from input_pipeline.errors import InputError

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
      memory: bytes that a program may use on each device; None if unknown.
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
        self.load(params)
        self.memory = _memory(self.mesh)
        self._parts = _parts(self.model, self.diffusion, self.mesh)
        self._programs = {}

    def load(self, params: dict) -> None:
        """Goes on with other parameters of the same shapes; compiled programs serve these, too."""
        self.params = jax.device_put(params, sharding.replicated(self.mesh))

    def __call__(
        self, inputs: list[dict], seeds: list[int], sampling: solvers.Sampling, watch: Stopwatch
    ) -> Iterator[np.ndarray]:
        """Frames uint8 [N, n, S, S, 3] as they are finished, in order; n differs.

        Clips longer than a window are sampled in overlapping windows, whose memory does not grow
        with the clip. The noise of a clip depends on its seed alone, not on
        what is sampled beside it.

        Args:
          inputs: N batch contracts without their clip axis, of equal shapes; see
            `sampler.condition` for those that interpolate.
          seeds: one for each, 0 to 2^32 - 1.

        Raises:
          InputError: a program needs more memory than a device has.
        """
        # Devices without a clip of their own repeat the last one.
        filled = [min(i, len(inputs) - 1) for i in range(_up(len(inputs), self.mesh.size))]
        batch = jax.tree.map(lambda *x: np.stack(x), *(inputs[i] for i in filled))
        check_batch(batch, self.model.config, "inputs")
        keypoints = batch.pop("keypoints")
        windows = Windows(keypoints.shape[1], sampling.window, sampling.overlap)
        seeds = self._put(np.array([seeds[i] for i in filled], np.uint32))
        schedule = solvers.Schedule.trailing(self.diffusion, sampling)
        conditions = self._run("condition", watch, self._put(batch))
        finished = self._whole if len(windows) == 1 else self._windowed
        for latents, count in finished(windows, conditions, keypoints, seeds, schedule, watch):
            videos = self._run("decode", watch, self._put(latents))
            yield np.asarray(videos)[: len(inputs), :count]

    def _whole(self, windows, conditions, keypoints, seeds, schedule, watch):
        """The latents of short clips, in one scan that is cut only to show progress."""
        frames = windows.frames(0)
        features = self._run("keypoint_features", watch, self._put(keypoints))
        at = self._run("start", watch, seeds, frames)
        with self._bar(len(schedule.timesteps), watch) as bar:
            for part in schedule.slices(PROGRESS_PARTS):
                at = self._run("denoise", watch, at, conditions, features, part)
                bar.update(len(part.timesteps))
        yield at.latents, len(frames)

    def _windowed(self, windows, conditions, keypoints, seeds, schedule, watch):
        """The latents of long clips, see `windows.walk`, in parts as long as a window."""
        steps, length = len(schedule.timesteps), windows.length

        def noise(frames):
            return self._run("start", watch, seeds, frames).latents

        def predict(z, frames, step):
            return self._run(
                "predict", watch, self._put(z), conditions.frames(frames),
                self._put(keypoints[:, frames]), schedule.part(step),
            )  # fmt: skip

        def advance(z, clean, prediction, frames, step):
            z, clean, prediction = self._put((z, clean, prediction))
            at = solvers.Trajectory(z, clean, seeds, frames)
            at = self._run("advance", watch, at, prediction, schedule.part(step))
            return at.latents, at.clean

        with self._bar(steps * len(windows), watch) as bar:
            held = np.zeros((len(keypoints), 0, *self.model.config.latent_shape), np.float32)
            for latents in walk(windows, steps, noise, predict, advance, bar.update):
                held = np.concatenate([held, latents], 1)
                while held.shape[1] >= length:
                    yield held[:, :length], length
                    held = held[:, length:]
            if count := held.shape[1]:
                yield np.pad(held, ((0, 0), (0, length - count), *((0, 0),) * 3), "edge"), count

    def _bar(self, steps: int, watch: Stopwatch) -> tqdm:
        return tqdm(total=steps, desc="denoising", unit="step", disable=watch.quiet)

    def _put(self, tree):
        """Arrays [B, ...], split over the devices."""
        return jax.device_put(tree, sharding.batch_sharding(self.mesh))

    def _run(self, name: str, watch: Stopwatch, *arguments):
        """Calls a part of the sampler; says so and times it when it has to be compiled first."""
        function, place = self._parts[name]
        shapes = jax.tree.map(lambda x: (np.shape(x), str(x.dtype)), arguments)
        key = (name, str(shapes))
        if key not in self._programs:
            with watch.phase(f"compiling {name}"):
                donated = 1 if name == "denoise" else ()
                program = jax.jit(function, out_shardings=place, donate_argnums=donated)
                lowered = program.lower(self.params, *arguments)
                self._programs[key] = self._compile(name, lowered, arguments)
        with watch.phase(name, silent=True):
            return jax.block_until_ready(self._programs[key](self.params, *arguments))

    def _compile(self, name: str, lowered, arguments: tuple):
        """The program of a part. InputError: it needs more memory than a device has."""
        try:
            program = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            # The compiler for TPUs refuses by itself what does not fit.
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            knob = _knob(name, "a smaller --window and --overlap")
            raise InputError(f"{name} needs more memory than a device has: use {knob}") from None
        sizes = program.memory_analysis()
        if self.memory is None or sizes is None:
            return program
        weights = sum(leaf.nbytes for leaf in jax.tree.leaves(self.params))
        leaves = jax.tree.leaves(arguments)
        inputs = sum(leaf.nbytes for leaf in leaves) / self.mesh.size
        # Donated inputs are results, too.
        results = sizes.output_size_in_bytes - sizes.alias_size_in_bytes
        live, window = inputs + results + sizes.temp_size_in_bytes, None
        if weights + live <= self.memory:
            return program
        if name in ("denoise", "predict"):
            frames = leaves[0].shape[1]
            fitting = int(frames * (self.memory - weights) / live)
            if 1 < fitting < frames:
                window = f"a --window of about {fitting} and a smaller --overlap"
        needed, there = (f"{size / 2**30:.3g} GiB" for size in (weights + live, self.memory))
        raise InputError(
            f"{name} needs about {needed} on each device, {there} are there: use "
            f"{_knob(name, window)}"
        )


def _knob(name: str, window: str | None) -> str:
    """What lets a part of the sampler fit; window: what to say of that, None for nothing."""
    knob = {"condition": "fewer attributes", "denoise": window, "predict": window}.get(name)
    return f"{knob}, or a device with more memory" if knob else "a device with more memory"


def _memory(mesh) -> float | None:
    """Bytes of each device, where they are known. Devices of a CPU share its memory."""
    device = mesh.devices.flat[0]
    if device.platform == "cpu":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / mesh.size
    stats = device.memory_stats() or {}
    return stats.get("bytes_limit", chips.of_device(device).memory)


def _parts(model: Durian, diffusion: Diffusion, mesh) -> dict[str, tuple[Callable, object]]:
    """Functions of (params, ...) to compile, and where their results shall lie: None leaves that
    to the compiler."""
    spread = sharding.batch_sharding(mesh)
    walking = solvers.Trajectory(spread, spread, spread, sharding.replicated(mesh))

    def start(params, seeds, frames):
        noise = sampler.initial_noise(model, diffusion, seeds, frames)
        return solvers.Trajectory.start(noise, seeds, frames)

    def predict(params, z, conditions, keypoints, now):
        features = sampler.keypoint_features(model, params, keypoints)
        return sampler.predict(model, params, z, conditions, features, now)

    def advance(params, at, prediction, now):
        return solvers.advance(diffusion, at, prediction, now)

    def decode(params, latents):
        return sampler.to_uint8(sampler.decode(model, params, latents))

    return {
        "condition": (functools.partial(sampler.condition, model), None),
        "keypoint_features": (functools.partial(sampler.keypoint_features, model), spread),
        "start": (start, walking),
        "denoise": (functools.partial(sampler.denoise, model, diffusion=diffusion), walking),
        "predict": (predict, spread),
        "advance": (advance, walking),
        "decode": (decode, spread),
    }


def _up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple
