"""What the TPU compiler makes of spatial attention, with splash attention and without it.

    python -m benchmarks.splash --topology v5e:2x2

Needs the [tpu] extra and no TPU: nothing runs. Self-attention of every frame, at Stable Diffusion
1.5's widths in bfloat16, for one device. Prints a report in Markdown for benchmarks/results.
"""

import argparse
import functools
import sys
import time

import jax
import jax.numpy as jnp

from benchmarks import timing
from durian_jax.models import splash
from durian_jax.models.attention import KeyValue, References, attend
from durian_jax.planning import hlo
from durian_jax.planning.topology import Topology

# Tokens, heads, head size, references.
SHAPES = ((4096, 8, 40, 0), (4096, 8, 40, 2), (1024, 8, 80, 2))
COLUMNS = "tokens, heads, size", "references", "pass", "path", "memory, MiB", "traffic, GB", "s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--topology", default="v5e:2x2")
    parser.add_argument("--frames", type=int, default=24)
    options = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    device = jax.sharding.SingleDeviceSharding(Topology.parse(options.topology).devices()[0])
    command = f"python -m benchmarks.splash {' '.join(sys.argv[1:])}"
    title = f"Splash attention, compiled for {options.topology}, {options.frames} frames, bfloat16"
    print(timing.header(title, command, ("libtpu",)))
    print(f"\n| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for *shape, references in SHAPES:
        for gradient in (False, True):
            for path, least in (("blocks of logits", sys.maxsize), ("splash", 1)):
                splash.MIN_TOKENS = least
                row = _compile(device, options.frames, *shape, references, gradient)
                names = (str(tuple(shape)), references, "both" if gradient else "forward", path)
                print(f"| {' | '.join(map(str, names + row))} |", flush=True)


def _compile(device, frames, tokens, heads, size, references, gradient) -> tuple:
    """Temporaries, bytes moved (loops multiplied out, each kernel's operands once), seconds."""
    shape = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.bfloat16, sharding=device)
    own = shape((frames, tokens, heads, size))
    bank = shape((1, 1, references * tokens, heads, size))

    def function(query, key, value, bank_key, bank_value):
        banks = References(KeyValue(bank_key, bank_value), jnp.ones((1, 1, 1)))
        return attend(query, KeyValue(key, value), banks if references else None)

    def both(cotangent, *arrays):
        output, back = jax.vjp(function, *arrays)
        return output, back(cotangent)

    arguments = [own] * 3 + [bank] * 2
    lowered = (
        jax.jit(both).lower(own, *arguments) if gradient else jax.jit(function).lower(*arguments)
    )
    start = time.perf_counter()
    compiled = lowered.compile()
    seconds = time.perf_counter() - start
    temporaries = compiled.memory_analysis().temp_size_in_bytes
    traffic = hlo.Program(compiled.as_text()).traffic()
    return f"{temporaries / 2**20:.0f}", f"{traffic / 1e9:.2f}", f"{seconds:.0f}"


if __name__ == "__main__":
    main()
