"""Denoiser forward pass and guided step against the PyTorch peer, in one process.

    python -m benchmarks.sample --device cpu --size reduced
    XLA_PYTHON_CLIENT_PREALLOCATE=false python -m benchmarks.sample --device gpu --size full \
        --frames 24 --steps 25

Needs the [torch] extra. The step is ours as it is sampled (references projected once, nothing
computed and dropped) and the peer's as it is usually written, see benchmarks/peer.py. Outputs are
compared first. --steps adds whole clips of so many steps, references and decoding included.
Prints a report in Markdown for benchmarks/results.
"""

import argparse
import functools
import sys

import jax
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import scene, timing
from benchmarks.peer import Peer
from durian_jax.diffusion import solvers
from durian_jax.diffusion.process import Discrete
from durian_jax.models.conditions import rasterize_keypoints
from durian_jax.sampling import sampler
from durian_jax.training import flops

GUIDANCE = solvers.Sampling.guidance
# Relative norm of the difference that rounding explains, by compute dtype.
LIMITS = {"float32": 1e-4, "bfloat16": 5e-2}


def main() -> None:
    options = _options()
    gpu = options.device == "gpu"
    config = scene.load_config(options.size, options.dtype or ("bfloat16" if gpu else "float32"))
    title = f"Sampling, {options.size} size, {options.frames} frames, {config.model.dtype}"
    command = f"python -m benchmarks.sample {' '.join(sys.argv[1:])}"
    print(timing.header(title, command, ("torch", "diffusers")), flush=True)
    model, params = scene.build(config)
    peer = Peer(config, params, "cuda" if gpu else "cpu").half()
    params = jax.device_put(params)
    run = Ours(model, params, options.frames, options.steps)
    theirs = Theirs(peer, run, options.frames)

    cases, work, memory = {}, {}, {}
    limit = LIMITS[config.model.dtype]
    names = ("forward", "step", "clip")[: 3 if options.steps else 2]
    for name in names:
        compiled, arguments = run.compiled(name)
        ours = functools.partial(_wait, compiled, *arguments)
        theirs_now = functools.partial(theirs, name)
        memory |= _memory(name, compiled, ours, theirs_now, gpu)
        print(timing.check_equal(name, ours(), theirs.value(name), limit), flush=True)
        cases |= {f"{name}, ours": ours, f"{name}, PyTorch": theirs_now}
        work[f"{name}, ours"] = flops.count(getattr(run, name), *arguments).model
        plain = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
        with plain, FlopCounterMode(display=False) as counter:  # it does not know the CPU's kernel
            theirs_now()
        work[f"{name}, PyTorch"] = counter.get_total_flops()
    if gpu:
        compiled_peer = Theirs(peer.compile(), run, options.frames)
        for name in names:
            cases[f"{name}, PyTorch compiled"] = functools.partial(compiled_peer, name)
            cases[f"{name}, PyTorch compiled"]()
            work[f"{name}, PyTorch compiled"] = work[f"{name}, PyTorch"]
    cases["matmul"], work["matmul"] = timing.peak_product(config.model.dtype)
    cases["matmul"]()
    times = timing.interleave(cases, options.rounds, options.clock)
    for name in names:
        mine = {n: t for n, t in times.items() if n.startswith(name) or n == "matmul"}
        print(f"\n## {name}\n\n{timing.table(mine, f'{name}, PyTorch', work, memory)}", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--size", choices=scene.SIZES, default="reduced")
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--dtype", choices=tuple(LIMITS), help="default: bfloat16 on a GPU")
    parser.add_argument("--steps", type=int, default=0, help="of whole clips; 0 leaves them out")
    parser.add_argument("--clock", choices=tuple(timing.CLOCKS), default="wall")
    parser.add_argument("--rounds", type=int, default=12)
    options = parser.parse_args()
    jax.config.update("jax_platforms", {"cpu": "cpu", "gpu": "cuda"}[options.device])
    return options


class Ours:
    """Our forward pass and step, each a function of arrays alone."""

    def __init__(self, model, params: dict, frames: int, steps: int):
        self.model, self.params = model, params
        self.process, self.seeds = Discrete(), np.array([3], np.uint32)
        sampling = solvers.Sampling(steps=steps or 25, guidance=GUIDANCE)
        self.schedule = solvers.Schedule.build(self.process, sampling)
        self.batch = scene.draw_batch(model, frames)
        rng = np.random.default_rng(2)
        self.noisy = rng.standard_normal((1, frames, *model.latent_shape), np.float32)
        self.timesteps = np.array([600], np.int32)
        self.pictures = rasterize_keypoints(self.batch["keypoints"], model.size)
        self.conditions = self._apply("encode_clip", self.batch)
        self.frames = self._apply("encode_frames", self.batch)

    def _apply(self, method: str, *arguments):
        apply = functools.partial(self.model.apply, method=method)
        return jax.jit(apply)({"params": self.params}, *arguments)

    def forward(self, params, noisy, t, conditions, frames):
        """One evaluation with references."""
        parts = self.model.parts
        return self.model.apply(
            {"params": params}, noisy, t, conditions, frames, parts, method="predict"
        )

    def step(self, params, noisy, t, conditions, frames, now):
        """The prediction of one guided step, `now`, as the sampler makes it."""
        now = now.replace(times=t[0])
        return sampler.predict(self.model, params, noisy, conditions, frames, now)

    def clip(self, params, batch, seeds, schedule):
        """A whole clip, from pictures to pictures."""
        return sampler.sample(self.model, params, batch, seeds, schedule, process=self.process)

    def compiled(self, name: str) -> tuple:
        """The compiled function and what to call it with."""
        if name == "clip":
            arguments = self.params, self.batch, self.seeds, self.schedule
        else:
            arguments = self.params, self.noisy, self.timesteps, self.conditions, self.frames
        if name == "step":
            arguments += (self.schedule.step(0),)
        arguments = jax.device_put(arguments)
        return jax.jit(getattr(self, name)).lower(*arguments).compile(), arguments


class Theirs:
    """The same of the peer, on the same clip."""

    def __init__(self, peer: Peer, ours: Ours, frames: int):
        self.peer = peer
        inputs = peer.inputs(ours.batch, ours.pictures)
        with torch.no_grad():
            banks, context = peer.encode(inputs)
            features = peer.features(inputs["keypoint_pictures"])
        noisy = peer.tensor(ours.noisy).to(peer.dtype)
        t = torch.tensor(int(ours.timesteps[0]), device=peer.device)
        common = noisy, t, features, banks, context
        noise = sampler.initial_noise(
            ours.model, ours.process, ours.seeds, np.arange(frames, dtype=np.int32)
        )
        times = ours.schedule.times
        alphas = ours.process.alphas_cumprod[times]
        table = [
            (int(t), float(alpha), float(after))
            for t, alpha, after in zip(times, alphas, [*alphas[1:], 1.0], strict=True)
        ]
        self.arguments = {
            "forward": common,
            "step": (*common, GUIDANCE),
            "clip": (peer.tensor(noise), table, inputs, GUIDANCE),
        }

    @torch.no_grad()
    def __call__(self, name: str) -> torch.Tensor:
        result = getattr(self.peer, name)(*self.arguments[name])
        if self.peer.device == "cuda":
            torch.cuda.synchronize()
        return result

    def value(self, name: str) -> np.ndarray:
        """The result, channels last."""
        return np.moveaxis(self(name).float().cpu().numpy(), -3, -1)


def _wait(function, *arguments):
    return function(*arguments).block_until_ready()


def _memory(name, compiled, ours, theirs, gpu) -> dict[str, int]:
    """Bytes besides weights and inputs: growth of the process in the first call, or the GPU's."""
    if not gpu:
        return {
            f"{name}, ours": timing.resident_growth(ours),
            f"{name}, PyTorch": timing.resident_growth(theirs),
        }
    planned = compiled.memory_analysis()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    theirs()
    return {
        f"{name}, ours": planned.temp_size_in_bytes + planned.output_size_in_bytes,
        f"{name}, PyTorch": torch.cuda.max_memory_allocated() - before,
    }


if __name__ == "__main__":
    main()
