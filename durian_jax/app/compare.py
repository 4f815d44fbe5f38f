"""The tab Compare: reports of `durian evaluate`, and what their numbers look like."""

import functools
import json
import threading
from pathlib import Path
from typing import NamedTuple

import gradio as gr
import numpy as np

from durian_jax.app.access import kind_of
from durian_jax.app.people import EXAMPLES
from durian_jax.app.visits import Visits
from durian_jax.evaluate import baselines, report, scores, sheets
from durian_jax.metrics.metric import Metric
from input_pipeline.dataset.cases import CaseSet
from input_pipeline.errors import InputError
from input_pipeline.faces.landmarker import FaceLandmarker
from input_pipeline.media import video
from input_pipeline.media.pictures import resize


class _Method(NamedTuple):
    """What predicts: its name on the page, the folder of its report or None for a baseline, the
    report that has its scores, and its name there."""

    title: str
    folder: Path | None
    facts: dict
    name: str

    def cell(self, group: str, metric: str) -> str:
        """The mean over a group, as the report writes it; "" if there is none."""
        for row in self.facts["rows"]:
            if (row["group"], row["method"]) == (group, self.name):
                cell = row["metrics"].get(metric, {})
                # JSON has infinite numbers as text.
                cell = {key: float(x) if x == "inf" else x for key, x in cell.items()}
                return report.cell_text(cell, row["cases"]) if "mean" in cell else ""
        return ""

    def score(self, case: str, metric: str) -> float | None:
        """Of a single case; None if it has none."""
        found = self.facts["per_case"].get(case, {"scores": {}})["scores"]
        value = found.get(self.name, {}).get(metric)
        return None if value is None else float(value)


class Compare:
    """The fields and their handlers."""

    def __init__(self, tab: gr.Tab, visits: Visits, folders: dict[str, Path]):
        """
        Args:
          tab: that it is in. visits: of the page.
          folders: reports and case folders, by the names that the page calls them.
        """
        self._folders, self._lock = folders, threading.Lock()
        chosen = gr.CheckboxGroup(
            list(folders), value=list(folders)[:2], label="Reports, or cases without one"
        )
        wrong = gr.HTML()
        table = gr.Dataframe(
            label="Means over the cases, in brackets their 95 % intervals", interactive=False
        )
        with gr.Row():
            metric = gr.Dropdown([], label="Metric")
            method = gr.Dropdown([], label="Worst first, by the prediction of")
        by_case = gr.Dataframe(label="Cases, worst first", interactive=False)
        with gr.Row():
            case = gr.Dropdown([], label="Case to look at")
            frame = gr.Slider(0, 1, 0, step=1, label="Frame")
        absent = gr.HTML()
        pictures = gr.Gallery(
            label="Frames of the case", columns=4, object_fit="contain", height="auto"
        )
        asked, seen = [chosen, metric, method], [chosen, case, frame]
        told = [wrong, table, metric, method, by_case, case]
        opened = visits.answering(self._open, *[gr.skip()] * 5)
        look = visits.answering(self._look, gr.skip(), None)
        for event in (tab.select, chosen.change, metric.input, method.input):
            event(opened, asked, told).then(look, seen, [absent, frame, pictures])
        for event in (case.input, frame.input):
            event(look, seen, [absent, frame, pictures], show_progress="hidden")

    def _read(self, names: list[str]) -> tuple[dict, list[_Method]]:
        """Facts of the first that has numbers; the methods of all, then its baselines.

        Raises InputError: none is chosen, or they do not fit together.
        """
        if not names:
            raise InputError("choose what to compare")
        found = [(self._folders[name], _facts(self._folders[name])) for name in names]
        if len({facts["cases"]["sha256"] for _, facts in found}) > 1:
            raise InputError("these are of different cases: choose reports of the same")
        own = [facts["method"]["name"] for _, facts in found]
        titles = [
            f"{method} ({name})" if own.count(method) > 1 else method
            for method, name in zip(own, names)
        ]
        methods = [_Method(title, *one, name) for title, one, name in zip(titles, found, own)]
        facts = next((facts for _, facts in found if facts["rows"]), found[0][1])
        known = {row["method"] for row in facts["rows"]}
        baseline = [_Method(x, None, facts, x) for x in baselines.NAMES if x in known]
        return facts, [one for one in methods if one.name] + baseline

    def _open(self, names: list[str], metric: str, wanted: str) -> tuple:
        facts, methods = self._read(names)
        cases = {case: one["group"] for case, one in facts["per_case"].items()}
        metrics = {
            name: Metric(**one)
            for name, one in facts["metrics"].items()
            if any(method.cell(report.ALL, name) for method in methods)
        }
        means = [
            [group, one.title, *(one.cell(group, name) for name in metrics)]
            for group in dict.fromkeys(row["group"] for row in facts["rows"])
            for one in methods
        ]
        metric = metric if metric in metrics else next(iter(metrics), None)
        by = next((one for one in methods if one.title == wanted), next(iter(methods), None))
        order = list(cases)
        if metric:
            order = [case for case in cases if by.score(case, metric) is not None]
            lower = metrics[metric].better == "lower"
            order.sort(key=lambda case: by.score(case, metric), reverse=lower)
        rows = [
            [case, cases[case], *(_text(one.score(case, metric)) for one in methods)]
            for case in order
        ]
        titles = [one.title for one in methods]
        return (
            {"headers": ["attribute", "", *map(report.head, metrics.values())], "data": means},
            gr.Dropdown([(one.title, name) for name, one in metrics.items()], value=metric),
            gr.Dropdown(titles, value=by and by.title),
            {"headers": ["case", "attribute", *titles], "data": rows},
            gr.Dropdown(
                [(f"{case}, {cases[case]}", case) for case in order], value=next(iter(order), None)
            ),
        )

    def _look(self, names: list[str], case: str, frame: int) -> tuple:
        if not case:
            return gr.skip(), None
        with self._lock:  # whose turn it is computes, the others find it done
            columns = self._frames(tuple(names), case)
        last = max(map(len, columns.values())) - 1
        frame = min(int(frame), last)
        tiles = [(frames[min(frame, len(frames) - 1)], name) for name, frames in columns.items()]
        return gr.Slider(maximum=max(1, last), value=frame), tiles

    @functools.lru_cache(maxsize=2)  # noqa: B019 (the page lives as long as the program)
    def _frames(self, names: tuple[str, ...], wanted: str) -> dict[str, np.ndarray]:
        """uint8 [F, 256, 256, 3] by what they show. InputError: the case folder is not there."""
        facts, methods = self._read(list(names))
        cases = self._case_set(facts["cases"]["sha256"])
        case = next(one for one in cases.cases if one.id == wanted)
        seen = cases.load(case)
        reference = scores.find_reference(case, seen, FaceLandmarker())
        predictions = scores.baseline_frames(case, seen, reference)
        for one in methods:
            if one.folder and (kept := one.folder / "predictions" / f"{wanted}.mp4").is_file():
                predictions[one.title] = np.stack([*video.read_frames(kept)]) / np.float32(255)
        shown = sheets.columns(case, seen, predictions)
        return {name: np.stack([resize(x, 256) for x in some]) for name, some in shown.items()}

    def _case_set(self, digest: str) -> CaseSet:
        folders = self._folders.values()
        for path in (*folders, *(folder / "cases" for folder in folders), EXAMPLES):
            if (path / "cases.json").is_file() and (cases := CaseSet.read(path)).sha256() == digest:
                return cases
        raise InputError(
            "its cases are not among the folders that are shown: name their folder, too"
        )


@functools.lru_cache(maxsize=16)
def _facts(path: Path) -> dict:
    """The JSON of a report; of a case folder as much of it as there is, without a method."""
    if kind_of(path) == "cases":
        cases = CaseSet.read(path)
        return {
            "cases": {"sha256": cases.sha256()}, "method": {"name": None}, "rows": [],
            "metrics": {},
            "per_case": {case.id: {"group": case.group, "scores": {}} for case in cases.cases},
        }  # fmt: skip
    try:
        found = json.loads((path / "report.json").read_text(encoding="utf-8"))
        if found["format"] != report.FORMAT:
            raise InputError(f"{path}: format {found['format']}: evaluate again")
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{path}: no report, or a damaged one: evaluate again") from None
    return found


def _text(score: float | None) -> str:
    return "" if score is None else f"{score:.4g}"
