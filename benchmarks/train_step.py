"""A whole training step against the PyTorch peer, in one process.

    python -m benchmarks.train_step --device cpu --size reduced
    XLA_PYTHON_CLIENT_PREALLOCATE=false python -m benchmarks.train_step --device gpu --size full \
        --stage stage1 --frames 1 --clips 16

Needs the [torch] extra. The step is `durian train`'s: autoencoder, CLIP and ArcFace without
gradients, encoders and denoiser with them, clipping, AdamW, moving average. The peer draws the same
noise; loss and gradient norm of the first step are compared, then both go on. Stage "all" trains
spatial and temporal layers together. Prints a report in Markdown for benchmarks/results.
"""

import argparse
import sys

import jax
import numpy as np
import torch
from flax.traverse_util import flatten_dict
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import peer, scene, timing
from benchmarks.compiled_step import CompiledStep
from durian_jax.convert.names import torch_key
from durian_jax.diffusion.process import Discrete
from durian_jax.models.conditions import rasterize_keypoints
from durian_jax.training.train_step import stream_key

# Relative difference of loss and gradient norm that rounding explains, by compute dtype.
LIMITS = {"float32": 1e-4, "bfloat16": 3e-2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--size", choices=scene.SIZES, default="reduced")
    parser.add_argument("--stage", choices=("all", "stage1", "stage2"), default="all")
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--clips", type=int, default=1)
    parser.add_argument("--remat", choices=("none", "attention", "full"), default="none")
    parser.add_argument("--clock", choices=tuple(timing.CLOCKS), default="wall")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    if options.stage == "stage1" and options.frames > 1:
        parser.error(
            "--frames: stage1 draws a timestep for each frame, the peer for each clip: use 1"
        )
    gpu = options.device == "gpu"
    jax.config.update("jax_platforms", "cuda" if gpu else "cpu")
    config = scene.load_config(
        options.size,
        "bfloat16" if gpu else "float32",
        "stage1" if options.stage == "stage1" else "stage2",
    )
    config.model.remat = (options.remat,) * 4
    config.stage.dropout, config.optimizer.warmup_steps = 0.0, 0
    if options.stage == "all":
        config.stage.trainable = (".*_encoder/", "denoiser/", "face_projection/")
    title = (
        f"Training step, {options.size} size, {options.stage}, {options.clips} x {options.frames} "
        f"frames, {config.model.dtype}, remat {options.remat}"
    )
    command = f"python -m benchmarks.train_step {' '.join(sys.argv[1:])}"
    print(timing.header(title, command, ("torch", "diffusers")), flush=True)
    model, params = scene.build(config)
    batch = scene.draw_batch(model, options.frames, options.clips)
    ours = CompiledStep(config, params, batch)
    theirs = Theirs(config, model, params, batch, ours.layout, "cuda" if gpu else "cpu")
    del params

    memory = {}
    if gpu:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        theirs_first = theirs()
        memory["PyTorch"] = torch.cuda.max_memory_allocated() - before
        memory["ours"] = max(ours.memory["gradients"], ours.memory["update"])
        ours_first = ours()
    else:
        found = {}
        for name, step in (("ours", ours), ("PyTorch", theirs)):
            memory[name] = timing.resident_growth(lambda n=name, s=step: found.update({n: s()}))
        ours_first, theirs_first = found["ours"], found["PyTorch"]
    for i, name in enumerate(("loss", "gradient norm")):
        limit = LIMITS[config.model.dtype]
        print(timing.check_equal(name, ours_first[i : i + 1], theirs_first[i : i + 1], limit))
    cases = {"ours": ours, "PyTorch": theirs}
    work = {"ours": ours.work, "PyTorch": theirs.work()}
    if gpu:
        theirs.peer = theirs.peer.compile()
        theirs()
    cases["matmul"], work["matmul"] = timing.peak_product(config.model.dtype)
    cases["matmul"]()
    times = timing.interleave(cases, options.rounds, options.clock)
    print(f"\n{timing.table(times, 'PyTorch', work, memory)}", flush=True)


class Theirs:
    """The peer's step on the same clips, with the noise that ours draws at the first step."""

    def __init__(self, config, model, params, batch, trained, device):
        self.config, self.device = config, device
        self.peer = peer.Peer(config, params, device)
        pictures = rasterize_keypoints(batch["keypoints"], model.size)
        self.inputs = self.peer.inputs(batch, pictures)
        diffusion = Discrete(**config.diffusion)
        clips, frames = batch["video"].shape[:2]
        keys = jax.random.split(stream_key(config.seed, "train", 0), clips)
        timesteps, posterior, noise, offset = jax.vmap(
            lambda key: _draw(key, diffusion.num_timesteps, (frames, *model.latent_shape))
        )(keys)
        self.noise = self.peer.tensor(noise + diffusion.noise_offset * offset)
        self.posterior = self.peer.tensor(posterior)
        self.t = torch.from_numpy(np.array(timesteps)).to(device)
        alphas = diffusion.alphas_cumprod[np.array(timesteps)]
        scales = np.sqrt(alphas), np.sqrt(1 - alphas), diffusion.loss_weight(timesteps)
        self.signal, self.sigma, self.weight = (
            torch.from_numpy(np.array(x, np.float32)).to(device).reshape(-1, 1, 1, 1, 1)
            for x in scales
        )
        self.trained = []
        for network, tree in trained.items():
            parameters = self.peer.nets[network].named_parameters()
            # The peer wraps the norms of its motion modules.
            tensors = {name.replace("norm.norm.", "norm."): p for name, p in parameters}
            self.trained += [tensors[torch_key(path)] for path in flatten_dict(tree, sep="/")]
        for tensor in self.trained:
            tensor.requires_grad_(True)
        settings = config.optimizer
        matrices, vectors = ([p for p in self.trained if (p.ndim > 1) == m] for m in (True, False))
        groups = [
            {"params": matrices, "weight_decay": settings.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, fused=True)
        # It makes its moments at the first step: now, so that they count as state, as ours do.
        for tensor in self.trained:
            tensor.grad = torch.zeros_like(tensor)
        self.optimizer.step()
        self.optimizer.zero_grad()
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate
        self.average = [p.detach().clone() for p in self.trained]

    def __call__(self) -> np.ndarray:
        """Loss and gradient norm."""
        loss = self._loss()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.trained, self.config.optimizer.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.trained, 1 - self.config.ema_decay)
        return np.array([loss.item(), norm.item()])

    def _loss(self) -> torch.Tensor:
        net, inputs = self.peer, self.inputs
        with net.autocast():
            with torch.no_grad():
                video, posterior = inputs["video"].flatten(0, 1), self.posterior.flatten(0, 1)
                latents = net.latents(video, posterior).unflatten(0, self.noise.shape[:2])
            noisy = self.signal * latents + self.sigma * self.noise
            target = self.signal * self.noise - self.sigma * latents
            banks, context = net.encode(inputs)
            features = net.features(inputs["keypoint_pictures"])
            prediction = net.forward(noisy, self.t, features, banks, context)
            return (self.weight * (prediction.float() - target).square()).mean()

    def work(self) -> int:
        """FLOPs of a step as PyTorch counts them; attention has to be the plain one for that."""
        math = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
        with math, FlopCounterMode(display=False) as counter:
            self._loss().backward()
        self.optimizer.zero_grad()
        return counter.get_total_flops()


def _draw(key, num_timesteps, shape):
    """What a clip gets of chance in `train_step`: time step, posterior, noise and its offset."""
    keys = jax.random.split(key, 5)
    timestep = jax.random.randint(keys[0], (), 0, num_timesteps)
    posterior, noise = (jax.random.normal(keys[i], shape) for i in (2, 3))
    return timestep, posterior, noise, jax.random.normal(keys[4], (1, 1, 1, shape[-1]))


if __name__ == "__main__":
    main()
