"""The small model's training step against the same model trained the usual way, in one process.

    python -m benchmarks.small_step

Usual: 16 clips of one frame, flax's convolutions. Ours: 4 clips of 4 frames that share their
reference features, `durian_jax.models.conv`. All train 16 frames a step, so that times are those of
equal numbers of frames; the step is `durian train`'s. Prints a report in Markdown for
benchmarks/results.
"""

import argparse
import contextlib
import sys
from unittest import mock

import flax.linen as nn
import jax
from ml_collections import ConfigDict

from benchmarks import scene, timing
from benchmarks.compiled_step import CompiledStep
from configs import small
from durian_jax.models.conv import Conv

# Clips, frames of each, whose convolutions.
CASES = {
    "16 x 1, flax's": (16, 1, nn.Conv),
    "16 x 1, ours": (16, 1, Conv),
    "4 x 4, flax's": (4, 4, nn.Conv),
    "4 x 4, ours": (4, 4, Conv),
}
USUAL = "16 x 1, flax's"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clock", choices=tuple(timing.CLOCKS), default="wall")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    config = small.get_config("stage1")
    command = f"python -m benchmarks.small_step {' '.join(sys.argv[1:])}".rstrip()
    print(timing.header("Training step of configs/small.py, 16 frames", command), flush=True)
    model, params = scene.build(config)
    cases, work = {}, {}
    for name, (clips, frames, convolution) in CASES.items():
        batch = scene.draw_batch(model, frames, clips)
        with convolutions(convolution):
            cases[name] = CompiledStep(ConfigDict(config.to_dict()), params, batch)
        work[name] = cases[name].work
        cases[name]()
    cases["matmul"], work["matmul"] = timing.peak_product(config.model.dtype)
    cases["matmul"]()
    times = timing.interleave(cases, options.rounds, options.clock)
    print(f"\n{timing.table(times, USUAL, work, {})}", flush=True)


def convolutions(kind: type) -> contextlib.AbstractContextManager:
    """Models built within use the forward pass and gradients of `kind`."""
    if kind is Conv:
        return contextlib.nullcontext()
    return mock.patch.object(Conv, "__call__", kind.__call__)


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    main()
