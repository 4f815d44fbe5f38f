"""Writes fixtures/x_portrait.safetensors: what of the official outputs is small.

    python -m tests.parity.x_portrait_fixture ORACLE

ORACLE is the folder of XPORTRAIT_ORACLE, see x_portrait_test. `whole/` is no official output: it is
what this code made of a model drawn by name when it agreed with the official one on ORACLE, so that
a change of any network shows where the checkpoint is not at hand.
"""

import sys
from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import load_file, save_file

from durian_jax.convert.sources.files import open_weights
from tests.parity import drawn, x_portrait_drawn
from tests.parity.folders import FIXTURES

FILE = FIXTURES / "x_portrait.safetensors"
MOTION = "model.diffusion_model.input_blocks_motion_module.2.0.temporal_transformer."


def main(oracle: Path) -> None:
    io, text = load_file(oracle / "io.safetensors"), load_file(oracle / "text.safetensors")
    kept = {f"text/{key}": array for key, array in text.items() if key != "input_ids"}
    for key, stored in open_weights(oracle / "model_state.th").items():
        if key.startswith(MOTION):
            kept[f"motion/{key.removeprefix(MOTION)}"] = stored.read()
    kept |= {"motion_input": io["motion/in_04/input"], "motion_output": io["hidden/in_04"]}
    for name in ("best_frame", "landmarks_source", "landmarks_driving", "matrix_256"):
        kept[f"prepare/{name}"] = io[f"prepare/{name}"]
    shown = (io["prepare/local_256"] != -1).any(-1)
    kept["prepare/local_shown"] = np.packbits(shown, axis=-1)
    for name in ("trajectory", "wrap"):
        for part in ("timesteps", "offsets", "alphas", "alphas_next"):
            kept[f"{name}/{part}"] = io[f"{name}/{part}"]
    with jax.default_matmul_precision("highest"):
        kept |= {f"whole/{name}": x for name, x in x_portrait_drawn.outputs().items()}
    save_file({key: np.ascontiguousarray(x) for key, x in kept.items()}, FILE)
    print(f"{FILE}: {FILE.stat().st_size} bytes, {drawn.__name__}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
