"""The report: JSON for programs, Markdown for people, LaTeX for papers."""

import dataclasses
import importlib.metadata
import json
import math
import platform
from pathlib import Path

from durian_jax.evaluate import baselines, perceptual, scores
from durian_jax.evaluate.protocol import Protocol
from durian_jax.metrics.metric import Metric
from input_pipeline.dataset.cases import Case, CaseSet

FORMAT = 1
ALL = "all"
_ARROWS = {"lower": "↓", "higher": "↑"}
_LATEX_ARROWS = {"lower": r"$\downarrow$", "higher": r"$\uparrow$"}
_NO_TRUTH = "no truth"
_NEVER = "nothing to measure in these cases"
_ONLY_ALL = "only over all cases"
_LIBRARIES = ("durian_jax", "numpy", "opencv-python-headless", "av", "ai-edge-litert", "jax")
_LIBRARIES += ("torch", "transformers", "onnxruntime")


@dataclasses.dataclass
class Report:
    """Scores as they come in; `write` makes the files.

    values: by method and case id, the metrics of that prediction, None where there is none to have.
    landmarks: what found the keypoints. absent: metrics with a network that is not there, and why.
    """

    method: str
    protocol: Protocol
    cases: CaseSet
    scored: tuple[Case, ...]
    landmarks: str
    values: dict[str, dict[str, dict]] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    facts: dict = dataclasses.field(default_factory=dict)
    networks: dict[str, dict] = dataclasses.field(default_factory=dict)
    absent: dict[str, str] = dataclasses.field(default_factory=dict)
    frames_without_reference: int = 0

    def add(self, method: str, case: Case, values: dict[str, float | None]) -> None:
        self.values.setdefault(method, {})[case.id] = values

    def add_network(self, network) -> None:
        """Facts and values over all cases of a metric with weights."""
        self.networks[network.name] = network.facts | {"over_all": network.over_all()}

    def add_method(self, method) -> None:
        self.facts = method.facts()
        if method.note:
            self.notes.append(method.note)

    @property
    def metrics(self) -> dict[str, Metric]:
        return scores.metrics_of(self.protocol) | perceptual.METRICS

    def rows(self) -> list[dict]:
        """One row per group and method: {"group", "method", "cases", "metrics"}.

        A cell is {"mean", "low", "high", "count"} or {"not_available": reason}.
        """
        groups = {ALL: list(self.scored)}
        for case in self.scored:
            groups.setdefault(case.group, []).append(case)
        methods = [self.method, *baselines.NAMES]
        methods = [name for name in methods if name in self.values]
        return [
            {"group": group, "method": method, "cases": len(chosen),
             "metrics": {name: self._cell(name, method, group, chosen) for name in self.metrics}}
            for group, chosen in groups.items() if chosen
            for method in methods
        ]  # fmt: skip

    def _cell(self, name: str, method: str, group: str, chosen: list[Case]) -> dict:
        if self.metrics[name].truth and not self.protocol.truth:
            return {"not_available": _NO_TRUTH}
        if name in self.absent:
            return {"not_available": self.absent[name]}
        over_all = self.networks.get(name, {}).get("over_all")
        if over_all is not None:
            return over_all[method] if group == ALL else {"not_available": _ONLY_ALL}
        predictions = self.values[method]
        values = [predictions[case.id][name] for case in chosen]
        values = [value for value in values if value is not None]
        if not values:
            return {"not_available": _NEVER}
        return scores.summarise(name, values, self.protocol)

    def write(self, out: Path) -> None:
        """report.json, report.md and report.tex in an existing folder."""
        rows = self.rows()
        facts = {
            "format": FORMAT,
            "protocol": dataclasses.asdict(self.protocol),
            "cases": {
                "sha256": self.cases.sha256(), "size": self.cases.size,
                "fps": str(self.cases.fps), "count": len(self.scored),
                "of": len(self.cases.cases), "source": self.cases.source,
            },
            "method": {"name": self.method, **self.facts},
            "landmarks": self.landmarks,
            "versions": _versions(),
            "notes": self._all_notes(),
            "metrics": {name: dataclasses.asdict(one) for name, one in self.metrics.items()},
            "networks": {
                name: {key: value for key, value in one.items() if key != "over_all"}
                for name, one in self.networks.items()
            },
            "rows": rows,
            "per_case": {
                case.id: {
                    "group": case.group,
                    "frames": case.frames,
                    "scores": {
                        method: predictions[case.id]
                        for method, predictions in self.values.items()
                    },
                }
                for case in self.scored
            },
        }  # fmt: skip
        text = json.dumps(_plain(facts), indent=1, allow_nan=False, ensure_ascii=False)
        (out / "report.json").write_text(text + "\n", encoding="utf-8")
        (out / "report.md").write_text(self._markdown(rows, facts), encoding="utf-8")
        (out / "report.tex").write_text(self._latex(rows), encoding="utf-8")

    def _all_notes(self) -> list[str]:
        notes = list(self.notes)
        if len(self.scored) < len(self.cases.cases):
            groups = ", ".join(sorted({case.group for case in self.scored}))
            notes.append(f"only these groups were scored: {groups}")
        if self.frames_without_reference:
            notes.append(
                f"{self.frames_without_reference} frames of the truth show no face that could be "
                "found: they do not count for keypoints, pose, blink, mouth and no face"
            )
        if left_out := self.cases.source.get("left_out"):
            notes.append(
                f"{len(left_out)} cases were left out when they were chosen: {left_out[0]}"
            )
        if self.cases.source.get("split") == "train":
            notes.append("the cases come from the split train: a model may have seen them")
        return notes

    def _markdown(self, rows: list[dict], facts: dict) -> str:
        share = f"{self.protocol.bootstrap.confidence:.0%}"
        lines = [
            f"# {self.method}: protocol {self.protocol.name}, version {self.protocol.version}",
            "",
            f"{len(self.scored)} cases of {self.cases.size} px. Cells: mean over cases, in "
            f"brackets its {share} bootstrap interval; n where not all cases count.",
            "",
            f"- protocol file: sha256 {self.protocol.sha256}",
            f"- cases: sha256 {facts['cases']['sha256']}",
            f"- keypoints: {self.landmarks}",
            *(f"- {name}: {value}" for name, value in self.facts.items()),
            *(f"- note: {note}" for note in facts["notes"]),
        ]
        for group in dict.fromkeys(row["group"] for row in rows):
            chosen = [row for row in rows if row["group"] == group]
            methods = [row["method"] for row in chosen]
            lines += ["", f"## {group} ({chosen[0]['cases']} cases)", ""]
            lines += ["| metric | " + " | ".join(methods) + " |", "|---" * (len(methods) + 1) + "|"]
            for name, metric in self.metrics.items():
                cells = [row["metrics"][name] for row in chosen]
                if group != ALL and not any("mean" in cell for cell in cells):
                    continue
                texts = [cell_text(cell, row["cases"]) for cell, row in zip(cells, chosen)]
                lines.append(f"| {head(metric)} | " + " | ".join(texts) + " |")
        reasons: dict[str, list[str]] = {}
        for name, cell in rows[0]["metrics"].items():
            if "not_available" in cell:
                reasons.setdefault(cell["not_available"], []).append(self.metrics[name].title)
        lines += ["", "## What exactly is measured", ""]
        lines += [f"- {one.title}: {one.variant}" for one in self.metrics.values()]
        lines += [f"- protocol: {name} {value}" for name, value in self._settings().items()]
        lines += [f"- not available, {why}: {', '.join(names)}" for why, names in reasons.items()]
        return "\n".join(lines) + "\n"

    def _settings(self) -> dict:
        names = ("region_growth", "psnr_ceiling", "colour_band", "colour_bins", "missing_face")
        facts = dataclasses.asdict(self.protocol)
        return {name: facts[name] for name in (*names, "bootstrap")}

    def _latex(self, rows: list[dict]) -> str:
        """One booktabs table of the metrics for which any row has a number."""
        shown = [
            name for name in self.metrics if any("mean" in row["metrics"][name] for row in rows)
        ]
        heads = [_latex_head(self.metrics[name]) for name in shown]
        lines = [
            f"% protocol {self.protocol.name} version {self.protocol.version}",
            r"\begin{tabular}{ll" + "r" * len(shown) + "}",
            r"\toprule",
            "group & method & " + " & ".join(heads) + r" \\",
        ]
        for i, row in enumerate(rows):
            if i == 0 or rows[i - 1]["group"] != row["group"]:
                lines.append(r"\midrule")
            cells = [_number(row["metrics"][name].get("mean")) for name in shown]
            cells = [r"$\infty$" if cell == "inf" else cell for cell in cells]
            names = [_escaped(row["group"]), _escaped(row["method"])]
            lines.append(" & ".join(names + cells) + r" \\")
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"

    def table(self) -> str:
        """A small table for the terminal: every method over all cases, the main metrics."""
        names = ("psnr", "ssim", "psnr_inside", "psnr_outside", "iou", "keypoints", "pose")
        names += ("leak", "flicker", "lpips", "identity")
        rows = [row for row in self.rows() if row["group"] == ALL]
        names = [
            name
            for name in names
            if name in self.metrics and any("mean" in row["metrics"][name] for row in rows)
        ]
        shown = [self.metrics[name] for name in names]
        head = ["", *(f"{metric.title} {_ARROWS[metric.better]}" for metric in shown)]
        body = [
            [row["method"], *(_number(row["metrics"][name].get("mean")) for name in names)]
            for row in rows
        ]
        widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
        return "\n".join(
            "  ".join(cell.rjust(width) for cell, width in zip(line, widths))
            for line in [head, *body]
        )


def _latex_head(metric: Metric) -> str:
    return f"{_escaped(metric.title)} {_LATEX_ARROWS[metric.better]}"


def head(metric: Metric) -> str:
    """A metric with its unit and an arrow to the better side."""
    unit = f" [{metric.unit}]" if metric.unit else ""
    return f"{metric.title}{unit} {_ARROWS[metric.better]}"


def cell_text(cell: dict, cases: int) -> str:
    """A cell of `Report.rows`: mean, interval, and how many cases count if not all do."""
    if "not_available" in cell:
        return "not available"
    text = _number(cell["mean"])
    if cell.get("low") is not None:
        text += f" [{_number(cell['low'])}, {_number(cell['high'])}]"
    if cell["count"] != cases:
        text += f" n={cell['count']}"
    return text


def _number(value: float | None) -> str:
    if value is None:
        return "--"
    return "inf" if math.isinf(value) else f"{value:.4g}"


def _escaped(text: str) -> str:
    """Text for LaTeX."""
    signs = {sign: f"\\{sign}" for sign in "&%$#_{}"} | {"\\": r"\textbackslash{}"}
    return text.translate(str.maketrans(signs))


def _plain(value):
    """Values that JSON has: an infinite number becomes the text "inf"."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float) and math.isinf(value):
        return "inf"
    return value


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
