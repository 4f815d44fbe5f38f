"""A data set on the page: its people, chosen by who they are and what they wear."""

import gradio as gr
import pytest

from durian_jax.app.data import Data
from durian_jax.app.visits import Visits


@pytest.fixture
def data(prepared_dataset, tmp_path):
    with gr.Blocks(), gr.Tab("Data") as tab:
        return Data(tab, Visits(tmp_path), {"clips": prepared_dataset})


def test_clips_are_chosen_by_person_and_attribute(data):
    told, person, kind, first, clips, training = data._show("clips", "all", "all", 1)
    assert "4 people, 4 clips; 4 chosen" in told and first.maximum == 4
    assert len(person.choices) == 5 and [name for name, _ in kind.choices] == [
        "all", "glasses", "hair"
    ]  # fmt: skip
    assert clips.shape[0] > 4 * 144 and training.shape[0] > 4 * 144
    told, *_, clips, _ = data._show("clips", "person 1", "glasses", 1)
    assert "; 1 chosen" in told and 144 < clips.shape[0] < 2 * 144
    told, *_, clips, _ = data._show("clips", "person 0", "glasses", 1)
    assert "; 0 chosen" in told and clips is None
