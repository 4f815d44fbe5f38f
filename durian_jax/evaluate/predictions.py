"""Predictions for the cases: read from a folder of any method's files, or made by a checkpoint."""

import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from durian_jax.evaluate import baselines
from input_pipeline.dataset.cases import Case, CaseSet
from input_pipeline.errors import InputError
from input_pipeline.kinds import KINDS
from input_pipeline.media import video
from input_pipeline.media.pictures import read_picture, resize

_ARRAY = ".npy"


class FolderPredictions:
    """DIR/ID.mp4, DIR/ID/0000.png, 0001.png, ... or DIR/ID.npy, one for each case.

    A .npy file holds uint8, or floats in [0, 1], [F, S, S, 3].

    Raises:
      InputError: the folder does not have one for every case, and nothing else, in the right shape;
        the message lists every problem, one a line.
    """

    note = None

    def __init__(self, folder: str | Path, cases: CaseSet, scored: tuple[Case, ...]):
        self._folder, self._cases = Path(folder), cases
        self.name = _name(folder)
        if not self._folder.is_dir():
            raise InputError(f"{folder}: no such folder: give the folder of the predictions")
        entries: dict[str, list[Path]] = {case.id: [] for case in cases.cases}
        problems = []
        for path in sorted(self._folder.iterdir()):
            if path.name.startswith("."):
                continue
            name = path.name if path.is_dir() else path.stem
            known = path.is_dir() or path.suffix.lower() in video.VIDEO_SUFFIXES | {_ARRAY}
            if known and name in entries:
                entries[name].append(path)
            else:
                problems.append(f"{path.name}: extra: not a prediction of any case")
        self._paths = {}
        for case in scored:
            paths = entries[case.id]
            if len(paths) != 1:
                names = " and ".join(path.name for path in paths)
                problems.append(f"{case.id}: {f'given twice, {names}' if paths else 'missing'}")
                continue
            self._paths[case.id] = paths[0]
            try:
                self(case)
            except InputError as error:
                problems.append(f"{case.id}: {error}")
        if problems:
            lines = "".join(f"\n  {problem}" for problem in problems)
            raise InputError(f"{folder}: {len(problems)} problems, nothing was scored{lines}")

    def __call__(self, case: Case) -> np.ndarray:
        """float32 [F, S, S, 3] in [0, 1]. Raises InputError: unreadable or of another shape."""
        path, size = self._paths[case.id], self._cases.size
        if path.suffix.lower() == _ARRAY and path.is_file():
            frames = _read_array(path)
        else:
            frames = list(video.read_frames(path) if path.is_file() else _read_stills(path))
        if len(frames) != case.frames:
            raise InputError(f"{path.name} has {len(frames)} frames, must have {case.frames}")
        for number, frame in enumerate(frames):
            if frame.shape != (size, size, 3):
                shape = "x".join(map(str, frame.shape))
                raise InputError(f"{path.name}: frame {number} is {shape}, must be {size}x{size}x3")
        frames = np.stack(frames)
        if frames.dtype == np.uint8:
            return frames.astype(np.float32) / 255
        return frames.astype(np.float32)

    def predictions(self, cases: Iterable[Case]) -> Iterator[np.ndarray]:
        """Those to the cases, in their order."""
        return map(self, cases)

    def facts(self) -> dict:
        """Where the predictions come from."""
        return {"predictions": str(self._folder)}


class CheckpointPredictions:
    """Predictions of a trained model, made as by `durian animate`, on all local devices.

    They are saved without loss in `keep`, from where they can be scored again.

    Attributes:
      note: what the reader of the scores should know, or None.
    """

    def __init__(
        self, checkpoint, cases: CaseSet, keep: Path, *, steps, guidance, seed, landmarks=None
    ):
        import jax

        from durian_jax.animation.animator import Animator

        self._animator = Animator.load(checkpoint, devices=jax.local_devices(), landmarks=landmarks)
        self._cases, self._keep, self._seed = cases, keep, seed
        self._options = {"steps": steps, "guidance": guidance, "quiet": True}
        self._settings = {}
        self.name = _name(checkpoint)
        self.note = None
        if self._animator.size != cases.size:
            self.note = (
                f"{self.name}: made at {self._animator.size} px, resized to {cases.size} px "
                f"({'bilinear' if self._animator.size < cases.size else 'area means'})"
            )

    def predictions(self, cases: tuple[Case, ...]) -> Iterator[np.ndarray]:
        """float32 [F, S, S, 3] in [0, 1] for each case. Raises InputError for a mixture of more
        than two sources, or of two kinds in different shares."""
        jobs = (job_of(self._cases.path, case, self._seed) for case in cases)
        results = self._animator.animate(jobs, **self._options)
        for case, result in zip(cases, results):
            yield self._kept(case, result)

    def _kept(self, case: Case, result) -> np.ndarray:
        self._settings = result.settings
        frames = np.stack([resize(one, self._cases.size) for one in result.frames])
        path = self._keep / f"{case.id}.mp4"
        video.write_video(path, frames, self._cases.fps, lossless=True)
        return frames.astype(np.float32) / 255

    def facts(self) -> dict:
        """What reproduces the predictions."""
        names = ("checkpoint", "weights_sha256", "steps", "guidance", "solver", "seed", "size")
        return {name: self._settings[name] for name in names if name in self._settings}


def job_of(folder: Path, case: Case, seed: int):
    """The job that predicts a case of a case folder, with the masks of the case.

    Raises:
      InputError: a mixture of more than two sources, or of two kinds in different shares.
    """
    from durian_jax.animation.job import Job

    folder = folder / case.id
    sources: dict[str, list] = {}
    for i, one in enumerate(case.attributes):
        paths = folder / f"attribute_{i}.png", one.kind, folder / f"attribute_{i}_mask.png"
        sources.setdefault(one.kind, []).append((paths, one.weight))
    mixed = {}
    if case.interpolates:
        shares = {some[1][1] for some in sources.values() if len(some) > 1}
        if len(shares) > 1 or any(len(some) > 2 for some in sources.values()):
            raise InputError(
                f"case {case.id}: a checkpoint mixes two sources of a kind, all kinds alike: "
                "leave it out"
            )
        mixed = {"towards": [some[-1][0] for some in sources.values()], "alpha": tuple(shares)}
    if sources:
        mixed["portrait_mask"] = folder / "portrait_mask.png"
    return Job(
        folder / "portrait.png", [some[0][0] for some in sources.values()],
        folder / "driving.mp4", framed=True,
        seed=seed, **mixed,
    )  # fmt: skip


def _name(folder: str | Path) -> str:
    name = Path(folder).resolve().name
    taken = (*baselines.NAMES, "portrait", *KINDS)  # columns of the sheets
    return f"{name} (method)" if name in taken else name


def _read_stills(folder: Path):
    names = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    expected = [f"{number:04d}.png" for number in range(len(names))]
    if sorted(names) != expected:
        odd = min(set(names) ^ set(expected))
        raise InputError(f"{folder.name}/{odd}: frames must be 0000.png, 0001.png, ... in a row")
    return (read_picture(folder / name) for name in expected)


def _read_array(path: Path) -> np.ndarray:
    try:
        frames = np.load(path)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path.name}: not a readable array ({error})") from None
    if not isinstance(frames, np.ndarray):
        raise InputError(f"{path.name}: several arrays (.npz): save one with numpy.save")
    if frames.ndim != 4:
        raise InputError(f"{path.name}: shape {frames.shape}, must be [F, S, S, 3]")
    if frames.dtype != np.uint8:
        if not np.issubdtype(frames.dtype, np.floating):
            raise InputError(f"{path.name}: {frames.dtype}, must be uint8 or floats in 0 .. 1")
        if not np.isfinite(frames).all():
            bad = np.flatnonzero(~np.isfinite(frames.reshape(len(frames), -1)).all(1))
            raise InputError(f"{path.name}: NaN or infinite values from frame {bad[0]} on")
        if frames.size and (frames.min() < 0 or frames.max() > 1):
            low, high = frames.min(), frames.max()
            raise InputError(f"{path.name}: values {low:g} .. {high:g}, must lie in 0 .. 1")
    return frames
