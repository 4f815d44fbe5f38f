"""The tab Data: the people of a data set, by identity and attribute, and what training makes of
them."""

import functools
from pathlib import Path

import gradio as gr
import numpy as np

from durian_jax.app.visits import Visits
from input_pipeline import check
from input_pipeline.dataset import records, shards
from input_pipeline.errors import InputError
from input_pipeline.training.transforms import SampleOptions

_MOST_RECORDS, _CLIPS = 2000, 6
_ALL = "all"


class Data:
    """The fields and their handler."""

    def __init__(self, tab: gr.Tab, visits: Visits, folders: dict[str, Path]):
        """
        Args:
          tab: that it is in. visits: of the page.
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
        wrong, told = gr.HTML(), gr.HTML()
        pictures = []
        for label in (
            "Clips: frames, each with its keypoints and with its masks",
            "What Durian's training makes of them: target, portrait and attribute, three draws",
        ):
            gr.Markdown(label)  # above: it would cover what stands in the first row
            pictures.append(
                gr.Image(
                    alt_text=label, show_label=False, interactive=False, buttons=["fullscreen"],
                    elem_classes="wide",
                )
            )  # fmt: skip
        chosen, shown = [name, person, kind, first], [wrong, told, person, kind, first, *pictures]
        show = visits.answering(self._show, *[gr.skip()] * 6)
        for event in (tab.select, name.input, person.input, kind.input, first.release):
            event(show, chosen, shown)

    def _show(self, name: str, person: str, kind: str, first: int) -> tuple:
        dataset, clips = _read(self._folders[name])
        people = sorted({identity for identity, *_ in clips})
        kinds = sorted({kind for _, shown, _ in clips for kind in shown})
        person, kind = (x if x in known else _ALL for x, known in ((person, people), (kind, kinds)))
        chosen = [
            numbers for identity, shown, numbers in clips
            if person in (_ALL, identity) and kind in (_ALL, *shown)
        ]  # fmt: skip
        first = min(max(1, int(first)), max(1, len(chosen)))
        rows, trained, broken = [], [], 0
        for numbers in chosen[first - 1 : first - 1 + _CLIPS]:
            try:
                rows.append(check.draw_clip(dataset, numbers))
                options = SampleOptions(size=dataset.size)
                trained.append(check.draw_training(dataset, numbers[0], options))
            except records.DAMAGED:
                broken += 1
        text = f"{len(people)} people, {len(clips)} clips; {len(chosen)} chosen"
        text += f"; {broken} cannot be drawn: durian check says why" if broken else ""
        if len(dataset) > _MOST_RECORDS:
            text += f"; of the first {_MOST_RECORDS} of {len(dataset)} records"
        return (
            f"<p>{text}</p>", gr.Dropdown([_ALL, *people], value=person),
            gr.Dropdown([_ALL, *kinds], value=kind),
            gr.Slider(maximum=max(2, len(chosen)), value=first),
            *(np.concatenate(some) if some else None for some in (rows, trained)),
        )  # fmt: skip


@functools.lru_cache(maxsize=4)
def _read(path: Path) -> tuple[shards.Dataset, list[tuple[str, set, list]]]:
    """A data set and its clips: identity, kinds of masks, numbers of records.

    Raises InputError: none can be read.
    """
    dataset, clips = shards.Dataset(path, shards.ALL), {}
    for index in range(min(len(dataset), _MOST_RECORDS)):
        try:
            chunk = records.decode(dataset[index])
        except records.DAMAGED:
            continue
        _, kinds, numbers = clips.setdefault(chunk.clip, (chunk.identity, set(), []))
        kinds |= set(chunk.masks)
        numbers.append(index)
    if not clips:
        raise InputError(f"{path}: not one readable record: run durian check")
    return dataset, list(clips.values())
