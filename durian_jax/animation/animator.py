"""The Animator: portrait, attribute photos and driving clip in, video out."""

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import platform
from collections.abc import Iterable, Iterator
from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from durian_jax.animation.job import Job
from durian_jax.animation.recording import Recording, Video, check_outputs, files_of_animator
from durian_jax.diffusion import solvers
from durian_jax.sampling.generator import Generator
from durian_jax.sampling.program import Progress, Stopwatch
from durian_jax.systems.system import system_name, takes_attributes
from durian_jax.weights import loading, storage
from input_pipeline.errors import InputError
from input_pipeline.faces import geometry
from input_pipeline.faces.landmarker import FaceLandmarker
from input_pipeline.inference import aligners, inputs
from input_pipeline.inference.readers import READERS
from input_pipeline.inference.subject import Subject
from input_pipeline.kinds import MIN_ATTRIBUTE_AREA
from input_pipeline.masks import regions, segmenters
from input_pipeline.media import files
from input_pipeline.training.transforms import SampleOptions


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
      path: of its video.
      scene: what was read. settings: those of OUT.json. Both None if there is an error.
      error: why it cannot be made, or None.
    """

    job: Job
    path: Path
    scene: inputs.Scene | None
    settings: dict | None
    error: Exception | None


@dataclasses.dataclass(frozen=True)
class _PreparedJob:
    """A job whose inputs were read, or could not be."""

    job: Job
    path: Path | None
    scene: inputs.Scene | None
    error: Exception | None
    seconds: dict

    def can_batch_with(self, other: "_PreparedJob") -> bool:
        """Whether both can be sampled together."""
        return None not in (self.scene, other.scene) and _shapes(self) == _shapes(other)


class Animator:
    """A trained model, ready to animate; compiled programs are kept between calls.

    Example:
      animator = Animator.load("runs/stage2")
      animator("her.png", [("him.png", "glasses")], "driver.mp4").save("out.mp4")
    """

    def __init__(
        self,
        params: dict,
        config: dict,
        source: str,
        masks: str = "heuristic",
        aligner: str = "geometric",
        devices: list | None = None,
        landmarks: str | Path | None = None,
    ):
        """
        Args:
          params: all parameters of the model.
          config: the config that they were trained with, in plain values.
          source: where they come from, for the settings of a result.
          masks: the segmenter, as `segmenters.load` takes it.
          aligner: as `aligners.load` takes it, or "self": the model itself shows the attribute
            source in the portrait's pose, and the attribute is looked for there.
          devices: of this process; each takes a job at a time. Default: the first.
          landmarks: a Face Landmarker for the eyelids, see `FaceLandmarker`.

        Raises InputError for a segmenter, an aligner or landmarks that cannot be used.
        """
        self.generator = Generator(params, config, devices)
        self._read_scene = READERS[system_name(config)]
        # What no video may replace.
        self.files = files.Inputs(files_of_animator(source, masks, aligner, landmarks))
        self.source, self._sampling = source, solvers.Sampling.from_settings(config["sample"])
        # The middle of what training draws; converted weights do not say what that was.
        data = config.get("data", {})
        self._grow = data.get("grow", SampleOptions.grow) / 2
        self._masked = data.get("masked", True)
        self._landmarker = FaceLandmarker(landmarks)
        self._segmenter, self._aligner = segmenters.load(masks), aligner
        self._align = self._reposed if aligner == "self" else aligners.load(aligner)

    @classmethod
    def load(
        cls,
        source: str | Path | None = None,
        masks: str = "heuristic",
        aligner: str = "geometric",
        devices: list | None = None,
        landmarks: str | Path | None = None,
    ) -> "Animator":
        """The averaged weights of a training run, or a folder of weights.

        Args:
          source: workdir, folder, hub id USER/NAME@REVISION or shipped name. Default: the small
            model of the package, which says what it is.
          masks, aligner, devices, landmarks: as in the constructor.

        Raises:
          InputError: there is no checkpoint, it lacks a network, or no such segmenter or aligner.
        """
        if source is None:
            source = storage.DEFAULT
        if str(source) in storage.SHIPPED and not Path(source).exists():
            print(storage.NOTE)
        params, meta = loading.load(source)
        if absent := meta.get("absent"):
            raise InputError(
                f"{source}: has no {', '.join(absent)}: convert it again together with a source "
                "of them, such as a folder of diffusers"
            )
        return cls(params, meta["config"], str(source), masks, aligner, devices, landmarks)

    @property
    def size(self) -> int:
        """Side of the videos in pixels."""
        return self.generator.system.size

    @property
    def sampling(self) -> solvers.Sampling:
        """What is used where nothing else is asked for: `config.sample`."""
        return self._sampling

    @functools.cached_property
    def takes_attributes(self) -> bool:
        """Whether the system wears attributes of others, or animates a portrait as it is."""
        return takes_attributes(self.generator.system)

    def __call__(
        self,
        portrait: str | Path,
        attributes: list[tuple],
        driving: str | Path,
        *,
        quiet: bool = False,
        **options,
    ) -> Video:
        """Animates the portrait with the driver's motion, wearing the attributes.

        Args:
          portrait, attributes, driving: see `Job`. quiet: see `animate`.
          options: fields of `Job` and of `solvers.Sampling`.

        Raises:
          InputError: a photo, mask or clip that cannot be used, and why.
        """
        names = {field.name for field in dataclasses.fields(solvers.Sampling)}
        sampling = {name: options.pop(name) for name in names & options.keys()}
        job = Job(portrait, attributes, driving, **options)
        (result,) = self.animate([job], quiet=quiet, **sampling)
        return result

    def animate(self, jobs: Iterable[Job], *, quiet: bool = False, **sampling) -> Iterator[Video]:
        """The videos of the jobs, in their order; as many at a time as there are devices.

        Jobs in a row that have as many frames and attributes are sampled together. What comes out
        does not depend on that, but for rounding.

        Args:
          quiet: speak of nothing but compilation.
          sampling: fields of `solvers.Sampling`. What is left out or None is as in the run's own
            samples, `config.sample`.

        Raises:
          InputError: a photo, mask or clip that cannot be used, and why.
        """
        chosen = self._sampling.changed(**sampling)
        for group in self._groups(((job, None) for job in jobs), quiet):
            if group[0].error is not None:
                raise group[0].error
            parts = list(self._sampled(group, chosen, watch := Stopwatch(quiet)))
            for prepared, frames in zip(group, np.concatenate(parts, axis=1)):
                settings = self._settings(prepared, chosen, watch, len(frames))
                yield Video(frames, prepared.job, prepared.scene, settings)

    def record(
        self,
        jobs: Iterable[tuple[Job, Path]],
        *,
        quiet: bool = False,
        progress: Progress | None = None,
        **sampling,
    ) -> Iterator[Outcome]:
        """Like `animate`, but into files that are written while frames are made, see `Recording`.

        Memory does not grow with the length of the clips. A job that cannot be made (an unusable
        photo, more attributes than fit into memory) has an error, of whatever class, and the others
        go on.

        Args:
          progress: told of each phase (reading, compiling, denoising, decoding, writing) in place
            of the terminal. What it raises becomes the error of the job.
        """
        chosen = self._sampling.changed(**sampling)
        for group in self._groups(jobs, quiet, progress):
            yield from self._record(group, chosen, quiet, progress)

    def _record(
        self,
        group: list[_PreparedJob],
        sampling: solvers.Sampling,
        quiet: bool,
        progress: Progress | None,
    ) -> Iterator[Outcome]:
        first, watch, count = group[0], Stopwatch(quiet, progress), 0
        recordings = [Recording(prepared.path, prepared.job, prepared.scene) for prepared in group]
        try:
            if first.error is not None:
                raise first.error
            with contextlib.ExitStack() as stack:
                for recording in recordings:
                    stack.enter_context(recording)
                for part in self._sampled(group, sampling, watch):
                    watch.progress("writing", count, self._frames(first.scene))
                    count += part.shape[1]
                    for recording, frames in zip(recordings, part):
                        recording.write(frames)
                settings = [self._settings(prepared, sampling, watch, count) for prepared in group]
                for recording, values in zip(recordings, settings):
                    recording.write_settings(values)
        # Also what a library raises for a damaged file, or a full disk: it is this job's alone.
        except Exception as error:
            if len(group) == 1:
                yield Outcome(first.job, first.path, None, None, error)
            else:  # whose fault it is
                for prepared in group:
                    yield from self._record([prepared], sampling, quiet, progress)
            return
        for prepared, values in zip(group, settings):
            yield Outcome(prepared.job, prepared.path, prepared.scene, values, None)

    def settings(self, job: Job, **sampling) -> dict:
        """What OUT.json will say of how the video of a job was made, in plain values.

        Args:
          sampling: as in `animate`.
        """
        return {
            **job.to_json(),
            "grow_mask": self._growth(job),
            **dataclasses.asdict(self._sampling.changed(**sampling)),
            "landmarks": self._landmarker.version,
            "masks": str(self._segmenter),
            "aligner": self._aligner,
            "checkpoint": self.source,
            "weights_sha256": self.weights_hash,
            "size": self.size,
        }

    def _groups(
        self,
        jobs: Iterable[tuple[Job, Path | None]],
        quiet: bool,
        progress: Progress | None = None,
    ) -> Iterator[list]:
        """Jobs that are sampled together; one with an error stands alone."""
        group = []
        for prepared in (self._prepare(job, path, quiet, progress) for job, path in jobs):
            if group and (
                len(group) == self.generator.mesh.size or not prepared.can_batch_with(group[0])
            ):
                yield group
                group = []
            group.append(prepared)
        if group:
            yield group

    def _prepare(
        self, job: Job, path: Path | None, quiet: bool, progress: Progress | None
    ) -> _PreparedJob:
        watch, scene, problem = Stopwatch(quiet, progress), None, None
        try:
            if path is not None:
                check_outputs(path, job, self.files)
            with watch.phase("reading photos and clip"):
                scene = self.read(job)
        except Exception as error:
            problem = error
        for note in scene.notes if scene and not quiet else ():
            print(f"note: {note}")
        return _PreparedJob(job, path, scene, problem, watch.seconds)

    def read(self, job: Job) -> inputs.Scene:
        """What will be animated: crops, keypoints, masks and, to interpolate, the alpha of every
        frame. Raises InputError as `animate`."""
        scene = self._read_scene(
            job.portrait, job.attributes, job.driving, self.size, self._landmarker,
            inputs.Masking(self._segmenter, self._align, self._growth(job), self._masked),
            portrait_mask=job.portrait_mask, framed=job.framed, motion_options=job.motion_options,
            towards=job.towards, references=job.references,
        )  # fmt: skip
        if job.towards:
            scene.batch["alpha"] = job.alphas(self._frames(scene))
        return scene

    def _growth(self, job: Job) -> float:
        return self._grow if job.grow_mask is None else job.grow_mask

    def _sampled(
        self, group: list[_PreparedJob], sampling: solvers.Sampling, watch: Stopwatch
    ) -> Iterator[np.ndarray]:
        """Frames uint8 [N, n, S, S, 3] of jobs that fit, as they are finished."""
        batches = [prepared.scene.batch for prepared in group]
        return self.generator(batches, [prepared.job.seed for prepared in group], sampling, watch)

    def _frames(self, scene: inputs.Scene) -> int:
        """How many the video will have."""
        names = self.generator.system.frame_inputs
        return next(len(scene.batch[name]) for name in names if name in scene.batch)

    def _settings(
        self, prepared: _PreparedJob, sampling: solvers.Sampling, watch: Stopwatch, frames: int
    ) -> dict:
        """What reproduces a video."""
        return {
            **self.settings(prepared.job, **dataclasses.asdict(sampling)),
            "frames": frames,
            "fps": str(prepared.scene.motion.fps),
            "notes": prepared.scene.notes,
            "seconds": prepared.seconds | watch.seconds,
            "versions": _versions(),
        }

    def _reposed(
        self, attribute_source: Subject, kind: str, mask: np.ndarray, portrait: Subject
    ) -> np.ndarray:
        """The aligner "self": the attribute source as it is, with the portrait's keypoints.

        bool [S, S]. Raises InputError where the generated picture does not show the attribute.
        """
        hidden = regions.grow(mask, self._grow * np.ptp(attribute_source.keypoints[:, 1]))
        batch = {
            "keypoints": portrait.keypoints[None, :, :2],
            "portrait": regions.hide(attribute_source.image, hidden),
            "portrait_mask": hidden,
            "portrait_keypoints": attribute_source.keypoints[:, :2],
            "attribute": regions.hide(attribute_source.image, ~mask)[None],
            "attribute_mask": mask[None],
            "attribute_keypoints": attribute_source.keypoints[None, :, :2],
            "face": geometry.align_face(attribute_source.image, attribute_source.keypoints),
        }
        (((image,),),) = self.generator([batch], [0], self._sampling, Stopwatch(quiet=True))
        posed = segmenters.Pictures(image[None], portrait.keypoints[None])
        (found,) = self._segmenter(posed, frozenset([kind]))[kind]
        if found.mean() < MIN_ATTRIBUTE_AREA:
            raise InputError(
                f"{attribute_source.path}: in the portrait's pose the model shows no {kind} "
                f"({found.mean():.2%} of the picture): use the aligner geometric"
            )
        return found

    @functools.cached_property
    def weights_hash(self) -> str:
        """SHA-256 of all parameters, in the order of their names."""
        digest = hashlib.sha256()
        for name, leaf in sorted(flatten_dict(self.generator.params, sep="/").items()):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(leaf).tobytes())
        return digest.hexdigest()


def _shapes(prepared: _PreparedJob):
    return jax.tree.map(np.shape, prepared.scene.batch)


def _versions() -> dict[str, str]:
    packages = ("durian_jax", "jax", "flax", "numpy", "av", "ai-edge-litert")
    found = {name: importlib.metadata.version(name) for name in packages}
    return {"python": platform.python_version(), **found}
