"""The hub's cache on disk: models--USER--NAME/{refs,snapshots/COMMIT}."""

from pathlib import Path

from input_pipeline.errors import InputError


def snapshot(path: Path) -> Path:
    """The snapshot that a folder of the cache holds: of its branch main, or the only one.

    Any other path is returned as it is. InputError: several snapshots, or none.
    """
    path = Path(path)
    folder = path if path.name == "snapshots" else path / "snapshots"
    if not folder.is_dir():
        return path
    found = sorted(entry for entry in folder.iterdir() if entry.is_dir())
    main = folder.parent / "refs" / "main"
    if main.is_file() and (chosen := folder / main.read_text().strip()) in found:
        return chosen
    if len(found) == 1:
        return found[0]
    raise InputError(
        f"{path}: {len(found)} snapshots in this folder of the hub's cache: "
        f"{'download it again' if not found else f'name one, such as {found[-1]}'}"
    )
