"""What a run reports: a log line, TensorBoard scalars and pictures, metrics.jsonl, a loss curve."""

import contextlib
import json
import math
import time
from pathlib import Path

import numpy as np

NUM_NOISE_BINS = 4


class Reporter:
    """Writes the metrics of a run to its directory; other processes than the first stay silent.

    A resumed run continues the files: lines of steps it will repeat are dropped.
    """

    def __init__(self, workdir: str | Path, first_step: int, enabled: bool = True):
        self._workdir, self._enabled = Path(workdir), enabled
        self._lines: list[dict] = []
        self._file = self._workdir / "metrics.jsonl"
        if not enabled:
            return
        from tensorboardX import SummaryWriter

        if self._file.exists():
            written = [json.loads(line) for line in self._file.read_text().splitlines()]
            self._lines = [line for line in written if line["step"] <= first_step]
        self._file.write_text("".join(json.dumps(line) + "\n" for line in self._lines))
        self._board = SummaryWriter(str(self._workdir / "tensorboard"), purge_step=first_step + 1)

    def say(self, text: str) -> None:
        """One message for the person who watches."""
        if self._enabled:
            print(text, flush=True)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Logs one line; non-finite values are written as they are.

        Raises:
          FloatingPointError: the loss is not finite.
        """
        if self._enabled:
            self._lines.append({"step": step, **values})
            with self._file.open("a") as file:
                file.write(json.dumps(self._lines[-1]) + "\n")
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
            self.say(_readable(step, values))
        if not math.isfinite(values["loss"]):
            raise FloatingPointError(
                f"the loss at step {step} is {values['loss']}: resume from the last "
                "checkpoint with a lower optimizer.learning_rate"
            )

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """uint8 [H, W, 3] to TensorBoard and to NAME/step_N.png."""
        if not self._enabled:
            return
        from input_pipeline import video

        folder = self._workdir / name
        folder.mkdir(exist_ok=True)
        video.write_picture(folder / f"step_{step:07d}.png", image)
        self._board.add_image(name, image, step, dataformats="HWC")

    def draw_loss_curve(self) -> None:
        """loss.png: the loss and its noise bins over the steps."""
        if not self._enabled or not self._lines:
            return
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        steps = [line["step"] for line in self._lines]
        for name in ("loss", *(f"loss_noise_{i}" for i in range(NUM_NOISE_BINS))):
            values = [line.get(name, math.nan) for line in self._lines]
            axes.plot(steps, values, label=name, linewidth=2 if name == "loss" else 0.8)
        axes.set(xlabel="step", ylabel="loss", yscale="log")
        axes.legend()
        figure.savefig(self._workdir / "loss.png", dpi=120)

    def close(self) -> None:
        if self._enabled:
            self._board.close()


class Interval:
    """Losses and times since the last log line."""

    def __init__(self):
        self._clear()

    def _clear(self) -> None:
        self._start, self._waited, self._metrics = time.perf_counter(), 0.0, []

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
        self._metrics.append(metrics)

    def summary(self) -> dict[str, float]:
        """Means over the interval, which then starts anew.

        loss and grad_norm; loss_noise_i, the unweighted error in quarter i of the timesteps, from
        little noise to much (absent when no sample fell there); step_secs; data_wait, a share.
        """
        seconds = time.perf_counter() - self._start
        values = {
            name: float(np.mean([m[name] for m in self._metrics])) for name in ("loss", "grad_norm")
        }
        errors = np.sum([m["noise_bin_errors"] for m in self._metrics], 0)
        counts = np.sum([m["noise_bin_counts"] for m in self._metrics], 0)
        for i in np.flatnonzero(counts):
            values[f"loss_noise_{i}"] = float(errors[i] / counts[i])
        values["step_secs"] = seconds / len(self._metrics)
        values["data_wait"] = self._waited / seconds
        self._clear()
        return values


def _readable(step: int, values: dict[str, float]) -> str:
    """step 40  loss 0.812 (by noise 0.31 0.52 0.96 1.31)  grad 1.2  0.21 s/step  data 1%"""
    bins = [values.get(f"loss_noise_{i}") for i in range(NUM_NOISE_BINS)]
    by_noise = " ".join("-" if value is None else f"{value:.3f}" for value in bins)
    corrupt = values.get("corrupt_records", 0)
    return (
        f"step {step}  loss {values['loss']:.4f} (by noise {by_noise})  "
        f"grad {values['grad_norm']:.2f}  {values['step_secs']:.3f} s/step  "
        f"data wait {values['data_wait']:.0%}" + (f"  corrupt records {corrupt}" if corrupt else "")
    )
