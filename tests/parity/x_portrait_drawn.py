"""A small X-Portrait whose weights and inputs are drawn by name, and what it computes."""

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from durian_jax.convert.names import torch_key
from durian_jax.systems.system import System, build, init_params
from tests.parity import drawn
from tests.parity.conftest import QUICK

MODEL = {
    "resolution": 16, "autoencoder": "patchify", "kl": None, "patch": 2, "channels": [8, 16],
    "layers_per_block": 1, "attention_levels": [0], "heads": 2, "norm_groups": 4, "context_dim": 6,
    "temporal": True, "temporal_heads": 2, "max_frames": 5, "control_channels": [5, 7],
    "prompt_tokens": 3, "dtype": "float32",
}  # fmt: skip
TIMES = np.array([801, 57])


def system(**fields) -> System:
    return build({"system": "x_portrait", "model": MODEL | fields})


def params(model: System) -> dict:
    """Every parameter by its name, none at zero or one; attention that has favourites."""
    shapes = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    gains = {"to_q": 2, "to_k": 2, "to_v": 2}
    found = {}
    for path, leaf in flatten_dict(shapes).items():
        array = drawn.tensor(torch_key("/".join(path)), leaf.shape[::-1]).transpose()
        found[path] = gains.get(path[-2], 1) * array
    return unflatten_dict(found)


def batch(clips: int = 2, frames: int = 3) -> dict[str, np.ndarray]:
    return {
        "portrait": drawn.picture("portrait", (clips, 16, 16, 3)),
        "references": drawn.picture("references", (clips, 1, 16, 16, 3)),
        "control": drawn.picture("control", (clips, frames, 16, 16, 3)),
        "local_control": drawn.picture("local", (clips, frames, 16, 16, 3)),
    }


def noisy(frames: int = 3) -> np.ndarray:
    return drawn.numbers("noisy", (2, frames, 8, 8, 12)).astype("f4")


def outputs() -> dict[str, np.ndarray]:
    """Conditional, unconditional, and of one reference alone; float32 [2, 3, 8, 8, 12] each."""
    model, inputs = system(), batch()
    weights = params(model)

    def predict(module, inputs, z, t):
        frames = module.encode_frames(inputs)

        def told(inputs):
            return module.at_time(module.encode_clip(inputs), t)

        single = {name: x for name, x in inputs.items() if name != "references"}
        return {
            "conditional": module.predict(z, t, told(inputs), frames, module.parts),
            "single": module.predict(z, t, told(single), frames, module.parts),
            "unconditional": module.predict(z, t, None, None, ()),
        }

    run = jax.jit(
        lambda weights, *inputs: model.apply({"params": weights}, *inputs, method=predict),
        compiler_options=QUICK,
    )
    return jax.tree.map(np.asarray, run(weights, inputs, noisy(), TIMES))
