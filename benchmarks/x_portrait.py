"""A guided step of X-Portrait against the official order of work in PyTorch, in one process.

    python -m benchmarks.x_portrait --frames 8
    taskset -c 0 python -m benchmarks.x_portrait --frames 8 --clock processor

Needs torch. The step is one window's, from noisy latents and control pictures to the guided
prediction: ours as the Generator runs it, the peer's as the official code does, see
benchmarks/x_portrait_peer.py. Weights go through `durian convert --to x-portrait`; outputs are
compared before anything is timed. Prints a report in Markdown for benchmarks/results.
"""

import argparse
import functools
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import scene, timing
from benchmarks.x_portrait_peer import XPortrait
from configs import x_portrait
from durian_jax.convert import exporter
from durian_jax.diffusion.process import make_process
from durian_jax.diffusion.solvers import Sampling
from durian_jax.models.autoencoder import signed
from durian_jax.sampling import sampler
from durian_jax.training import flops
from durian_jax.weights import storage

LIMIT = 1e-4  # relative norm of the difference that rounding explains, float32


def load_config(size: str):
    """configs/x_portrait.py in float32; reduced: as that of `scene`."""
    config = x_portrait.get_config("stage3")
    if size == "reduced":
        like = scene.load_config(size, "float32").model
        for name in ("resolution", "channels", "heads", "temporal_heads", "norm_groups", "kl"):
            config.model[name] = like[name]
        config.model.update(context_dim=64, control_channels=(8, 16, 24, 64))
    config.model.update(dtype="float32", remat=())
    return config


def main() -> None:
    options = _options()
    command = f"python -m benchmarks.x_portrait {' '.join(sys.argv[1:])}"
    title = f"A guided step of X-Portrait, {options.size} size, {options.frames} frames, float32"
    print(timing.header(title, command, ("torch",)), flush=True)
    config = load_config(options.size)
    system, params = scene.build(config)
    theirs = peer(system, params, config)
    batch = scene.draw_batch(system, options.frames)
    rng = np.random.default_rng(2)
    z = rng.standard_normal((1, options.frames, *system.latent_shape), np.float32)
    sampling = Sampling.from_settings(config.sample)
    now = sampler.make_schedule(system, make_process(config.diffusion), sampling).step(10)
    encode = functools.partial(system.apply, method="encode_clip")
    clip = jax.jit(encode)({"params": params}, batch)

    def step(params, z, clip, pictures, now):
        timed = sampler.at_time(system, params, clip, now)
        frames = sampler.encode_frames(system, params, pictures)
        return sampler.predict(system, params, z, timed, frames, now)

    pictures = {name: batch[name] for name in system.frame_inputs}
    arguments = jax.device_put((params, z, clip, pictures, now))
    compiled = jax.jit(step).lower(*arguments).compile()

    def first(x):
        """[1, F, H, W, C] -> [F, C, H, W]."""
        return torch.from_numpy(np.moveaxis(np.asarray(x[0], np.float32), -1, -3).copy())

    inputs = (
        first(z), int(now.times), first(clip.latents),
        *(first(signed(picture)) for picture in pictures.values()),
        torch.from_numpy(params["prompt"]["embedding"])[None], float(sampling.guidance),
    )  # fmt: skip

    @torch.no_grad()
    def run():
        return theirs.step(*inputs)

    cases = {"ours": lambda: compiled(*arguments).block_until_ready(), "PyTorch": run}
    memory = {name: timing.resident_growth(case) for name, case in cases.items()}
    found = np.moveaxis(run().numpy(), -3, -1)[None]
    print(timing.check_equal("step", cases["ours"](), found, LIMIT), flush=True)
    work = {"ours": flops.count(step, *arguments).model}
    plain = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
    with plain, FlopCounterMode(display=False) as counter:  # it does not know the CPU's kernel
        run()
    work["PyTorch"] = counter.get_total_flops()
    cases["matmul"], work["matmul"] = timing.peak_product("float32")
    cases["matmul"]()
    times = timing.interleave(cases, options.rounds, options.clock)
    print(f"\n{timing.table(times, 'PyTorch', work, memory)}")


def peer(system, params: dict, config) -> XPortrait:
    """The PyTorch networks with our weights, by way of a file in the official layout."""
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Path(folder) / "ours", Path(folder) / "theirs"
        networks = ((name, storage.flat(tree)) for name, tree in params.items())
        storage.write(ours, networks, {"config": config.to_dict()})
        exporter.to_layout("x-portrait", ours, theirs)
        state = torch.load(theirs / "model_state.th", weights_only=True)["state_dict"]
    networks = XPortrait(system.config)
    networks.load(state)
    return networks.eval().requires_grad_(False)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=scene.SIZES, default="reduced")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--clock", choices=tuple(timing.CLOCKS), default="wall")
    parser.add_argument("--rounds", type=int, default=7)
    return parser.parse_args()


if __name__ == "__main__":
    main()
