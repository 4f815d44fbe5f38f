"""`durian batch`: a table of jobs over all devices of all machines.

Row i goes to process i modulo their number, which samples it on its own devices: clips do not
depend on each other. Results go by files in the folder of the videos, because one process may be
done an hour before another, longer than any collective waits.
"""

import csv
import json
import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import jax
from jax.experimental import multihost_utils
from tqdm import tqdm

from durian_jax.animation.animator import Animator
from durian_jax.animation.job_table import Row
from durian_jax.animation.recording import check_outputs
from input_pipeline.errors import InputError, in_one_line
from input_pipeline.media import files

REPORT = "report.csv"
DONE, SKIPPED, FAILED = "done", "skipped", "failed"
_POLL_SECONDS = 0.5
# Failures named in an error; all of them are in the report.
_MOST_NAMED = 3


@dataclass(frozen=True)
class Result:
    """What became of a row: a line of the report.

    status: DONE, SKIPPED or FAILED. seconds: from reading its files to its last frame, those of the
    rows sampled beside it included. error: one line, or "". notes: on its inputs, joined by "; ".
    """

    name: str
    status: str
    seconds: float = 0.0
    error: str = ""
    notes: str = ""


def run(
    rows: list[Row],
    out: str | Path,
    animator: Animator,
    *,
    skip_done: bool = False,
    table: str | Path | None = None,
    **sampling,
) -> list[Result]:
    """Makes the video of every row that can be made, and OUT/report.csv.

    An exception that stops it, KeyboardInterrupt too, leaves the report of what there is; not in
    several processes, of which none knows the results of the others.

    A row NAME becomes OUT/NAME.mp4, or NAME.png for a photo that drives, and what `Animator.record`
    writes beside it. All processes call this with the same rows and one folder; the first speaks.

    Args:
      rows: of a table, see `job_table.read`.
      animator: of this process, on its own devices.
      skip_done: leave a row alone whose files are there and say that they were made from the same
        job by the same weights and options. What is in photos and clips is not compared.
      table: the file that the rows come from.
      **sampling: as in `Animator.record`.

    A row whose files would replace an input of any row, the table, or a file that the animator was
    made of, fails.

    Returns:
      The results of all rows, in their order; none in processes but the first.

    Raises:
      InputError: a folder that cannot be written or is not the same for all processes; or, at the
        end, rows that failed.
    """
    out = files.local(out)
    named = [path for row in rows if row.job for path in row.job.files]
    named += [] if table is None else [files.local(table)]
    inputs = files.Inputs(named), animator.files
    check_output(out, *inputs)
    processes = _Processes(out)
    mine = [_checked(row, out, *inputs) for row in rows[processes.index :: processes.count]]
    found: dict[int, Result] = {}
    try:
        _make(mine, found, out, animator, skip_done, sampling, silent=processes.index > 0)
    except BaseException:
        if processes.count == 1:
            rest = "not reached: the batch was stopped"
            _write(
                out / REPORT,
                [found.get(i, Result(row.name, FAILED, error=rest)) for i, row in enumerate(rows)],
            )
        raise
    results = [found[i] for i in range(len(mine))]
    gathered = processes.gather([asdict(result) for result in results])
    if not gathered:
        return []
    results = [
        Result(**gathered[i % processes.count][i // processes.count]) for i in range(len(rows))
    ]
    _write(out / REPORT, results)
    if noted := sum(bool(result.notes) for result in results):
        print(f"note: there are notes on {noted} of {len(rows)} rows: {out / REPORT} lists them")
    failed = [result for result in results if result.status == FAILED]
    if failed:
        reasons = [f"{result.name} ({result.error})" for result in failed[:_MOST_NAMED]]
        raise InputError(
            f"{len(failed)} of {len(rows)} rows failed: {out / REPORT} lists them: "
            f"{'; '.join(reasons)}{'; ...' if len(failed) > _MOST_NAMED else ''}"
        )
    return results


def check_output(out: str | Path, *inputs: files.Inputs) -> None:
    """Makes the folder of a batch. InputError: it cannot be written, or its report is an input."""
    report = files.local(out) / REPORT
    for known in inputs:
        known.check_apart([report])
    files.check_output(report, ".csv")


def _checked(row: Row, out: Path, *inputs: files.Inputs) -> Row:
    """The row, with an error if its files cannot be made or would replace one of the inputs."""
    if row.error:
        return row
    try:
        check_outputs(_path(row, out), row.job, *inputs)
    except Exception as error:
        return replace(row, error=error)
    return row


def _path(row: Row, out: Path) -> Path:
    return out / f"{row.name}{row.job.motion_options.suffix(row.job.driving)}"


def _make(
    rows: list[Row],
    results: dict[int, Result],
    out: Path,
    animator: Animator,
    skip_done: bool,
    sampling: dict,
    silent: bool,
) -> None:
    """Makes the rows; `results`, by their number, grow on the way."""
    todo = {}
    for i, row in enumerate(rows):
        if row.error:
            results[i] = _failed(row, row.error)
            continue
        path = _path(row, out)
        if skip_done and _is_made(path, animator.settings(row.job, **sampling)):
            results[i] = Result(row.name, SKIPPED)
        else:
            todo[i] = row.job, path
    outcomes = animator.record(todo.values(), quiet=True, **sampling)
    with tqdm(total=len(rows), initial=len(results), unit="row", disable=silent) as bar:
        for i, outcome in zip(todo, outcomes):
            if outcome.error:
                results[i] = _failed(rows[i], outcome.error)
            else:
                seconds = round(sum(outcome.settings["seconds"].values()), 2)
                notes = "; ".join(outcome.settings["notes"])
                results[i] = Result(rows[i].name, DONE, seconds, notes=notes)
            bar.update()


def _failed(row: Row, error: Exception) -> Result:
    return Result(row.name, FAILED, error=in_one_line(error))


def _is_made(path: Path, settings: dict) -> bool:
    """Whether the files of a row are there and say that they were made by these settings."""
    try:
        found = json.loads(path.with_suffix(".json").read_text())
    except (OSError, ValueError):
        return False
    wanted = json.loads(json.dumps(settings))
    grid = path.with_name(f"{path.stem}_grid{path.suffix}")
    return (
        path.is_file()
        and grid.is_file()
        and isinstance(found, dict)
        and wanted == {name: found.get(name) for name in wanted}
    )


def _write(path: Path, results: list[Result]) -> None:
    with files.written_beside(path) as beside, open(beside, "w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Result)])
        writer.writeheader()
        writer.writerows(map(asdict, results))


class _Processes:
    """The processes of a batch, and what they tell each other by files in its folder.

    Attributes:
      index, count: of this process, and how many there are.

    Raises:
      InputError: the folder is not the same for all.
    """

    def __init__(self, out: Path):
        self.index, self.count = jax.process_index(), jax.process_count()
        self._files = [out / f".results-{i}.json" for i in range(self.count)]
        if self.count == 1:
            return
        # Empty: no results yet, and none of an earlier batch.
        self._files[self.index].write_text("")
        multihost_utils.sync_global_devices(str(out))
        for i, file in enumerate(self._files):
            if not file.is_file():
                raise InputError(
                    f"{out}: process {self.index} does not see what process {i} writes there: "
                    "name a folder that all machines share",
                    option="out",
                )

    def gather(self, results: list[dict]) -> list[list[dict]]:
        """The results of all processes in the first; [] in the others, once they are fetched.

        Waits as long as it takes. A process that dies ends the others by jax's heartbeat.
        """
        if self.count == 1:
            return [results]
        own = self._files[self.index]
        with files.written_beside(own) as beside:
            beside.write_text(json.dumps(results))
        if self.index > 0:
            while own.exists():
                time.sleep(_POLL_SECONDS)
            return []
        while not all(file.stat().st_size for file in self._files):
            time.sleep(_POLL_SECONDS)
        found = [json.loads(file.read_text()) for file in self._files]
        for file in self._files:
            file.unlink()
        return found
