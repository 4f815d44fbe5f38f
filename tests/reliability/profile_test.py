"""What a run says of its speed."""

import json

import pytest

from input_pipeline.errors import InputError


def test_a_run_counts_its_operations_and_traces_the_steps_it_is_asked_for(train_toy, tmp_path):
    train_toy(tmp_path, steps=4, profile=(1, 2), log_every=2)
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 2 and all(line["tflops"] > 0 for line in lines)
    # Nobody states the peak of a CPU.
    assert "mfu" not in lines[0]


@pytest.mark.parametrize("steps", [(3,), (3, 2), (2, 24), (-1, 2)])
def test_steps_that_cannot_be_traced_are_refused(train_toy, tmp_path, steps):
    with pytest.raises(InputError, match=r"profile=.* is no \(first, last\) step of 24: write"):
        train_toy(tmp_path, profile=steps)
