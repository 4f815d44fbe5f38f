"""What a run reports: a log line, TensorBoard scalars and pictures, metrics.jsonl, a loss curve."""

import contextlib
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from input_pipeline.media.files import written_beside

NUM_NOISE_BINS = 4
# Above this share of the step time spent on waiting for batches, a log line says so.
STARVED = 0.2
# A validation loss this many times its lowest, at this many validations in a row, rises for good.
RISEN, IN_A_ROW = 1.02, 5
# Counts of the whole run that a log line names as soon as there are any.
TROUBLES = ("skipped", "corrupt_records")


class Reporter:
    """Writes the metrics of a run to its directory.

    Process 0 prints, and writes metrics, curves and pictures. Each process, it too, keeps what it
    said in a file of its own, logs/process_N.log: where one of many waits for data, or what it
    said last, stands there. A resumed run continues the files: metrics of steps it will repeat are
    dropped.
    """

    def __init__(self, workdir: str | Path, first_step: int, process: int = 0):
        self._workdir, self._enabled = Path(workdir), process == 0
        self._lines: list[dict] = []
        self._file = self._workdir / "metrics.jsonl"
        self._log = self._workdir / "logs" / f"process_{process}.log"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        if not self._enabled:
            return
        from tensorboardX import SummaryWriter

        if self._file.exists():
            # A kill or a full disk may have torn the last line.
            whole = self._file.read_text().rpartition("\n")[0].splitlines()
            self._lines = [line for line in map(json.loads, whole) if line["step"] <= first_step]
        # A kill must find the old lines or the new ones.
        with written_beside(self._file) as beside:
            beside.write_text("".join(json.dumps(line) + "\n" for line in self._lines))
        self._board = SummaryWriter(str(self._workdir / "tensorboard"), purge_step=first_step + 1)

    def say(self, text: str) -> None:
        """One message for the person who watches."""
        with self._log.open("a") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
        if self._enabled:
            print(text, flush=True)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Logs one line; non-finite values are written as they are."""
        if self._enabled:
            self._write(step, values)
        self.say(_readable(step, values))

    def validation(self, step: int, values: dict[str, float]) -> None:
        """What `validation.Validation` found: logged like scalars; warns of a rising loss."""
        if not values:
            return
        if self._enabled:
            self._write(step, values)
        self.say(_readable_validation(step, values))
        losses = [line["val_loss"] for line in self._lines if "val_loss" in line]
        if since := rises(losses):
            self.say(
                f"validation loss rises: it was lowest {since} validations ago, {min(losses):.4f}: "
                "the run learns its people by heart: stop it, or give it more people"
            )

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """uint8 [H, W, 3] to TensorBoard and to NAME/step_N.png."""
        if not self._enabled:
            return
        from input_pipeline.media.pictures import write_picture

        folder = self._workdir / name
        folder.mkdir(exist_ok=True)
        write_picture(folder / f"step_{step:07d}.png", image)
        self._board.add_image(name, image, step, dataformats="HWC")

    def _write(self, step: int, values: dict[str, float]) -> None:
        self._lines.append({"step": step, **values})
        with self._file.open("a") as file:
            file.write(json.dumps(self._lines[-1]) + "\n")
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def draw_loss_curve(self) -> None:
        """loss.png: the loss, its noise bins and the validation loss over the steps."""
        if not self._enabled or not self._lines:
            return
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        for name in ("loss", "val_loss", *(f"loss_noise_{i}" for i in range(NUM_NOISE_BINS))):
            found = [(line["step"], line[name]) for line in self._lines if name in line]
            if found:
                width = 2 if name.endswith("loss") else 0.8
                axes.plot(*zip(*found), label=name, linewidth=width)
        axes.set(xlabel="step", ylabel="loss", yscale="log")
        axes.legend()
        figure.savefig(self._workdir / "loss.png", dpi=120)

    def close(self) -> None:
        if self._enabled:
            self._board.close()


class Interval:
    """Losses and times since the last log line."""

    def __init__(self, metrics: Sequence[dict] = ()):
        """
        Args:
          metrics: from `get_state`, to continue an interval that was cut.
        """
        self._clear()
        self._metrics.extend(metrics)
        self._untimed = len(self._metrics)

    def _clear(self) -> None:
        self._start, self._waited, self._metrics = time.perf_counter(), 0.0, []
        self._untimed = 0  # of the metrics: steps before the run was cut

    @contextlib.contextmanager
    def paused(self):
        """Keeps what happens inside out of the step time."""
        start = time.perf_counter()
        yield
        self._start += time.perf_counter() - start

    def wait(self, function):
        """Calls the function and counts its time as waiting for data."""
        start = time.perf_counter()
        result = function()
        self._waited += time.perf_counter() - start
        return result

    def add(self, metrics: dict) -> None:
        """Metrics of one step, fetched from the device."""
        self._metrics.append({name: value.tolist() for name, value in metrics.items()})

    def get_state(self) -> list[dict]:
        """The steps since the last log line, in plain JSON values."""
        return list(self._metrics)

    def summary(self) -> dict[str, float]:
        """Means over the interval, which then starts anew.

        loss and grad_norm, of the steps that were not skipped (NaN if all were); loss_noise_i, the
        unweighted error in quarter i of the timesteps, from little noise to much (absent when no
        sample fell there); skipped, steps of the whole run; step_secs; data_wait, a share.
        """
        seconds = time.perf_counter() - self._start
        taken = [m for m in self._metrics if m["skipped"][1] == 0]
        values = {
            name: float(np.mean([m[name] for m in taken])) if taken else math.nan
            for name in ("loss", "grad_norm")
        }
        errors = np.sum([m["noise_bin_errors"] for m in taken], 0)
        counts = np.sum([m["noise_bin_counts"] for m in taken], 0)
        for i in np.flatnonzero(counts):
            values[f"loss_noise_{i}"] = float(errors[i] / counts[i])
        values["skipped"] = int(self._metrics[-1]["skipped"][0])
        values["step_secs"] = seconds / (len(self._metrics) - self._untimed)
        values["data_wait"] = self._waited / seconds
        self._clear()
        return values


def rises(losses: list[float]) -> int | None:
    """How many validations ago a loss that now rises for good was lowest; None if it does not."""
    if len(losses) <= IN_A_ROW:
        return None
    since = len(losses) - 1 - int(np.argmin(losses))
    risen = min(losses[-IN_A_ROW:]) > RISEN * min(losses)
    return since if since >= IN_A_ROW and risen else None


def _readable_validation(step: int, values: dict[str, float]) -> str:
    """step 40  validation loss 0.9120 (by noise ...)  l1 0.041 (copy 0.055, paste 0.050)  ..."""
    parts = [f"step {step}"]
    if "val_loss" in values:
        by_noise = _by_noise(values, "val_noise")
        parts.append(f"validation loss {values['val_loss']:.4f} (by noise {by_noise})")
    for name in (name for name in values if name.startswith("case_")):
        score = name.removeprefix("case_")
        copy, paste = (values[f"{baseline}_{score}"] for baseline in ("copy", "paste"))
        title = score.replace("_", " ")
        parts.append(f"{title} {values[name]:.3f} (copy {copy:.3f}, paste {paste:.3f})")
    return "  ".join(parts)


def _readable(step: int, values: dict[str, float]) -> str:
    """step 40  loss 0.8120 (by noise 0.310 - 0.960 1.310)  grad 1.20  0.210 s/step  data wait 1%"""
    wait = f"data wait {values['data_wait']:.0%}"
    if values["data_wait"] > STARVED:
        wait += " (starved: see docs/data.md, Speed)"
    return "  ".join(
        [
            f"step {step}",
            f"loss {values['loss']:.4f} (by noise {_by_noise(values, 'loss_noise')})",
            f"grad {values['grad_norm']:.2f}",
            f"{values['step_secs']:.3f} s/step",
            *([f"MFU {values['mfu']:.0%}"] if "mfu" in values else []),
            wait,
            *(f"{name} {values[name]}".replace("_", " ") for name in TROUBLES if values.get(name)),
        ]
    )


def _by_noise(values: dict[str, float], name: str) -> str:
    """Errors by quarter of the timesteps; "-" where no sample fell."""
    errors = (values.get(f"{name}_{i}") for i in range(NUM_NOISE_BINS))
    return " ".join("-" if error is None else f"{error:.3f}" for error in errors)
