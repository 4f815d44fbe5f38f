"""Seconds of processor time per frame of the synthetic renderer, by what the person wears.

    taskset -c 0 python -m benchmarks.render --size 256 > benchmarks/results/DATE_render.json

Pin it to one core: XLA would spread over all of them, and processor time is what is counted.
"""

import argparse
import importlib.metadata
import json
import platform
import time

import jax
import numpy as np

from input_pipeline.synthetic.motion import sample_still
from input_pipeline.synthetic.people import KINDS, sample_person
from input_pipeline.synthetic.renderer.render import render

WORN = {"nothing": (), "hair": ("hair",), "everything": KINDS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--people", type=int, default=12)
    options = parser.parse_args()
    result = {"size": options.size, "people": options.people, "machine": platform.processor()}
    result |= {name: importlib.metadata.version(name) for name in ("jax", "jaxlib")}
    for name, kinds in WORN.items():
        spent = []
        for seed in range(options.people):
            rng = np.random.default_rng(seed)
            person = sample_person(rng, {kind: kind in kinds for kind in KINDS})
            motion = sample_still(rng)
            for _ in range(2):  # the first of all compiles
                start = time.process_time()
                jax.block_until_ready(render(person, motion, options.size))
                last = time.process_time() - start
            spent.append(last)
        low, middle, high = np.percentile(spent, [0, 50, 100])
        result[name] = {"min": round(low, 3), "median": round(middle, 3), "max": round(high, 3)}
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
