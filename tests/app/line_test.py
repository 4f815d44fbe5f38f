"""One job at a time, in order; whoever waits knows where he stands, and may leave."""

import threading
import time

import pytest

from durian_jax.app import line
from durian_jax.app.line import Line, Stopped, Task
from input_pipeline.errors import InputError


class Job:
    """Work that goes on until it is told to end; `steps` events on the way."""

    def __init__(self, steps=0):
        self.begun, self.end, self.steps = threading.Event(), threading.Event(), steps

    def __call__(self, progress):
        self.begun.set()
        while not self.end.wait(0.01):
            progress("denoising", 0, 0)
        for done in range(self.steps + 1):
            progress("denoising", done, self.steps)
        return self.steps


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(line, "_POLL_SECONDS", 0.01)


def test_the_second_waits_for_the_first_and_is_told_so():
    jobs, queue = [Job(), Job(3)], Line()
    first, second = (queue.follow(None, job) for job in jobs)
    assert next(first)[0] in ("Starting ...", "Denoising ...")
    assert next(second) == ("Waiting: 1 job before yours", None)
    assert jobs[0].begun.wait(5) and not jobs[1].begun.is_set()
    for job in jobs:
        job.end.set()
    assert list(first)[-1] == (None, 0)
    assert list(second)[-1] == (None, 3)


def test_a_job_that_is_stopped_ends_and_the_next_begins():
    jobs, queue = [Job(), Job()], Line()
    first, second = queue.follow("me", jobs[0]), queue.follow("her", jobs[1])
    next(first), next(second)
    assert jobs[0].begun.wait(5)
    queue.stop("me")
    with pytest.raises(Stopped):
        list(first)
    jobs[1].end.set()
    assert list(second)[-1] == (None, 0)


def test_who_leaves_the_line_never_begins():
    jobs, queue = [Job(), Job()], Line()
    first, second = queue.follow("me", jobs[0]), queue.follow("her", jobs[1])
    next(first), next(second)
    queue.stop("her")
    with pytest.raises(Stopped):
        list(second)
    jobs[0].end.set()
    assert list(first)[-1] == (None, 0) and not jobs[1].begun.is_set()


def test_a_job_whose_browser_is_gone_ends():
    job, queue = Job(), Line()
    following = queue.follow(None, job)
    next(following)
    following.close()
    assert list(queue.follow(None, lambda progress: 5))[-1] == (None, 5)


def test_a_job_that_fails_leaves_the_line_usable():
    def fail(progress):
        raise InputError("me.png: no face")

    queue = Line()
    with pytest.raises(InputError, match="no face"):
        list(queue.follow(None, fail))
    assert list(queue.follow(None, lambda progress: 5))[-1] == (None, 5)


def test_a_long_line_is_closed(monkeypatch):
    monkeypatch.setattr(line, "MOST_WAITING", 1)
    jobs, queue = [Job(), Job()], Line()
    following = [queue.follow(None, job) for job in jobs]
    for one in following:
        next(one)
    with pytest.raises(InputError, match="1 jobs wait already: try again"):
        next(queue.follow(None, Job()))
    for job in jobs:
        job.end.set()
    for one in following:
        list(one)


def test_the_time_left_is_that_of_the_steps_alone(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    task = Task()
    events = [(0, "denoising", 0), (40, "denoising", 1), (40, "compiling solver", 0)]
    events += [(70, "denoising", 1), (72, "denoising", 2), (74, "denoising", 3)]
    for clock[0], phase, done in events:
        task.progress(phase, done, 10 if phase == "denoising" else 0)
    text, share = task.told()
    assert text == "Denoising: step 3 of 10, about 00:14 left" and share == 0.3
    task.progress("compiling decoder", 0, 0)
    assert task.told() == ("Compiling decoder ...", None)
    task.stopped.set()
    assert task.told()[0] == "Stopping, once this is done: compiling decoder ..."
