"""FLOPs of a clip by X-Portrait at full size, beside the official procedure's.

    python -m benchmarks.x_portrait_work

Counted in the traced programs of the Generator, one count for each, and multiplied by how often
they run. The official code (bytedance/X-Portrait) goes the same windows and steps, but runs the
reference network, and projects what it tells, for every frame of every window, and encodes the
portrait twice for every frame. PyTorch also runs what follows the last tokens of the reference
network. Prints a report in Markdown for benchmarks/results.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from benchmarks import timing
from configs import x_portrait
from durian_jax.diffusion import windows
from durian_jax.diffusion.process import make_process
from durian_jax.diffusion.solvers import Sampling
from durian_jax.sampling import sampler
from durian_jax.systems.system import build, init_params
from durian_jax.training import flops

LENGTHS = (16, 28, 100, 250, 1000)
TERA = 1e12


@dataclasses.dataclass(frozen=True)
class Costs:
    """TFLOP of what a clip is made of.

    Attributes:
      reference: the reference network and the projection of what it tells, of one picture.
      tail: of the reference network, behind its last tokens.
      window: a guided prediction of `length` frames. controls: of it the ControlNets.
      pictures: features of their control pictures.
      encode, decode: the autoencoder, one frame.
      length, overlap, steps: of the official settings.
    """

    reference: float
    tail: float
    window: float
    controls: float
    pictures: float
    encode: float
    decode: float
    length: int
    overlap: int
    steps: int

    def windows(self, frames: int) -> int:
        """How many there are at each step."""
        return len(windows.Circular(frames, self.length, self.overlap))

    def step(self, frames: int) -> float:
        """Our step: the reference network once."""
        return self.reference + self.windows(frames) * (self.window + self.pictures)

    def official_step(self, frames: int) -> float:
        """The official one: the reference network for every frame of every window."""
        one = self.length * (self.reference + self.tail) + self.window + self.pictures
        return self.windows(frames) * one

    def shared_step(self, frames: int) -> float:
        """Ours if the ControlNets, which see single frames, ran once for each frame."""
        repeated = self.windows(frames) - frames / self.length
        return self.step(frames) - repeated * (self.controls + self.pictures)

    def clip(self, frames: int) -> float:
        """A whole clip of ours; the portrait is encoded for the start, and for the references."""
        return self.steps * self.step(frames) + 2 * self.encode + frames * self.decode

    def official_clip(self, frames: int) -> float:
        """The official one."""
        return self.steps * self.official_step(frames) + frames * (2 * self.encode + self.decode)


@functools.cache
def count() -> Costs:
    """Traces every program once, for the full size and the settings of the checkpoint."""
    config = x_portrait.get_config("stage3")
    system = build(config.to_dict())
    sampling = Sampling.from_settings(config.sample).changed(steps=30)
    schedule = sampler.make_schedule(system, make_process(config.diffusion), sampling)
    params = jax.eval_shape(lambda: init_params(system, jax.random.key(0)))
    length, now = min(sampling.window, system.max_frames), schedule.step(0)
    batch = jax.eval_shape(lambda: system.blank_batch(1, length))
    frame_inputs = {name: batch.pop(name) for name in system.frame_inputs}

    def shapes(function, *arguments):
        return jax.eval_shape(functools.partial(function, system), params, *arguments)

    def work(function, *arguments) -> flops.Work:
        traced = functools.partial(function, system)
        return flops.count(traced, params, *arguments, networks=system.networks)

    clip = shapes(sampler.encode_clip, batch)
    timed = shapes(sampler.at_time, clip, now)
    frames = shapes(sampler.encode_frames, frame_inputs)
    z = jax.ShapeDtypeStruct((1, length, *system.latent_shape), jnp.float32)
    guided = work(sampler.predict, z, timed, frames, now)
    reference = work(sampler.at_time, clip, now)
    networks = guided.of_networks()

    def whole(system, params, latents, now):
        def run(model, x):
            return model.portrait_encoder._blocks(x, now.times[None], model.prompt(), None, None)[0]

        return system.apply({"params": params}, latents[:, 0], method=run)

    one = jax.ShapeDtypeStruct((1, 1, *system.latent_shape), jnp.float32)
    return Costs(
        reference=reference.model / TERA,
        tail=(work(whole, one, now).model - reference.of_networks()["portrait_encoder"]) / TERA,
        window=guided.model / TERA,
        controls=(networks["control"] + networks["local_control"]) / TERA,
        pictures=work(sampler.encode_frames, frame_inputs).model / TERA,
        encode=work(sampler.encode_source, batch).model / TERA,
        decode=work(sampler.decode, one).model / TERA,
        length=length, overlap=sampling.overlap, steps=len(schedule),
    )  # fmt: skip


def main() -> None:
    print(timing.header("FLOPs of X-Portrait's clips", "python -m benchmarks.x_portrait_work"))
    costs = count()
    for field in dataclasses.fields(costs):
        value = getattr(costs, field.name)
        text = f"{value} " if isinstance(value, int) else f"{value:.3f} TF"
        print(f"- {field.name}: {text.strip()}")
    print(
        "\n| frames | windows | a step, TF | official | ratio | a clip, PF | official | ratio "
        f"| a step with the ControlNets once a frame |\n|{9 * '---:|'}"
    )
    for frames in LENGTHS:
        step, official = costs.step(frames), costs.official_step(frames)
        clip, whole = costs.clip(frames) / 1e3, costs.official_clip(frames) / 1e3
        print(
            f"| {frames} | {costs.windows(frames)} | {step:.1f} | {official:.1f} | "
            f"{step / official:.3f} | {clip:.2f} | {whole:.2f} | {clip / whole:.3f} | "
            f"{costs.shared_step(frames) / official:.3f} |"
        )


if __name__ == "__main__":
    main()
