"""The validation of a run: a loss that repeats, and scores beside the baselines."""

import jax
import numpy as np
import pytest

from durian_jax.diffusion.process import Discrete
from durian_jax.distributed import sharding
from durian_jax.systems.system import build, init_params
from durian_jax.training import validation
from input_pipeline.errors import InputError
from tests.reliability import smallest, toy

CONFIG = smallest.get_config("toy")
CONFIG.validation.update(batches=2, cases=0)
toy.install()
MODEL = build(CONFIG.to_dict())
DIFFUSION = Discrete(**CONFIG.diffusion)
CLIPS, FRAMES = 2, 1


class Batches:
    """Stands for the loader of the split "val"; the same batches for the same seed."""

    def __init__(self, seed):
        self._rng = np.random.default_rng(seed)

    def __next__(self):
        batch = {name: np.array(x) for name, x in MODEL.blank_batch(CLIPS, FRAMES).items()}
        for name in ("video", "portrait"):
            batch[name] = self._rng.integers(0, 256, batch[name].shape, dtype=np.uint8)
        return batch

    def close(self):
        pass


@pytest.fixture(scope="module")
def mesh():
    return sharding.make_mesh()


@pytest.fixture(scope="module")
def params():
    return jax.jit(lambda key: init_params(MODEL, key))(jax.random.key(0))


def _validate(params, mesh, open_loader=Batches, say=print):
    return validation.Validation(MODEL, DIFFUSION, CONFIG, mesh, open_loader, say)(params)


def test_the_loss_repeats_and_depends_on_the_parameters(params, mesh):
    first, again = _validate(params, mesh), _validate(params, mesh)
    assert first == again and set(first) == {"val_loss", "val_noise_1", "val_noise_3"}
    other = jax.tree.map(lambda leaf: 1.5 * leaf, params)
    assert _validate(other, mesh)["val_loss"] != first["val_loss"]


def test_timesteps_of_the_loss_lie_evenly_over_all_quarters(params, mesh):
    loss = validation.make_loss(MODEL, DIFFUSION, 0, mesh)
    batch = {name: np.repeat(x, 4, axis=0) for name, x in next(Batches(0)).items()}
    _, _, counts = loss(params, batch)
    np.testing.assert_array_equal(counts, 2)


def test_a_perfect_model_has_no_loss(mesh):
    """What predicts the target has the error 0, whatever the weights."""

    class Oracle(type(MODEL)):
        def __call__(self, batch, z, t, keep=None):
            return self.encode_video(batch["video"])

    model = Oracle(MODEL.config)
    clean = Discrete(**{**CONFIG.diffusion, "prediction": "x0"})
    batch = next(Batches(0))
    params = jax.jit(lambda k: model.init(k, batch["video"], method="encode_video"))(
        jax.random.key(0)
    )["params"]
    loss, errors, _ = validation.make_loss(model, clean, 0, mesh)(params, batch)
    assert loss == 0 and not np.any(errors)


def test_without_a_validation_split_there_is_no_loss_and_one_line_says_so(params, mesh):
    said = []

    def refuse(seed):
        raise InputError("DATASET: no split 'val': choose one of train")

    assert _validate(params, mesh, refuse, said.append) == {}
    assert said == ["no validation loss: DATASET: no split 'val': choose one of train"]


@pytest.mark.parametrize(
    ("takes", "reason"),
    [
        (True, "no {folder}: durian synth makes it with --cases"),
        (False, "these have attributes, the model takes none"),
    ],
)
def test_why_there_are_no_scores_of_cases_one_line_says(params, mesh, monkeypatch, takes, reason):
    monkeypatch.setitem(CONFIG.validation, "cases", 2)
    monkeypatch.setattr(validation, "takes_attributes", lambda system: takes)
    said = []
    assert "case_l1" not in _validate(params, mesh, say=said.append)
    folder = f"{CONFIG.data.path}/counterfactual".strip("/")
    assert said == [f"no scores of cases: {reason.format(folder=folder)}"]
