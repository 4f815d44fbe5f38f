"""The Generator: inference inputs in, frames out, a clip on each device at a time."""

import itertools
from collections.abc import Iterator

import jax
import numpy as np

from durian_jax.diffusion import solvers, windows
from durian_jax.diffusion.process import make_process
from durian_jax.distributed import sharding
from durian_jax.sampling import sampler
from durian_jax.sampling.program import Program, Stopwatch
from durian_jax.systems.system import build, check_batch
from input_pipeline.errors import InputError


class Generator:
    """Samples on some devices of this process; compiled programs are kept between calls.

    Attributes:
      system, process: what the config describes.
      params: whole on every device.
      mesh: of the devices; clips are split over it.
      encode_clip, at_time, encode_frames, encode_history, noise, source, noised, predict, advance,
        decode: the programs.
    """

    def __init__(self, params: dict, config: dict, devices: list | None = None):
        """
        Args:
          params: all parameters of the system.
          config: the config that they were trained with, in plain values.
          devices: of this process; default the first.
        """
        self.system, self.process = build(config), make_process(config["diffusion"])
        self.mesh = sharding.make_mesh(1, devices or jax.local_devices()[:1])
        self.load(params)
        system, mesh, spread = self.system, self.mesh, sharding.batch_sharding(self.mesh)
        state = solvers.SamplerState(spread, spread, spread, sharding.replicated(mesh))

        def encode_clip(params, batch):
            return sampler.encode_clip(system, params, batch)

        def at_time(params, clip, now):
            return sampler.at_time(system, params, clip, now)

        def encode_frames(params, batch):
            return sampler.encode_frames(system, params, batch)

        def encode_history(params, latents):
            return sampler.encode_history(system, params, latents)

        def noise(params, seeds, frames):
            del params
            return sampler.initial_noise(system, self.process, seeds, frames)

        def source(params, batch):
            return sampler.encode_source(system, params, batch)

        def noised(params, source, noise):
            del params
            return sampler.noised(self.process, source, noise)

        def predict(params, z, clip, frames, now, history):
            return sampler.predict(system, params, z, clip, frames, now, history)

        def advance(params, at, prediction, now):
            del params
            return solvers.advance(self.process, at, prediction, now)

        def decode(params, latents):
            return sampler.to_uint8(sampler.decode(system, params, latents))

        more = "a device with more memory"
        self.encode_clip = Program(
            "references", encode_clip, mesh, remedy=f"fewer attributes, or {more}"
        )
        self.at_time = Program("references", at_time, mesh)
        self.source = Program("source", source, mesh, spread)
        self.noised = Program("source", noised, mesh, spread)
        self.encode_frames = Program("motion", encode_frames, mesh, spread)
        self.encode_history = Program("history", encode_history, mesh)
        self.noise = Program("noise", noise, mesh, spread)
        self.predict = Program("denoiser", predict, mesh, spread, windowed=True)
        self.advance = Program("solver", advance, mesh, state)
        self.decode = Program("decoder", decode, mesh, spread)

    def load(self, params: dict) -> None:
        """Goes on with other parameters of the same shapes; compiled programs serve these, too."""
        self.params = jax.device_put(params, sharding.replicated(self.mesh))

    def __call__(
        self, inputs: list[dict], seeds: list[int], sampling: solvers.Sampling, watch: Stopwatch
    ) -> Iterator[np.ndarray]:
        """Frames uint8 [N, n, S, S, 3] as they are finished, in order; n differs.

        Clips longer than a window are sampled in several, see `Sampling.windows`. The noise of a
        clip depends on its seed alone, not on what is sampled beside it.

        Args:
          inputs: N batch contracts without their clip axis, of equal shapes; see
            `System.encode_clip` for those that interpolate. Those of frames need only `shape`,
            `dtype` and reading by places, as `FollowedPictures` have them.
          seeds: one for each, 0 to 2^32 - 1.

        Raises:
          InputError: a program needs more memory than a device has; windows are longer than the
            model takes, or shorter than the history that each should leave to the next.
        """
        # Devices without a clip of their own repeat the last one.
        filled = [min(i, len(inputs) - 1) for i in range(_up(len(inputs), self.mesh.size))]
        kept, frame_inputs = zip(*(self._split(inputs[i]) for i in filled))
        batch = jax.tree.map(lambda *x: np.stack(x), *kept)
        unread = {
            name: jax.ShapeDtypeStruct((len(filled), *frames.shape), frames.dtype)
            for name, frames in frame_inputs[0].items()
        }
        check_batch(batch | unread, self.system, "inputs")
        count = len(next(iter(frame_inputs[0].values())))
        seeds = self._put(np.array([seeds[i] for i in filled], np.uint32))
        schedule = sampler.make_schedule(self.system, self.process, sampling)
        windowing = windows.make(count, sampling.windows, sampling.window, sampling.overlap)
        if self.system.temporal and windowing.length > self.system.max_frames:
            raise InputError(
                f"{sampling.window}: the model takes at most {self.system.max_frames} frames at a "
                "time: use no more",
                option="window",
            )
        if sampling.windows == "chained" and windowing.length < min(count, self.system.history):
            raise InputError(
                f"{sampling.window}: the model looks {self.system.history} frames back: use at "
                "least as many",
                option="window",
            )
        batch, source = self._put(batch), None
        clip = self.encode_clip(watch, self.params, batch)
        if sampling.start == "source":
            source = self.source(watch, self.params, {"portrait": batch["portrait"]})
        length, decoded = windowing.length, 0
        held = np.zeros((len(filled), 0, *self.system.latent_shape), np.float32)
        for latents in self._denoise(windowing, clip, frame_inputs, seeds, source, schedule, watch):
            held = np.concatenate([held, latents], 1)
            while held.shape[1] >= length:
                watch.progress("decoding", decoded, count)
                decoded += length
                yield self._decode(held[:, :length], watch)[: len(inputs)]
                held = held[:, length:]
        if rest := held.shape[1]:
            watch.progress("decoding", decoded, count)
            padded = np.pad(held, ((0, 0), (0, length - rest), *((0, 0),) * 3), "edge")
            yield self._decode(padded, watch)[: len(inputs), :rest]

    def _split(self, inputs: dict) -> tuple[dict, dict]:
        """What stands for the whole clip, and what is read a window at a time."""
        names = [name for name in self.system.frame_inputs if name in inputs]
        kept = {name: x for name, x in inputs.items() if name not in names}
        return kept, {name: inputs[name] for name in names}

    def _denoise(
        self, windowing, clip, frame_inputs, seeds, source, schedule, watch
    ) -> Iterator[np.ndarray]:
        """Latents [B, n, h, w, c] of the next frames, see `denoise_windows`."""
        steps, total = len(schedule), len(schedule) * len(windowing)
        # The encoded frames of the last window, and what came before it: short clips have no other.
        known, before = {}, None
        # The clip at each step that is in progress, and the windows that it will still be used for.
        at_step, remaining = {}, [len(windowing)] * steps

        def noise(frames):
            drawn = self.noise(watch, self.params, seeds, frames)
            return drawn if source is None else self.noised(watch, self.params, source, drawn)

        def predict(z, frames, step):
            if (window := tuple(frames)) not in known:
                known.clear()
                last = windowing.num_frames - 1  # stands for what is beyond
                read = [
                    {name: x[np.minimum(frames, last)] for name, x in one.items()}
                    for one in frame_inputs
                ]
                inputs = self._put(jax.tree.map(lambda *x: np.stack(x), *read))
                encoded, history = self.encode_frames(watch, self.params, inputs), None
                if before is not None:
                    history = self.encode_history(watch, self.params, self._put(before))
                known[window] = encoded, history
            now = schedule.step(step)
            if step not in at_step:
                timed = self.system.timed
                at_step[step] = self.at_time(watch, self.params, clip, now) if timed else clip
            remaining[step] -= 1
            this = at_step[step] if remaining[step] else at_step.pop(step)
            encoded, history = known[window]
            return self.predict(watch, self.params, self._put(z), this, encoded, now, history)

        def advance(z, clean, prediction, frames, step):
            z, clean, prediction = self._put((z, clean, prediction))
            at = solvers.SamplerState(z, clean, seeds, frames)
            at = self.advance(watch, self.params, at, prediction, schedule.step(step))
            return at.latents, at.clean

        done = itertools.count(1)
        watch.progress("denoising", 0, total)
        for latents in windows.denoise_windows(
            windowing, steps, noise, predict, advance,
            lambda: watch.progress("denoising", next(done), total),
        ):  # fmt: skip
            if isinstance(windowing, windows.Chained) and self.system.history:
                before = latents[:, -self.system.history :]
            yield latents

    def _decode(self, latents: np.ndarray, watch: Stopwatch) -> np.ndarray:
        return np.asarray(self.decode(watch, self.params, self._put(latents)))

    def _put(self, tree):
        """Arrays [B, ...], split over the devices."""
        return jax.device_put(tree, sharding.batch_sharding(self.mesh))


def _up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple
