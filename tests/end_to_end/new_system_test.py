"""A system of which the package knows nothing is a folder, a config, a sample builder and a reader;
the loop, the planner, the sampler, the animator and the evaluator take it as it is."""

import json

import pytest

from durian_jax.cli.main import main
from durian_jax.planning import plan
from durian_jax.planning.topology import Topology
from durian_jax.systems.system import build
from durian_jax.training import loop
from input_pipeline.errors import InputError
from input_pipeline.inference.readers import READERS, read_attributes
from tests.reliability import smallest, toy


@pytest.fixture(scope="module")
def config(prepared_dataset):
    toy.install()
    READERS["toy"] = read_attributes  # the cases below have some; the toy looks past them
    config = smallest.get_config("toy")
    config.data.path, config.steps, config.sample.every = str(prepared_dataset), 4, 4
    config.sample.update(steps=2, clips=2)
    config.optimizer.warmup_steps = 1
    return config


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("toy")
    loop.train(config, workdir)
    return workdir


def test_it_trains_and_draws_its_samples(run):
    assert list((run / "samples").glob("*.png"))


def test_it_is_planned(config):
    planned = plan.Step(config, Topology.parse(None), devices=None).estimate()
    assert planned.memory["total"] > 0 and planned.model_flops > 0
    sampling = plan.Step(config, Topology.parse(None), sample=True).estimate()
    assert sampling.model_flops > 0


def test_it_animates_and_is_scored(run, case_folder, tmp_path):
    code = main(
        ["evaluate", "--protocol=counterfactual", f"--cases={case_folder}", "--groups=hair",
         f"--checkpoint={run}", f"--out={tmp_path / 'report'}", "--steps=2"]
    )  # fmt: skip
    assert code == 0
    facts = json.loads((tmp_path / "report" / "report.json").read_text())
    (mine,) = (r for r in facts["rows"] if (r["group"], r["method"]) == ("hair", run.name))
    assert 0 < mine["metrics"]["psnr"]["mean"] < 60


def test_it_is_scored_where_there_are_no_attributes(run, reenact_folder, tmp_path):
    code = main(
        ["evaluate", "--protocol=reenact", f"--cases={reenact_folder}", f"--checkpoint={run}",
         f"--out={tmp_path / 'report'}", "--steps=2", "--networks=none"]
    )  # fmt: skip
    assert code == 0
    facts = json.loads((tmp_path / "report" / "report.json").read_text())
    (mine,) = (r for r in facts["rows"] if (r["group"], r["method"]) == ("all", run.name))
    assert 0 < mine["metrics"]["psnr"]["mean"] < 60 and 0 <= mine["metrics"]["leak"]["mean"] <= 1


def test_a_name_that_is_none_is_refused_with_those_there_are():
    with pytest.raises(InputError, match=r"system='sora': choose animate_anyone, durian"):
        build({"system": "sora", "model": {}})
