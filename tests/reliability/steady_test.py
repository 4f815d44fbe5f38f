"""A run is the same for a seed, compiles nothing on its way, and copies only what is meant."""

import jax
import pytest

from input_pipeline.training import loader
from tests.reliability import runs


@pytest.fixture
def events(monkeypatch):
    """What jax traces and compiles, as pairs of (batch at hand, event)."""
    found, take, now = [], loader.Loader.__next__, [0]

    def watched(self):
        now[0] = self.get_state()["batch"]
        if now[0] == 2:
            # From here on every implicit copy between host and devices raises.
            jax.config.update("jax_transfer_guard", "disallow")
        return take(self)

    def heard(event, _, **__):
        if "compile" in event or "trace" in event:
            found.append((now[0], event))

    monkeypatch.setattr(loader.Loader, "__next__", watched)
    jax.monitoring.register_event_duration_secs_listener(heard)
    yield found
    jax.monitoring.unregister_event_duration_listener(heard)
    jax.config.update("jax_transfer_guard", "allow")


def test_steps_trace_once_and_copy_only_what_is_meant(train_toy, events, tmp_path):
    train_toy(tmp_path, steps=12, save={"every": 3, "minutes": 1e-9})
    assert any("trace" in event for _, event in events)
    assert any("compile" in event for _, event in events)
    assert [event for event in events if event[0] >= 2] == []


def test_the_same_seed_gives_the_same_run_and_another_does_not(train_toy, tmp_path):
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        train_toy(tmp_path / name, steps=3, seed=seed)
    one, same, other = (runs.read(tmp_path / name) for name in ("one", "same", "other"))
    assert runs.differences(one, same) == []
    assert not {line["loss"] for line in one.losses} & {line["loss"] for line in other.losses}
    kernels = [path for path in one.arrays if path.endswith("kernel")]
    assert kernels and all((one.arrays[path] != other.arrays[path]).any() for path in kernels)
