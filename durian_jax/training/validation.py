"""Does a run work? Its loss on people it never saw, and its scores against rendered truth."""

import functools
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from durian_jax.diffusion.process import Process
from durian_jax.distributed import sharding
from durian_jax.systems.system import System, takes_attributes
from durian_jax.training.train_step import denoising_loss, noise_bins
from input_pipeline.errors import InputError

# Columns of a run's scores, all better when lower.
SCORES = ("l1", "keypoints", "no_face")


class Validation:
    """Validation loss and counterfactual scores of a model while it trains.

    The loss is that of training without dropout, the autoencoder's noise and `noise_offset`, over
    `config.validation.batches` batches of the split "val": noise and timesteps are the same each
    time, and the timesteps lie evenly in what training draws from. The scores are those of `durian
    evaluate` over the first `config.validation.cases` cases with one attribute in
    DATASET/counterfactual, sampled by `config.sample`, beside the still portrait ("copy") and the
    pasted attribute ("paste").

    All processes of a run make one and call it together; the first computes the scores.
    """

    def __init__(
        self,
        system: System,
        process: Process,
        config,
        mesh: jax.sharding.Mesh,
        open_loader: Callable,
        say: Callable[[str], None],
    ):
        """
        Args:
          open_loader: of the split "val", takes `seed`; raises InputError where there is none.
          say: told what is left out, and why.
        """
        self._config, self._mesh = config, mesh
        self._gather = jax.jit(lambda leaf: leaf, out_shardings=sharding.replicated(mesh))
        self._loss = make_loss(system, process, config.seed, mesh)
        self._batches = []
        try:
            if config.validation.batches:
                loader = open_loader(seed=config.seed + 2)
                self._batches = [next(loader) for _ in range(config.validation.batches)]
                loader.close()
        except InputError as error:
            say(f"no validation loss: {error}")
        self._examiner, self._case_folder = None, None
        if config.validation.cases:
            folder = Path(config.data.path) / "counterfactual"
            if not takes_attributes(system):
                say("no scores of cases: these have attributes, the model takes none")
            elif (folder / "cases.json").is_file():
                self._case_folder = folder
            else:
                say(f"no scores of cases: no {folder}: durian synth makes it with --cases")

    def __call__(self, params: dict) -> dict[str, float]:
        """Values by name: val_loss and val_noise_i, the unweighted errors in quarter i of the
        timesteps; case_SCORE, copy_SCORE and paste_SCORE for SCORES.

        Args:
          params: all parameters, on the devices of the mesh.
        """
        values = {}
        if self._batches:
            sums = [self._loss(params, sharding.put_batch(b, self._mesh)) for b in self._batches]
            loss, errors, counts = jax.tree.map(lambda *x: np.sum(x, axis=0), *jax.device_get(sums))
            values["val_loss"] = float(loss / len(sums))
            for i in np.flatnonzero(counts):
                values[f"val_noise_{i}"] = float(errors[i] / counts[i])
        if self._case_folder:
            local = jax.tree.map(self._fetch, params)
            if jax.process_index() == 0:
                if self._examiner is None:
                    self._examiner = Examiner(local, self._config, self._case_folder)
                values |= self._examiner(local)
        return values

    def _fetch(self, leaf: jax.Array) -> np.ndarray:
        """The whole of a parameter, on the host; one at a time, devices have no room for all."""
        if not leaf.is_fully_replicated:
            leaf = self._gather(leaf)
        return np.asarray(leaf.addressable_data(0))


def make_loss(system: System, process: Process, seed: int, mesh: jax.sharding.Mesh) -> Callable:
    """A function of (params, batch) to the weighted loss, and the unweighted errors and counts
    [NUM_NOISE_BINS] by quarter of the timesteps; noise and timesteps depend on the seed alone."""

    @functools.partial(jax.jit, out_shardings=sharding.replicated(mesh))
    def loss(params: dict, batch: dict) -> tuple:
        variables = {"params": params}
        latents = system.apply(variables, batch["video"], method="encode_video")
        clips, frames = latents.shape[:2]
        own = (clips,) if system.temporal else (clips, frames)
        count = int(np.prod(own))
        # Every frame (or clip) has its share of the timesteps, in an order that mixes clips.
        shares = np.random.default_rng(seed).permutation((np.arange(count) + 0.5) / count)
        t = process.times_at(shares.reshape(own))
        noise = jax.random.normal(jax.random.key(seed), latents.shape)
        weighted, errors = denoising_loss(
            process, lambda noisy: system.apply(variables, batch, noisy, t), latents, noise, t
        )
        bins = noise_bins(process, t)
        return weighted, errors.reshape(-1) @ bins, bins.sum(0)

    return loss


class Examiner:
    """Animates counterfactual cases and scores them, as `durian evaluate` does."""

    def __init__(self, params: dict, config, folder: Path):
        from durian_jax.animation.animator import Animator
        from durian_jax.evaluate import scores
        from durian_jax.evaluate.protocol import Protocol
        from input_pipeline.dataset.cases import CaseSet
        from input_pipeline.faces.landmarker import FaceLandmarker

        self._animator = Animator(params, config.to_dict(), "run")
        self._landmarker, self._protocol = FaceLandmarker(), Protocol.load("counterfactual")
        cases = CaseSet.read(folder)
        simple = [case for case in cases.cases if len(case.attributes) == 1]
        self._cases = simple[: config.validation.cases]
        self._pictures = {case.id: cases.load(case) for case in self._cases}
        self._folder, self._size = folder, cases.size
        self._references = {
            case.id: scores.find_reference(case, self._pictures[case.id], self._landmarker)
            for case in self._cases
        }
        found = [
            scores.baseline_frames(case, self._pictures[case.id], self._references[case.id])
            for case in self._cases
        ]
        self._baselines = {
            f"{name}_{score}": value
            for name in ("copy", "paste")
            for score, value in self._scores(frames[name] for frames in found).items()
        }

    def __call__(self, params: dict) -> dict[str, float]:
        """case_SCORE, and those of the baselines."""
        from durian_jax.evaluate.predictions import job_of
        from input_pipeline.media.pictures import resize

        self._animator.generator.load(params)
        jobs = [job_of(self._folder, case, seed=0) for case in self._cases]
        videos = (
            np.stack([resize(frame, self._size) for frame in video.frames]) / 255.0
            for video in self._animator.animate(jobs, quiet=True)
        )
        values = {f"case_{k}": v for k, v in self._scores(videos).items()}
        self._animator.generator.load({})  # training needs the room
        return values | self._baselines

    def _scores(self, videos) -> dict[str, float]:
        from durian_jax.evaluate import scores

        rows = []
        for case, frames in zip(self._cases, videos):
            frames = frames.astype(np.float32)
            track = scores.find_track(frames, self._landmarker)
            pictures, reference = self._pictures[case.id], self._references[case.id]
            prediction = scores.Prediction(frames, track, case, pictures, reference)
            rows.append(scores.score(prediction, self._protocol))
        found = {name: [row[name] for row in rows if row[name] is not None] for name in SCORES}
        return {name: float(np.mean(values)) for name, values in found.items() if values}
