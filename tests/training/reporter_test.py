import json
import time

import numpy as np

from durian_jax.training.reporter import Interval, Reporter, rises


def _step(loss, errors, counts, skipped=(0, 0)):
    return {
        "skipped": np.array(skipped, np.int32),
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


def test_skipped_steps_are_counted_and_left_out_of_the_means():
    interval = Interval()
    interval.add(_step(1.0, [3, 0, 0, 1], [2, 0, 0, 1]))
    interval.add(_step(np.nan, [np.nan] * 4, [1, 1, 1, 0], skipped=(3, 1)))
    values = interval.summary()
    assert (values["loss"], values["loss_noise_0"], values["skipped"]) == (1.0, 1.5, 3)
    interval.add(_step(np.nan, [np.nan] * 4, [1, 1, 1, 0], skipped=(4, 2)))
    values = interval.summary()
    assert np.isnan(values["loss"]) and values["skipped"] == 4


def test_an_interval_that_was_cut_goes_on_to_the_same_means():
    steps = [_step(np.float32(loss) / 3, [loss, 0, 0, 1], [2, 0, 0, 1]) for loss in (1, 2, 5)]
    whole, first = Interval(), Interval()
    for step in steps:
        whole.add(step)
    first.add(steps[0])
    second = Interval(json.loads(json.dumps(first.get_state())))
    time.sleep(0.2)
    for step in steps[1:]:
        second.add(step)
    times = {"step_secs": 0, "data_wait": 0}
    found = second.summary()
    assert found | times == whole.summary() | times
    # The step before the cut took none of this time.
    assert 0.1 <= found["step_secs"] < 0.2


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
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 20, "lo')  # torn by a kill
    again = Reporter(tmp_path, first_step=20)
    again.scalars(30, {"loss": 5.0, "grad_norm": 1.0, "step_secs": 1, "data_wait": 0})
    again.draw_loss_curve()
    again.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(10, 10.0), (20, 20.0), (30, 5.0)]
    assert (tmp_path / "loss.png").stat().st_size > 1000


def test_a_line_names_what_goes_wrong(tmp_path, capsys):
    report = Reporter(tmp_path, first_step=0)
    values = {"loss": 0.5, "grad_norm": 1.0, "step_secs": 1, "data_wait": 0.01}
    report.scalars(1, values)
    report.scalars(2, values | {"skipped": 4, "corrupt_records": 2, "data_wait": 0.31})
    report.close()
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("data wait 1%")
    assert "data wait 31% (starved: see docs/data.md, Speed)" in second
    assert second.endswith("skipped 4  corrupt records 2")


def test_other_processes_keep_a_log_and_write_nothing_else(tmp_path, capsys):
    report = Reporter(tmp_path, first_step=0, process=3)
    report.say("hello")
    report.picture(1, "samples", np.zeros((4, 4, 3), np.uint8))
    report.draw_loss_curve()
    report.scalars(1, {"loss": 1.0, "grad_norm": 1.0, "step_secs": 1, "data_wait": 0.5})
    report.close()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files == [tmp_path / "logs" / "process_3.log"]
    first, second = files[0].read_text().splitlines()
    assert first.endswith(" hello") and "loss 1.0000" in second and "data wait 50%" in second
    assert not capsys.readouterr().out


def test_a_validation_stands_beside_copy_and_paste(tmp_path, capsys):
    report = Reporter(tmp_path, first_step=0)
    values = {"val_loss": 0.25, "val_noise_0": 0.1, "val_noise_3": 0.4}
    values |= {"case_l1": 0.04, "copy_l1": 0.07, "paste_l1": 0.08}
    report.validation(5, values)
    report.validation(5, {})
    report.draw_loss_curve()
    report.close()
    assert capsys.readouterr().out.splitlines() == [
        "step 5  validation loss 0.2500 (by noise 0.100 - - 0.400)  "
        "l1 0.040 (copy 0.070, paste 0.080)"
    ]
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 5, **values}


def test_a_validation_loss_that_rises_for_good_is_named(tmp_path, capsys):
    report = Reporter(tmp_path, first_step=0)
    for step, loss in enumerate([0.5, 0.3, 0.4, 0.4, 0.4, 0.4, 0.4]):
        report.validation(step, {"val_loss": loss})
    report.close()
    warnings = [line for line in capsys.readouterr().out.splitlines() if "rises" in line]
    assert len(warnings) == 1 and "lowest 5 validations ago, 0.3000" in warnings[0]


def test_noise_on_the_validation_loss_is_no_rise():
    assert rises([]) is None
    assert rises([0.5, 0.3, 0.302, 0.31, 0.305, 0.32, 0.303]) is None
    assert rises([0.3, 0.4, 0.5]) is None
    assert rises([0.5, 0.3, 0.4, 0.4, 0.4, 0.4, 0.4]) == 5
