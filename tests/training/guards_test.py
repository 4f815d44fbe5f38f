import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from durian_jax.distributed import sharding
from durian_jax.training import guards
from input_pipeline.errors import Interrupted


def _posted(requests):
    requests.post()
    return requests.read()


def test_a_term_signal_asks_to_stop_once_steps_are_taken():
    before = signal.getsignal(signal.SIGTERM)
    with guards.Requests(sharding.make_mesh()) as requests:
        assert requests.read() == guards.NOTHING
        assert _posted(requests) == guards.NOTHING
        os.kill(os.getpid(), signal.SIGTERM)
        assert _posted(requests) == guards.STOP
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_term_signal_before_the_first_step_ends_at_once():
    with guards.Requests(sharding.make_mesh()) as requests:
        requests.check_start()
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted, match="before the first step: nothing to save"):
            requests.check_start()


def test_the_clock_asks_to_save_until_it_is_done(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(guards.time, "monotonic", lambda: now[0])
    requests = guards.Requests(sharding.make_mesh(), minutes=2.0)
    assert _posted(requests) == guards.NOTHING
    now[0] += 121
    # There is nothing to save before the first step.
    requests.check_start()
    assert requests.read() == guards.NOTHING
    assert _posted(requests) == guards.SAVE
    assert _posted(requests) == guards.SAVE
    requests.saved()
    assert _posted(requests) == guards.NOTHING


def test_a_run_that_diverges_is_stopped_at_the_limit():
    guards.refuse_divergence(np.array([7, 2]), step=40, limit=3)
    with pytest.raises(FloatingPointError, match=r"3 steps in a row, up to step 41 \(8 in all\)"):
        guards.refuse_divergence(np.array([8, 3]), step=41, limit=3)


def test_a_process_that_hangs_ends_with_the_reason_and_its_stacks():
    code = """
        import threading, time
        from durian_jax.training import guards
        with guards.Watchdog(minutes=0.5 / 60) as watchdog:
            for _ in range(8):
                watchdog.expect("the result of step 6")
                time.sleep(0.1)
            watchdog.expect("batch 7 of the data set")
            threading.Event().wait()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == guards.HUNG
    assert "of batch 7 of the data set (process 0 of 1)" in done.stderr
    assert "threading.py" in done.stderr and "config.guards.timeout_minutes" in done.stderr
