"""The commands of the README and of docs/ are those that the command line takes."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from durian_jax.cli import arguments
from durian_jax.cli.config_files import load_config
from durian_jax.planning.topology import Topology
from input_pipeline.dataset import cases

ROOT = Path(__file__).parents[1]


def commands(page: str) -> list[str]:
    """The indented `durian VERB ...` commands of a page, each in one line, without comments."""
    text = (ROOT / page).read_text().replace("\\\n", " ")
    found = re.findall(r"^ {4}(durian \w+ .*)$", text, re.MULTILINE)
    return [re.sub(r"\s+# .*", "", line) for line in found]


def is_complete(command: str) -> bool:
    return "..." not in command and "[" not in command


PAGES = ["README.md", *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md")))]
COMMANDS = [(page, command) for page in PAGES for command in commands(page)]


@pytest.mark.parametrize(("page", "command"), [c for c in COMMANDS if is_complete(c[1])])
def test_a_command_is_taken(page, command, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = shlex.split(command)[1:]
    end = words.index("--") if "--" in words else len(words)
    options, rest = arguments.parser(words).parse_known_args(words[:end])
    if options.verb in ("train", "plan"):
        config = load_config(options.config, rest)
        if options.verb == "plan" and options.topology and not options.sample:
            parts = Topology.parse(options.topology).count * config.accumulate
            assert config.batch_size % parts == 0
    else:
        assert not rest


@pytest.mark.parametrize(("page", "command"), [c for c in COMMANDS if not is_complete(c[1])])
def test_the_options_of_a_sketch_exist(page, command, capsys):
    with pytest.raises(SystemExit):
        arguments.parser(words := [command.split()[1], "--help"]).parse_args(words)
    known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    named = {option for option in re.findall(r"--[a-z-]+", command) if option != "--config."}
    assert named <= known | {"--config"}


def test_there_are_commands_to_test():
    assert {command.split()[1] for page, command in COMMANDS if page == "README.md"} == {
        "animate", "check", "convert", "evaluate", "prepare", "synth", "train",
    }  # fmt: skip


# Less of everything; of an option given twice the last one counts.
SMALLER = {
    "synth": "--people 30 --clips 1 --size 64 --cases 2",
    "prepare": "--size 64",
    "check": "",
    "train": "--config.steps=2 --config.batch_size=2 --config.sample.steps=1",
    "animate": "--steps 1",
    "evaluate": "--steps 1",
}


@pytest.mark.slow
def test_the_readme_runs_from_top_to_bottom(talking_head_clips, portrait_picture, tmp_path):
    shutil.copytree(talking_head_clips, tmp_path / "CLIPS")
    shutil.copy(talking_head_clips / "labels.csv", tmp_path)
    shutil.copy(talking_head_clips / "warm.mp4", tmp_path / "talk.mp4")
    for photo in ("me.jpg", "her.jpg", "his.png"):  # read by content, whatever the suffix
        shutil.copy(portrait_picture, tmp_path / photo)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    for command in commands("README.md"):
        _, verb, *words = shlex.split(command)
        if verb not in SMALLER or not is_complete(command):
            continue  # foreign weights: tests/parity
        if verb == "prepare":  # the other of two ways to the data set
            words[words.index("DATASET")] = "PREPARED"
        if "PREDICTIONS" in words:
            (tmp_path / "PREDICTIONS").mkdir()
            for case in cases.CaseSet.read(tmp_path / "CASES").cases:
                driving = tmp_path / "CASES" / case.id / "driving.mp4"
                shutil.copy(driving, tmp_path / "PREDICTIONS" / f"{case.id}.mp4")
            shutil.move(tmp_path / "REPORT", tmp_path / "REPORT1")
        smaller = [] if "--predictions" in words else SMALLER[verb].split()
        done = subprocess.run(
            [sys.executable, "-m", "durian_jax.cli.main", verb, *words, *smaller],
            cwd=tmp_path, capture_output=True, text=True, timeout=1200,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    for made in ("DATASET/people.png", "PREPARED", "RUN2/loss.png", "out.mp4", "out_grid.mp4"):
        assert (tmp_path / made).exists(), made
    for report in ("REPORT1", "REPORT"):
        assert "copy" in (tmp_path / report / "report.md").read_text()
