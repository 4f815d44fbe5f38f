"""What a run says of its speed."""

import json
import os
import re
import signal

import pytest

from input_pipeline.errors import InputError, Interrupted
from input_pipeline.training import loader


def test_a_run_counts_its_operations_and_traces_the_steps_it_is_asked_for(train_toy, tmp_path):
    train_toy(tmp_path, steps=4, profile=(1, 2), log_every=2)
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 2 and all(line["tflops"] > 0 for line in lines)
    # Nobody states the peak of a CPU.
    assert "mfu" not in lines[0]


@pytest.fixture
def stop_at(monkeypatch):
    """A function of (batch) that sends this process SIGTERM as the run takes that batch, once."""
    take, wanted = loader.Loader.__next__, []

    def watched(self):
        number = self.get_state()["batch"]
        batch = take(self)
        # The batch of the pictures has number 0.
        if number and number in wanted:
            wanted.remove(number)
            os.kill(os.getpid(), signal.SIGTERM)
        return batch

    monkeypatch.setattr(loader.Loader, "__next__", watched)
    return wanted.append


# The signal at batch n ends the run at step n + 1.
@pytest.mark.parametrize(("stop", "said"), [(2, "3 to 4"), (3, "4 to 4"), (4, "")])
def test_a_resumed_run_traces_the_steps_that_are_left(
    train_toy, stop_at, tmp_path, capsys, stop, said
):
    stop_at(stop)
    with pytest.raises(Interrupted, match=f"at step {stop + 1} of 6"):
        train_toy(tmp_path, steps=6, profile=(2, 4))
    # What was traced before the stop is not lost.
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
    capsys.readouterr()
    train_toy(tmp_path, steps=6, profile=(2, 4))
    assert "".join(re.findall(r"traced steps (.+):", capsys.readouterr().out)) == said


@pytest.mark.parametrize("steps", [(3,), (3, 2), (2, 24), (-1, 2)])
def test_steps_that_cannot_be_traced_are_refused(train_toy, tmp_path, steps):
    with pytest.raises(InputError, match=r"profile=.* is no \(first, last\) step of 24: write"):
        train_toy(tmp_path, profile=steps)
