"""People -> records: `durian synth`, and the same records rendered on the fly.

Person i and clip j depend on (seed, i, j) alone, and so does the split a person belongs to. So a
smaller set is the beginning of a larger one, split by split, and nobody is in two splits.
"""

import collections
import concurrent.futures
import dataclasses
import functools
import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from input_pipeline.dataset import records, shards
from input_pipeline.dataset.donors import Donors
from input_pipeline.errors import InputError
from input_pipeline.media import files
from input_pipeline.synthetic.population import VERSION, Settings, chunk, split_of

_PREFIX = "synth:"
_DONORS = 32  # people rendered to borrow masks from


def synth(
    out: str | Path, settings: Settings, cases: int = 0, reenactments: int = 0
) -> dict[str, int]:
    """Renders a data set, and cases for evaluation, as film: `cases` counterfactual ones into
    OUT/counterfactual, `reenactments` into OUT/reenact.

    OUT/people.png, OUT/counterfactual.png and OUT/reenact.png show what is in them.

    Returns the number of records of each split. The same settings give the same bytes.

    Raises:
      InputError: settings out of range, or `out` is not writable.
    """
    from input_pipeline.synthetic import counterfactuals, sheets
    from input_pipeline.synthetic import reenactments as reenacted

    out = Path(out)
    wanted = {
        "cases": (cases, counterfactuals),
        "reenactments": (reenactments, reenacted),
    }
    for option, (count, _) in wanted.items():
        if count < 0:
            raise InputError(f"{count}: must be at least 0", option=option)
    files.check_output(out / "metadata.json", ".json")
    for _, kind in wanted.values():
        counterfactuals.remove_cases(out / kind.PROTOCOL)
    compile_renderer(settings)
    people = range(settings.people)
    splits = {
        split: [i for i in people if split_of(i) == split] for split in ("train", "val", "test")
    }
    clips = settings.people * settings.clips
    with tqdm(total=clips, unit="clip", desc="rendering") as bar:
        encoded = {
            split: _rendered(settings, chosen, bar) for split, chosen in splits.items() if chosen
        }
        facts = {"settings": settings.facts(), "tools": settings.tools()}
        facts |= {"control": True} if settings.control else {}
        counts = shards.write_dataset(out, encoded, settings.size, facts)
    sheets.draw_people(out, settings)
    film = dataclasses.replace(settings, frames=counterfactuals.FRAMES, fps=counterfactuals.FPS)
    film = dataclasses.replace(film, control=False, tracked=False)
    for count, kind in wanted.values():
        if count:
            kind.write_cases(out / kind.PROTOCOL, film, count)
            sheets.draw_cases(out / kind.PROTOCOL)
    return counts


def compile_renderer(settings: Settings) -> None:
    """Compiles the renderer, which takes its time, and says so."""
    tqdm.write(f"compiling the renderer for {settings.size} px (once; half a minute on a CPU) ...")
    chunk(dataclasses.replace(settings, frames=3, control=False), 0, 0)


def _rendered(settings: Settings, people: list[int], bar: tqdm) -> Iterator[bytes]:
    wanted = itertools.product(people, range(settings.clips))
    return in_parallel(functools.partial(_record, settings), wanted, bar)


def in_parallel(render_clip: Callable[[int, int], Any], wanted: Iterable, bar: tqdm) -> Iterator:
    """Results for (person, clip) pairs in order, one per core at a time: XLA uses only one core for
    tiles this small."""
    workers = os.cpu_count() if jax.default_backend() == "cpu" else 1
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        waiting = collections.deque()
        for place in itertools.chain(wanted, [None] * 2 * workers):
            if place is not None:
                waiting.append(pool.submit(render_clip, *place))
            if waiting and (place is None or len(waiting) > 2 * workers):
                yield waiting.popleft().result()
                bar.update()


def _record(settings: Settings, index: int, clip: int) -> bytes:
    return records.encode(chunk(settings, index, clip), settings.size)


class Rendered:
    """A data set that renders its records when they are asked for; stands in for `shards.Dataset`.

    For accelerators, where rendering is cheap and a large set would fill the disk. Written
    "synth:people=20000,clips=8,frames=16,size=128,seed=0" where a config wants a data set; use it
    with data.workers=0, because JAX must stay in the process that holds the device.
    """

    def __init__(self, path: str, split: str = "train"):
        """Raises InputError: an unknown or badly written setting."""
        self.path, self.size, self.settings = path, 0, _parse(path)
        self.size = self.settings.size
        self._people = [i for i in range(self.settings.people) if split_of(i) == split]
        if not self._people:
            raise InputError(f"{path}: split {split!r} has no people: ask for 10 or more")
        self.metadata = {"settings": self.settings.facts(), "size": self.size}
        self.metadata["control"] = self.settings.control

    def __len__(self) -> int:
        return len(self._people) * self.settings.clips

    def __getitem__(self, index: int) -> bytes:
        place, clip = divmod(index, self.settings.clips)
        return _record(self.settings, self._people[place], clip)

    @property
    def identity(self) -> dict:
        """Plain values that name the content, as those of `shards.Dataset`."""
        # The setting that is gone keeps its place, so that runs of earlier versions can be resumed.
        settings = f"{str(self.settings)[:-1]}, depth=False)"
        facts = f"{VERSION} {settings} {self._people[0]} {len(self._people)}"
        extras = ("control", "tracked")
        facts += "".join(f" {name}" for name in extras if getattr(self.settings, name))
        digest = hashlib.sha256(facts.encode()).hexdigest()
        schema = records.SCHEMA_VERSION
        return {"fingerprint": digest[:16], "records": len(self), "schema": schema}

    @functools.cached_property
    def donors(self) -> Donors:
        """Whose masks may be borrowed: those of the first people of the split."""
        short = dataclasses.replace(self.settings, frames=3, control=False)
        return Donors.collect(chunk(short, i, 0) for i in self._people[:_DONORS])


def _parse(path: str) -> Settings:
    types = {field.name: field.type for field in dataclasses.fields(Settings)}
    chosen = {}
    for setting in filter(None, path.removeprefix(_PREFIX).split(",")):
        name, _, value = setting.partition("=")
        if name not in types:
            raise InputError(f"{path}: unknown setting {name!r}: choose from {', '.join(types)}")
        try:
            chosen[name] = bool(int(value)) if types[name] is bool else types[name](value)
        except ValueError:
            raise InputError(f"{path}: {name} is {value!r}, must be a number") from None
    return Settings(**chosen)
