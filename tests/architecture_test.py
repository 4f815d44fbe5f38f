"""The house rules that a machine can check: who imports whom, and how long files get."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(
    path
    for folder in ("configs", "input_pipeline", "durian_jax")
    for path in (ROOT / folder).rglob("*.py")
)
# Every import of our own runs down one of these lists.
LAYERS = {
    "durian_jax": (
        "cli",  # what the verbs take, and which function each calls
        "app",  # the local web page over the Animator
        "planning",  # what a step will need, before it runs; nobody but the cli imports it
        "training",  # one loop for every stage and system
        "evaluate",  # cases, predictions, scores, report
        "animation",  # jobs in, video files out
        "sampling",  # a system and a solver make latents, then frames
        "convert",  # other people's weights in, ours out
        "systems",  # what a method is made of, the only place that knows its name
        "models",  # networks shared by all systems
        "diffusion",  # noise processes, solvers, windows: no model
        "metrics",  # what a video is worth
        "weights",  # parameters on disk and from the hub, ready to use
        "distributed",  # the mesh, the processes and the chips of a run
        "parameters",  # what a dataclass or a function takes, and what it says of it
    ),
    "input_pipeline": (
        "check",  # `durian check`
        "synthetic",  # procedural people
        "prepare",  # clip folder -> data set
        "training",  # records -> batches
        "inference",  # photos and a clip -> the batch of one animation
        "dataset",  # the data set on disk, and the case folders of evaluation
        "motion",  # a driver's motion on another face
        "masks",  # where an attribute is, and where it would be on another head
        "faces",  # one face: found, followed, cropped, posed, recognised, drawn
        "media",  # clips, pictures, sound, files
        "kinds",  # of attributes
        "packages",  # weights that other packages carry
        "errors",
    ),
}
# What folders may not import at all, nor anything below them.
FORBIDDEN = {
    "configs": {"jax", "flax", "durian_jax", "input_pipeline"},
    "input_pipeline": {"jax", "flax", "durian_jax", "configs"},
    "durian_jax/models": {"input_pipeline", "configs", "grain", "ml_collections"},
    "durian_jax/systems": {"configs", "grain", "ml_collections"},
    "durian_jax/diffusion": {"configs", "grain", "ml_collections"},
}
HEAVY = {
    "torch", "diffusers", "transformers", "tensorflow", "tensorflow_datasets", "apache_beam",
    "gradio", "ai_edge_litert", "onnxruntime", "tensorboardX", "matplotlib",
}  # fmt: skip


def _imports(path: Path, everywhere: bool = True) -> set[str]:
    """Modules that a file imports, with their names: "jax", "input_pipeline.errors.InputError"."""
    tree = ast.parse(path.read_text())
    found = set()
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _roots(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _layer(parts: tuple[str, ...]) -> int | None:
    """Where a module stands in its list: 0 is the top; None for the package itself."""
    if len(parts) < 2 or parts[1] == "__init__":
        return None
    return LAYERS[parts[0]].index(parts[1])


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_imports_run_down_the_layers(path):
    own = path.relative_to(ROOT).with_suffix("").parts
    if own[0] not in LAYERS or _layer(own) is None:
        return
    for imported in _imports(path):
        parts = tuple(imported.split("."))
        if parts[0] == own[0]:
            assert _layer(parts) is not None, f"{imported}: name the module"
            assert _layer(parts) >= _layer(own), f"{imported} is above {'.'.join(own)}"


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_folders_do_without_what_they_must_not_need(path):
    name, roots = _name(path), _roots(_imports(path))
    for folder, forbidden in FORBIDDEN.items():
        if name.startswith(f"{folder}/") and "/synthetic/" not in name:
            assert not roots & forbidden, folder


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_heavy_packages_are_imported_where_they_are_needed(path):
    heavy = HEAVY - {"gradio"} if _name(path).startswith("durian_jax/app/") else HEAVY
    assert not _roots(_imports(path, everywhere=False)) & heavy


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_files_stay_short(path):
    assert len(path.read_text().splitlines()) <= 400


def test_a_run_imports_neither_planner_nor_what_only_reads_data():
    import subprocess
    import sys

    code = (
        "import sys; sys.modules['grain'] = sys.modules['ml_collections'] = None\n"
        "import durian_jax.training.loop, durian_jax.systems.durian.model\n"
        "assert not [name for name in sys.modules if name.startswith('durian_jax.planning')]\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_nothing_speaks_of_tensorflow_at_run_time():
    import subprocess
    import sys

    code = (
        "import sys\nfrom input_pipeline.dataset import records\nrecords.features(8)\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_readme_is_at_most_150_lines():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_errors_of_libraries_name_no_flags(path):
    """`InputError(option=...)` is for that: callers in Python have arguments."""
    if _name(path).startswith("durian_jax/cli/"):
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "InputError":
            words = [x.value for x in ast.walk(node) if isinstance(x, ast.Constant)]
            flags = [w for w in map(str, words) if re.search(r"(?<!pip install )--[a-z]", w)]
            assert not flags, flags
