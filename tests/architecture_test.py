"""The house rules that a machine can check: who imports whom, and how long files get."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(
    path
    for folder in ("configs", "input_pipeline", "durian_jax")
    for path in (ROOT / folder).rglob("*.py")
)
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


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_imports_keep_to_the_house(path):
    name, imports = _name(path), _imports(path)
    roots = _roots(imports)
    if name.startswith("configs/"):
        assert roots <= {"ml_collections", "configs"}
    if name.startswith("input_pipeline/") and "/synthetic/" not in name:
        assert not roots & {"jax", "flax", "durian_jax", "configs"}
    if name.startswith("durian_jax/models/"):
        assert not roots & {"input_pipeline", "configs", "grain", "ml_collections"}
        assert all(
            imported.startswith("durian_jax.models")
            for imported in imports
            if imported.startswith("durian_jax")
        )
    if name.removeprefix("durian_jax/") in ("diffusion.py", "flops.py", "hlo.py", "sharding.py"):
        assert not roots & {"durian_jax", "input_pipeline"}
    if name not in ("durian_jax/cli/main.py",):
        assert not {"durian_jax.training.loop", "durian_jax.cli.main"} & imports


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_heavy_packages_are_imported_where_they_are_needed(path):
    assert not _roots(_imports(path, everywhere=False)) & HEAVY


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_files_stay_short(path):
    assert len(path.read_text().splitlines()) <= 400


def test_models_training_step_and_checkpoints_need_neither_grain_nor_ml_collections():
    import subprocess
    import sys

    code = (
        "import sys; sys.modules['grain'] = sys.modules['ml_collections'] = None\n"
        "import durian_jax.training.train_step, durian_jax.training.loop\n"
        "import durian_jax.training.checkpoint, durian_jax.systems.durian.model\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_nothing_speaks_of_tensorflow_at_run_time():
    import subprocess
    import sys

    code = (
        "import sys\nfrom input_pipeline import records\nrecords.features(8)\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_readme_is_at_most_150_lines():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
