"""The tab Data: the people of a data set, by identity and attribute, and what training makes of
them."""

import dataclasses
import functools
from pathlib import Path

import gradio as gr
import numpy as np
from google.protobuf.message import DecodeError

from durian_jax.app import words
from input_pipeline import check
from input_pipeline.dataset import records, shards
from input_pipeline.errors import InputError
from input_pipeline.training.transforms import SampleOptions

_MOST_RECORDS, _CLIPS = 2000, 6
_ALL = "all"


@dataclasses.dataclass
class _Clip:
    """identity, kinds of its masks, and the numbers of its records."""

    identity: str
    kinds: set[str]
    records: list[int]


class Data:
    """The fields and their handlers."""

    def __init__(self, page: gr.Blocks, folders: dict[str, Path]):
        """
        Args:
          page: which it is a part of.
          folders: data sets, by the names that the page calls them.
        """
        # Now: what tensorflow-datasets imports spoils the imports of other threads meanwhile.
        records.features(8)
        self._folders = folders
        with gr.Row():
            name = gr.Dropdown(list(folders), value=next(iter(folders)), label="Data set")
            person = gr.Dropdown([_ALL], value=_ALL, label="Person")
            kind = gr.Dropdown([_ALL], value=_ALL, label="Attribute")
            first = gr.Slider(1, 2, 1, step=1, label="From clip")
        told = gr.HTML()
        clips, training = (
            gr.Image(label=label, format="png", buttons=["fullscreen"], interactive=False)
            for label in (
                "Clips: frames, each with its keypoints and with its masks",
                "What training makes of them: references with their masks, target, three draws",
            )
        )
        chosen, shown = [name, person, kind, first], [told, person, kind, first, clips, training]
        for event in (page.load, name.input, person.input, kind.input, first.release):
            event(self._show, chosen, shown)

    def _show(self, name: str, person: str, kind: str, first: int):
        try:
            dataset, clips = _read(self._folders[name])
        except InputError as error:
            return words.wrong(words.tell(error)), *[gr.skip()] * 5
        people = sorted({clip.identity for clip in clips.values()})
        kinds = sorted({kind for clip in clips.values() for kind in clip.kinds})
        person, kind = (x if x in known else _ALL for x, known in ((person, people), (kind, kinds)))
        chosen = [
            clip for clip in clips.values()
            if person in (_ALL, clip.identity) and kind in (_ALL, *clip.kinds)
        ]  # fmt: skip
        first = min(max(1, int(first)), max(1, len(chosen)))
        rows, trained, broken = [], [], 0
        for clip in chosen[first - 1 : first - 1 + _CLIPS]:
            try:
                rows.append(check.draw_clip(dataset, clip.records))
                options = SampleOptions(size=dataset.size)
                trained.append(check.draw_training(dataset, clip.records[0], options))
            except (ValueError, KeyError, IndexError, RuntimeError, DecodeError):
                broken += 1
        text = f"{len(people)} people, {len(clips)} clips; {len(chosen)} chosen"
        text += f"; {broken} cannot be drawn: durian check says why" if broken else ""
        if len(dataset) > _MOST_RECORDS:
            text += f"; of the first {_MOST_RECORDS} of {len(dataset)} records"
        return (
            f"<p>{words.escaped(text)}</p>", gr.Dropdown([_ALL, *people], value=person),
            gr.Dropdown([_ALL, *kinds], value=kind),
            gr.Slider(maximum=max(2, len(chosen)), value=first),
            *(np.concatenate(some) if some else None for some in (rows, trained)),
        )  # fmt: skip


@functools.lru_cache(maxsize=4)
def _read(path: Path) -> tuple[shards.Dataset, dict[str, _Clip]]:
    """A data set and its clips by their names. Raises InputError: none can be read."""
    dataset, clips = shards.Dataset(path, shards.ALL), {}
    numbers = range(min(len(dataset), _MOST_RECORDS))
    for index in numbers:
        try:
            chunk = records.decode(dataset[index])
        except (ValueError, KeyError, IndexError, RuntimeError, DecodeError):
            continue
        clip = clips.setdefault(chunk.clip, _Clip(chunk.identity, set(), []))
        clip.kinds |= set(chunk.masks)
        clip.records.append(index)
    if not clips:
        raise InputError(f"{path}: not one readable record: run durian check")
    return dataset, clips
