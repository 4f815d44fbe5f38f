import json
import time

import numpy as np
import pytest

from durian_jax.metrics import Interval, Reporter


def _step(loss, errors, counts):
    return {
        "loss": np.float32(loss), "grad_norm": np.float32(1.0),
        "noise_bin_errors": np.array(errors, np.float32),
        "noise_bin_counts": np.array(counts, np.float32),
    }  # fmt: skip


def test_interval_averages_steps_and_bins_and_starts_anew():
    interval = Interval()
    interval.add(_step(1.0, [3, 0, 0, 1], [2, 0, 0, 1]))
    interval.add(_step(3.0, [3, 0, 0, 2], [1, 0, 0, 1]))
    values = interval.summary()
    assert values["loss"] == 2.0
    assert values["loss_noise_0"] == 2.0 and values["loss_noise_3"] == 1.5
    assert "loss_noise_1" not in values
    interval.add(_step(7.0, [0, 1, 0, 0], [0, 1, 0, 0]))
    assert interval.summary()["loss"] == 7.0


def test_waiting_counts_as_data_wait_and_pauses_count_as_nothing():
    interval = Interval()
    assert interval.wait(lambda: time.sleep(0.05) or "batch") == "batch"
    with interval.paused():
        time.sleep(0.5)
    interval.add(_step(1.0, [1, 1, 1, 1], [1, 1, 1, 1]))
    values = interval.summary()
    assert values["data_wait"] > 0.5
    assert 0.05 <= values["step_secs"] < 0.4


def test_a_resumed_run_drops_the_lines_it_will_repeat(tmp_path):
    first = Reporter(tmp_path, first_step=0)
    for step in (10, 20, 30):
        first.scalars(step, {"loss": 1.0 * step, "grad_norm": 1.0, "step_secs": 1, "data_wait": 0})
    first.close()
    again = Reporter(tmp_path, first_step=20)
    again.scalars(30, {"loss": 5.0, "grad_norm": 1.0, "step_secs": 1, "data_wait": 0})
    again.draw_loss_curve()
    again.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(10, 10.0), (20, 20.0), (30, 5.0)]
    assert (tmp_path / "loss.png").stat().st_size > 1000


def test_a_loss_that_is_not_finite_is_written_down_and_stops_the_run(tmp_path):
    report = Reporter(tmp_path, first_step=0)
    with pytest.raises(FloatingPointError, match="step 7 is nan"):
        report.scalars(7, {"loss": float("nan"), "grad_norm": 1.0, "step_secs": 1, "data_wait": 0})
    assert '"step": 7' in (tmp_path / "metrics.jsonl").read_text()


def test_other_processes_write_nothing(tmp_path, capsys):
    report = Reporter(tmp_path, first_step=0, enabled=False)
    report.say("hello")
    report.picture(1, "samples", np.zeros((4, 4, 3), np.uint8))
    report.draw_loss_curve()
    report.scalars(1, {"loss": 1.0})
    report.close()
    assert not list(tmp_path.iterdir()) and not capsys.readouterr().out
