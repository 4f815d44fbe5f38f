"""A batch makes what can be made, makes it once, and says what became of the rest."""

import csv
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from durian_jax.animation import batch
from durian_jax.animation.animator import Outcome
from durian_jax.animation.job import Job
from durian_jax.animation.job_table import Row
from input_pipeline.errors import InputError
from input_pipeline.media import files
from input_pipeline.motion.driver import MotionOptions


class Animator:
    """Writes a job's seed in place of a video; cannot read the portrait "nobody.jpg", raises `stop`
    at "stop.jpg"."""

    def __init__(self, weights="a", stop=None, reads=()):
        self.weights, self.stop, self.seen = weights, stop, []
        self.files = files.Inputs(reads)

    def settings(self, job, **sampling):
        return {**job.to_json(), "steps": 25, **sampling, "weights_sha256": self.weights}

    def record(self, jobs, quiet, **sampling):
        for job, path in jobs:
            self.seen.append(path.name)
            if job.portrait == "nobody.jpg":
                yield Outcome(job, path, None, None, InputError("nobody.jpg: no such file"))
                continue
            if job.portrait == "stop.jpg":
                raise self.stop
            if job.portrait == "strange.png":
                yield Outcome(job, path, None, None, ValueError("Decompressed data\n too large"))
                continue
            seconds, notes = {"a": 1.5, "b": 1.0}, ["HDR", "silent"] if job.seed == 7 else []
            settings = self.settings(job, **sampling) | {"seconds": seconds, "notes": notes}
            path.write_text(str(job.seed))
            path.with_name(f"{path.stem}_grid{path.suffix}").write_text("")
            path.with_suffix(".json").write_text(json.dumps(settings))
            yield Outcome(job, path, None, settings, None)


def _row(name, portrait="me.jpg", **changes):
    return Row(name, Job(portrait, [("her.jpg", "hair")], "talk.mp4", **changes))


def _report(folder):
    with open(folder / "report.csv", newline="") as file:
        return list(csv.DictReader(file))


GOOD = [_row("a"), _row("b"), _row("c")]


def test_every_row_is_made_and_reported_in_order(tmp_path):
    results = batch.run(GOOD, tmp_path / "new" / "out", Animator())
    assert [(one.name, one.status, one.seconds) for one in results] == [
        (name, "done", 2.5) for name in "abc"
    ]
    assert _report(tmp_path / "new" / "out") == [
        {"name": name, "status": "done", "seconds": "2.5", "error": "", "notes": ""}
        for name in "abc"
    ]


def test_what_is_to_be_said_of_a_row_is_in_the_report(tmp_path, capsys):
    batch.run([*GOOD, _row("d", seed=7)], tmp_path, Animator())
    assert [line["notes"] for line in _report(tmp_path)] == ["", "", "", "HDR; silent"]
    assert "there are notes on 1 of 4 rows" in capsys.readouterr().out


def test_a_photo_that_drives_makes_a_picture(tmp_path):
    still = Job("me.jpg", [], "pose.jpg")
    clip = Job("me.jpg", [], "pose.jpg", motion_options=MotionOptions(frames=9))
    batch.run([Row("still", still), Row("clip", clip)], tmp_path, Animator())
    assert (tmp_path / "still.png").is_file() and (tmp_path / "clip.mp4").is_file()


def test_bad_rows_spoil_no_other_and_are_listed(tmp_path):
    unreadable = Row("x", error=InputError("line 3: seed 'x': write a whole number"))
    rows = [unreadable, _row("a"), _row("y", "nobody.jpg"), _row("b", seed=5)]
    with pytest.raises(InputError) as caught:
        batch.run(rows, tmp_path, Animator())
    assert str(caught.value) == (
        f"2 of 4 rows failed: {tmp_path}/report.csv lists them: x (line 3: seed 'x': write a whole "
        "number); y (nobody.jpg: no such file)"
    )
    assert [(line["name"], line["status"], line["error"]) for line in _report(tmp_path)] == [
        ("x", "failed", "line 3: seed 'x': write a whole number"),
        ("a", "done", ""),
        ("y", "failed", "nobody.jpg: no such file"),
        ("b", "done", ""),
    ]
    assert (tmp_path / "b.mp4").read_text() == "5"


def test_an_exception_of_any_class_is_a_line_of_the_report(tmp_path):
    with pytest.raises(InputError, match=r"1 of 3 rows failed: .*: b \(ValueError: Decompressed"):
        batch.run([_row("a"), _row("b", "strange.png"), _row("c")], tmp_path, Animator())
    assert [(line["status"], line["error"]) for line in _report(tmp_path)] == [
        ("done", ""), ("failed", "ValueError: Decompressed data too large"), ("done", ""),
    ]  # fmt: skip


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), RuntimeError("no device"), SystemExit(3)])
def test_a_batch_that_is_stopped_leaves_its_report(tmp_path, stop):
    rows = [_row("a"), _row("b", "nobody.jpg"), _row("c", "stop.jpg"), _row("d")]
    with pytest.raises(type(stop)):
        batch.run(rows, tmp_path, Animator(stop=stop))
    assert [(line["name"], line["status"], line["error"]) for line in _report(tmp_path)] == [
        ("a", "done", ""),
        ("b", "failed", "nobody.jpg: no such file"),
        ("c", "failed", "not reached: the batch was stopped"),
        ("d", "failed", "not reached: the batch was stopped"),
    ]


def test_many_failures_are_one_line(tmp_path):
    with pytest.raises(InputError, match=r"^5 of 5 rows failed: .*; \.\.\.$"):
        batch.run([_row(f"r{i}", "nobody.jpg") for i in range(5)], tmp_path, Animator())
    assert len(_report(tmp_path)) == 5


def _again(tmp_path, rows, animator=None, **sampling):
    """Names of the files that a batch over the first one makes."""
    animator = animator or Animator()
    results = batch.run(rows, tmp_path, animator, **{"skip_done": True} | sampling)
    made = [result.name for result in results if result.status == "done"]
    assert [result.status for result in results].count("skipped") == len(rows) - len(made)
    return animator.seen


def test_what_is_done_is_skipped_only_if_asked(tmp_path):
    assert _again(tmp_path, GOOD) == ["a.mp4", "b.mp4", "c.mp4"]
    assert _again(tmp_path, GOOD) == []
    assert [line["status"] for line in _report(tmp_path)] == ["skipped"] * 3
    assert _again(tmp_path, GOOD, skip_done=False) == ["a.mp4", "b.mp4", "c.mp4"]


def test_the_progress_bar_begins_behind_what_is_done(tmp_path, capsys):
    _again(tmp_path, GOOD)
    assert "0/3" in capsys.readouterr().err
    _again(tmp_path, [*GOOD, _row("d")])
    shown = capsys.readouterr().err
    assert "0/4" not in shown and shown.index("3/4") < shown.index("4/4")


def test_a_changed_row_is_made_again(tmp_path):
    _again(tmp_path, GOOD)
    changed = [GOOD[0], _row("b", seed=1), _row("c", motion_options=MotionOptions(smooth=0.0))]
    assert _again(tmp_path, changed) == ["b.mp4", "c.mp4"]
    assert (tmp_path / "b.mp4").read_text() == "1"
    assert _again(tmp_path, [*changed, _row("d")]) == ["d.mp4"]


def test_other_options_or_weights_make_all_rows_again(tmp_path):
    for options in (
        {},
        {"steps": 10},
        {"steps": 10, "solver": "dpm++"},
        {"steps": 10, "solver": "dpm++", "animator": Animator("b")},
    ):
        assert len(_again(tmp_path, GOOD, **options)) == 3
    assert _again(tmp_path, GOOD, Animator("b"), steps=10, solver="dpm++") == []


@pytest.mark.parametrize("name", ["a.mp4", "a_grid.mp4", "a.json"])
def test_a_row_with_a_file_missing_is_not_done(tmp_path, name):
    _again(tmp_path, GOOD)
    (tmp_path / name).unlink()
    assert _again(tmp_path, GOOD) == ["a.mp4"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_a_row_whose_settings_are_damaged_is_not_done(tmp_path, text):
    _again(tmp_path, GOOD)
    (tmp_path / "a.json").write_text(text)
    assert _again(tmp_path, GOOD) == ["a.mp4"]


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(tmp_path):
    (tmp_path / "file").write_text("in the way")
    animator = Animator()
    with pytest.raises(InputError, match="cannot be written"):
        batch.run(GOOD, tmp_path / "file" / "out", animator)
    assert animator.seen == []


@pytest.fixture
def two_processes(monkeypatch):
    """A function that calls another with 0 and 1 at once, in threads that pass for processes."""
    monkeypatch.setattr(batch, "_POLL_SECONDS", 0.01)
    index, together = threading.local(), threading.Barrier(2, timeout=10)
    monkeypatch.setattr(batch.jax, "process_count", lambda: 2)
    monkeypatch.setattr(batch.jax, "process_index", lambda: index.here)
    monkeypatch.setattr(batch.multihost_utils, "sync_global_devices", lambda _: together.wait())

    def call(function):
        def work(number):
            index.here = number
            return function(number)

        with ThreadPoolExecutor(2) as pool:
            futures = [pool.submit(work, number) for number in range(2)]
        return [future.exception() or future.result() for future in futures]

    return call


def test_two_processes_deal_the_rows_and_report_once(two_processes, tmp_path):
    # What an earlier batch left when it was killed.
    for number in range(2):
        (tmp_path / f".results-{number}.json").write_text('[{"name": "z", "status": "done"}]')
    rows, animators = [*GOOD, _row("d"), _row("e")], [Animator(), Animator()]
    first, second = two_processes(lambda i: batch.run(rows, tmp_path, animators[i]))
    assert [result.name for result in first] == list("abcde") and second == []
    assert [line["name"] for line in _report(tmp_path)] == list("abcde")
    assert [a.seen for a in animators] == [["a.mp4", "c.mp4", "e.mp4"], ["b.mp4", "d.mp4"]]
    assert not list(tmp_path.glob(".*"))


def test_fewer_rows_than_processes_are_enough(two_processes, tmp_path):
    first, second = two_processes(lambda i: batch.run(GOOD[:1], tmp_path, Animator()))
    assert [result.name for result in first] == ["a"] and second == []


def test_failures_of_the_other_process_are_told_by_the_first(two_processes, tmp_path):
    rows = [_row("a"), _row("b", "nobody.jpg")]
    first, second = two_processes(lambda i: batch.run(rows, tmp_path, Animator()))
    assert "1 of 2 rows failed" in str(first) and second == []


def test_processes_that_share_no_folder_are_refused(two_processes, tmp_path):
    errors = two_processes(lambda i: batch.run(GOOD, tmp_path / str(i), Animator()))
    for number, error in enumerate(errors):
        assert isinstance(error, InputError)
        assert f"process {number} does not see what process {1 - number} writes" in str(error)


def test_a_row_that_would_replace_an_input_of_any_row_fails_alone(tmp_path):
    for name in ("talk.mp4", "other_grid.mp4", "me.png"):
        (tmp_path / name).write_text("input")

    def row(name, driving="talk.mp4"):
        return Row(name, Job(tmp_path / "me.png", [], tmp_path / driving))

    rows = [row("talk"), row("good"), row("other"), row("last", "other_grid.mp4")]
    with pytest.raises(InputError, match=r"2 of 4 rows failed"):
        batch.run(rows, tmp_path, Animator())
    errors = {line["name"]: line["error"] for line in _report(tmp_path)}
    assert "talk.mp4: would replace the input" in errors["talk"]
    assert "other_grid.mp4: would replace the input" in errors["other"]
    assert errors["good"] == errors["last"] == ""
    for name in ("talk.mp4", "other_grid.mp4"):
        assert (tmp_path / name).read_text() == "input"


def test_a_row_that_would_replace_what_the_animator_reads_fails_alone(tmp_path):
    (tmp_path / "hair.png").write_text("mask")
    still = Row("hair", Job("me.jpg", [], "pose.jpg"))
    with pytest.raises(
        InputError, match=r"1 of 2 rows failed: .*hair\.png: would replace the input"
    ):
        batch.run([still, _row("a")], tmp_path, Animator(reads=[tmp_path / "hair.png"]))
    assert (tmp_path / "hair.png").read_text() == "mask"
    assert [line["status"] for line in _report(tmp_path)] == ["failed", "done"]


def test_the_report_never_replaces_the_table(tmp_path):
    table = tmp_path / "report.csv"
    table.write_text("portrait,attributes,driving\n")
    with pytest.raises(InputError, match=r"report\.csv: would replace the input"):
        batch.run(GOOD, tmp_path, Animator(), table=table)
    assert table.read_text().startswith("portrait")
