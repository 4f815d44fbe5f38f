"""Making plans for a person: arithmetic at once, then the compiler, whose results are kept."""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import jax

from durian_jax.planning.plan import TPU_OPTIONS, Plan, Step
from durian_jax.planning.topology import Topology
from input_pipeline.media.files import written_beside


def make(
    config,
    topology: str | None,
    *,
    sample: bool = False,
    fast: bool = False,
    say: Callable[[str], None] = print,
) -> Plan:
    """The plan of a config: compiled, or with `fast` the arithmetic.

    Args:
      topology: see `Topology.parse`.
      sample: plan sampling by `config.sample`, in place of the training step.
      say: told what is going on, the arithmetic among it.

    Raises:
      InputError: see `Topology.parse`, `Topology.devices` and `Step`.
    """
    place = Topology.parse(topology)
    path = _path(config, place, sample)
    if not fast and path.is_file():
        say(f"kept from an earlier run: {path}")
        return Plan.from_json(json.loads(path.read_text()))
    devices = None if fast else place.devices()
    if not fast and devices is None:
        say(f"{place.name}: there is no compiler for it here, so this is the arithmetic")
    with _timed("tracing the step", say):
        step = Step(config, place, sample=sample, devices=devices)
        found = step.estimate()
    if devices is None:
        return found
    say(found.table())
    with _timed("compiling (minutes; half an hour and 24 GB at full size)", say):
        found = step.compile()
    with written_beside(path, shared=True) as beside:
        beside.write_text(json.dumps(found.to_json(), indent=1))
    return found


def _path(config, topology: Topology, sample: bool) -> Path:
    """The file of a compiled plan; another config, machine, version or source is another file."""
    from importlib.metadata import PackageNotFoundError, version

    versions = [jax.__version__]
    with contextlib.suppress(PackageNotFoundError):
        versions.append(version("libtpu"))
    root = Path(__file__).parents[1]
    source = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        source.update(file.read_bytes())
    described = [config.to_dict(), topology.name, topology.count, sample, versions, TPU_OPTIONS]
    text = json.dumps(described, sort_keys=True, default=str) + source.hexdigest()
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return cache / "durian_jax" / "plans" / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"


@contextlib.contextmanager
def _timed(what: str, say: Callable[[str], None]):
    """Says what is being done, and how long it took."""
    say(f"{what} ...")
    start = time.perf_counter()
    yield
    say(f"{what}: {time.perf_counter() - start:.0f} s")
