"""The tab Compare: reports of `durian evaluate`, and what their numbers look like."""

import functools
import json
import threading
from pathlib import Path

import gradio as gr
import numpy as np

from durian_jax.app import words
from durian_jax.evaluate import baselines, report, scores
from durian_jax.metrics.metric import Metric
from input_pipeline.dataset.cases import CaseSet
from input_pipeline.errors import InputError
from input_pipeline.faces.landmarker import FaceLandmarker
from input_pipeline.media import video
from input_pipeline.media.pictures import resize


class Compare:
    """The fields and their handlers."""

    def __init__(self, page: gr.Blocks, reports: dict[str, Path], cases: list[Path]):
        """
        Args:
          page: which it is a part of.
          reports: folders, by the names that the page calls them. cases: case folders.
        """
        self._reports, self._lock = reports, threading.Lock()
        self._cases = [*cases, *(path / "cases" for path in reports.values())]
        chosen = gr.CheckboxGroup(list(reports), value=list(reports)[:2], label="Reports")
        wrong = gr.HTML()
        group = gr.Dropdown([report.ALL], value=report.ALL, label="Rows of the attribute")
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
        pictures = gr.Gallery(
            label="Frames of the case", columns=4, object_fit="contain", height="auto", format="png"
        )
        tables, sorted_by = [chosen, group], [chosen, metric, method]
        opened = [wrong, group, table, metric, method]
        shown, by = [case, frame, pictures], [chosen, case, frame]
        for event in (page.load, chosen.change, group.input):
            first = event(self._open, tables, opened, show_progress="hidden")
            first.then(self._sort, sorted_by, [by_case, case]).then(self._look, by, shown[1:])
        for field in (metric, method):
            field.input(self._sort, sorted_by, [by_case, case]).then(self._look, by, shown[1:])
        case.input(self._look, by, shown[1:])
        frame.input(self._look, by, shown[1:], show_progress="hidden")

    def _read(self, names: list[str]) -> dict[str, dict]:
        """The reports by the name of their method; two of one name are told apart by the folder."""
        found = [(name, _report(self._reports[name])) for name in names]
        methods = [one["method"]["name"] for _, one in found]
        if len({one["cases"]["sha256"] for _, one in found}) > 1:
            raise InputError("these reports are of different cases: choose reports of the same")
        return {
            f"{method} ({name})" if methods.count(method) > 1 else method: one
            for (name, one), method in zip(found, methods)
        }

    def _open(self, names: list[str], group: str):
        try:
            found = self._read(names)
        except InputError as error:
            return words.wrong(words.tell(error)), *[gr.skip()] * 4
        if not found:
            return "choose a report", *[gr.skip()] * 4
        first = next(iter(found.values()))
        groups = list(dict.fromkeys(row["group"] for row in first["rows"]))
        group = group if group in groups else report.ALL
        metrics = {name: Metric(**one) for name, one in first["metrics"].items()}
        rows, has = [], set()
        for method, one in _columns(found).items():
            name = one["method"]["name"] if method in found else method
            cells = {
                title: report.cell_text(_numbers(cell), row["cases"])
                for row in one["rows"] if (row["group"], row["method"]) == (group, name)
                for title, cell in row["metrics"].items()
            }  # fmt: skip
            has |= {title for title, text in cells.items() if text != "not available"}
            rows.append((method, cells))
        kept = [name for name in metrics if name in has]
        value = {
            "headers": ["", *(report.head(metrics[name]) for name in kept)],
            "data": [[method, *(cells.get(name, "") for name in kept)] for method, cells in rows],
        }
        titles = [(metrics[name].title, name) for name in kept]
        methods = list(_columns(found))
        return (
            "", gr.Dropdown(groups, value=group), value,
            gr.Dropdown(titles, value=kept[0]), gr.Dropdown(methods, value=methods[0]),
        )  # fmt: skip

    def _sort(self, names: list[str], metric: str, method: str):
        try:
            found = self._read(names)
        except InputError:  # `_open` says so
            found = {}
        if not found:
            return None, gr.Dropdown([], value=None)
        columns, first = _columns(found), next(iter(found.values()))
        values = {
            case: [
                one["per_case"][case]["scores"].get(
                    one["method"]["name"] if name in found else name, {}
                ).get(metric)
                for name, one in columns.items()
            ]
            for case in first["per_case"]
        }  # fmt: skip
        place = list(columns).index(method)
        sign = 1 if first["metrics"][metric]["better"] == "higher" else -1
        values = {case: row for case, row in values.items() if row[place] is not None}
        order = sorted(values, key=lambda case: sign * float(values[case][place]))
        groups = {case: first["per_case"][case]["group"] for case in order}
        data = [
            [case, groups[case], *("" if x is None else f"{float(x):.4g}" for x in values[case])]
            for case in order
        ]
        choices = [(f"{case}, {groups[case]}", case) for case in order]
        return (
            {"headers": ["case", "attribute", *columns], "data": data},
            gr.Dropdown(choices, value=order[0] if order else None),
        )

    def _look(self, names: list[str], case: str, frame: int):
        if not case:
            return gr.skip(), None
        with self._lock:  # one face landmarker
            try:
                columns = self._frames(tuple(names), case)
            except InputError as error:
                sheets = [self._reports[name] / "sheets" / f"{case}.png" for name in names]
                there = [(str(path), words.tell(error)) for path in sheets if path.is_file()]
                return gr.Slider(visible=False), [_opened(*one) for one in there]
        last = max(map(len, columns.values())) - 1
        frame = min(int(frame), last)
        tiles = [(frames[min(frame, len(frames) - 1)], name) for name, frames in columns.items()]
        return gr.Slider(maximum=max(1, last), value=frame, visible=True), tiles

    @functools.lru_cache(maxsize=2)  # noqa: B019 (the page lives as long as the program)
    def _frames(self, names: tuple[str, ...], wanted: str) -> dict[str, np.ndarray]:
        """uint8 [F, S, S, 3] by what they show. InputError: the case folder is not there."""
        found = self._read(list(names))
        cases = self._case_set(next(iter(found.values()))["cases"]["sha256"])
        case = next(one for one in cases.cases if one.id == wanted)
        seen = cases.load(case)
        columns = {"portrait": seen.portrait[None]}
        for attribute, image in zip(case.attributes, seen.attributes):
            columns[f"{attribute.kind} {len(columns)}"] = image[None]
        columns["driver"] = seen.driving
        reference = scores.find_reference(case, seen, FaceLandmarker())
        for name, frames in scores.baseline_frames(case, seen, reference).items():
            columns[name] = np.round(frames * 255).astype(np.uint8)
        for name, method in zip(names, found):
            kept = self._reports[name] / "predictions" / f"{wanted}.mp4"
            if kept.is_file():
                columns[method] = np.stack([*video.read_frames(kept)])
        return {name: np.stack([resize(x, 256) for x in some]) for name, some in columns.items()}

    def _case_set(self, digest: str) -> CaseSet:
        for path in self._cases:
            if (path / "cases.json").is_file():
                cases = CaseSet.read(path)
                if cases.sha256() == digest:
                    return cases
        raise InputError("its cases are not among the folders that are shown: name their folder")


def _columns(found: dict[str, dict]) -> dict[str, dict]:
    """The reports by what predicts in them: the methods, then the baselines of the first."""
    first = next(iter(found.values()))
    there = {row["method"] for row in first["rows"]}
    return found | {name: first for name in baselines.NAMES if name in there}


@functools.lru_cache(maxsize=16)
def _report(path: Path) -> dict:
    try:
        found = json.loads((path / "report.json").read_text(encoding="utf-8"))
        if found["format"] != report.FORMAT:
            raise InputError(f"{path}: format {found['format']}: evaluate again")
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{path}: no report, or a damaged one: evaluate again") from None
    return found


def _numbers(cell: dict) -> dict:
    """A cell of a report with its infinite numbers, which JSON has as text."""
    return {k: float(x) if x == "inf" else x for k, x in cell.items()}


def _opened(path: str, caption: str) -> tuple[np.ndarray, str]:
    return next(video.read_frames(path)), caption
