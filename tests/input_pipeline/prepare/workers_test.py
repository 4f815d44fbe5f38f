import multiprocessing
import os
import signal
import time
import uuid

import pytest

from input_pipeline.dataset.store import Store
from input_pipeline.errors import InputError
from input_pipeline.prepare import workers


def double(number):
    return 2 * number


def dies_at_three(number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize("count", [1, 2])
def test_results_are_in_the_order_of_the_items(count):
    pool = workers.Pool(count, progress=False)
    assert pool.map(double, range(7), "item") == [0, 2, 4, 6, 8, 10, 12]
    assert pool.map(double, [], "item") == []


def test_a_killed_worker_is_no_traceback():
    with pytest.raises(InputError, match=r"one of 2 workers was killed.*run again"):
        workers.Pool(2, progress=False).map(dies_at_three, range(5), "item")


def holds_the_pipe(path):
    with path.open("wb", buffering=0) as pipe:
        pipe.write(b".")
        time.sleep(60)


def test_workers_end_with_a_command_that_is_killed(tmp_path):
    os.mkfifo(path := tmp_path / "pipe")
    pool = workers.Pool(2, progress=False)
    command = multiprocessing.get_context("spawn").Process(
        target=pool.map, args=(holds_the_pipe, [path] * 4, "item")
    )
    command.start()
    with path.open("rb", buffering=0) as pipe:
        assert pipe.read(1) + pipe.read(1) == b".."
        command.kill()
        begin = time.monotonic()
        assert pipe.read(1) == b""  # once nobody holds it any more
        assert time.monotonic() - begin < 30


@pytest.fixture
def direct(tmp_path):
    pytest.importorskip("apache_beam")
    return workers.Beam(("--runner=DirectRunner",), Store.at(tmp_path), "exchange")


def test_beam_does_the_same_and_leaves_nothing_behind(direct):
    items = list(range(50))
    assert direct.map(double, items, "item") == [2 * item for item in items]
    assert direct.map(double, [], "item") == []
    assert list(direct.store.files()) == []


def test_an_unknown_runner_is_named(direct, tmp_path):
    unknown = workers.Beam((f"--runner={uuid.uuid4().hex}",), Store.at(tmp_path), "exchange")
    with pytest.raises(InputError, match="runner"):
        unknown.map(double, [1], "item")


def test_without_beam_the_package_to_install_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "apache_beam", None)
    with pytest.raises(InputError, match=r"pip install 'durian_jax\[beam\]'"):
        workers.Beam(("--runner=DirectRunner",), Store.at(tmp_path), "x").map(double, [1], "item")
