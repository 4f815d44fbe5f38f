"""The Animator: portrait, attribute photos and driving clip in, video out."""

import dataclasses
import functools
import hashlib
import importlib.metadata
import itertools
import json
import platform
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from flax.traverse_util import flatten_dict

from durian_jax import checkpoint, sampler
from durian_jax.generator import Generator, Stopwatch
from input_pipeline import aligners, faces, inputs, segmenters, transforms, video
from input_pipeline.driving import FOLLOWING, Following, Motion
from input_pipeline.errors import InputError
from input_pipeline.expansion import grow
from input_pipeline.records import MIN_ATTRIBUTE_AREA
from input_pipeline.subject import Subject


@dataclasses.dataclass(frozen=True)
class Job:
    """What a video is made of.

    Attributes:
      portrait: photo of the person.
      attributes: (photo, kind) or (photo, kind, mask) tuples; kind is hair, glasses, beard or hat;
        a mask is a picture as large as the photo, white where the attribute shows. Without one the
        attribute is looked for. None at all for a model with a single reference.
      driving: clip; the result has its length, frame rate and sound. Or a photo, or a template
        (`driving.write_template`).
      portrait_mask: likewise, white where the portrait shows its own attributes of these kinds.
      grow_mask: the portrait's mask grows by this share of the face's height.
      framed: photos and clip are head-and-shoulders squares already and are not cropped, so that
        the result has the framing of the portrait.
      following: how the portrait follows the driver.
      seed: of the noise.
    """

    portrait: str | Path
    attributes: list[tuple]
    driving: str | Path
    portrait_mask: str | Path | None = None
    grow_mask: float = 0.03
    framed: bool = False
    following: Following = FOLLOWING
    seed: int = 0

    def to_json(self) -> dict:
        """All of it in plain values."""
        return {
            "portrait": str(self.portrait),
            "portrait_mask": self.portrait_mask and str(self.portrait_mask),
            "attributes": [":".join(map(str, attribute)) for attribute in self.attributes],
            "driving": str(self.driving),
            **dataclasses.asdict(self.following),
            "grow_mask": self.grow_mask,
            "framed": self.framed,
            "seed": self.seed,
        }


@dataclasses.dataclass(frozen=True)
class Video:
    """A generated clip.

    Attributes:
      frames: uint8 [F, S, S, 3] RGB.
      grid: uint8 [F, S, (3 + N) S, 3]: portrait | N attributes | driver | result.
      fps: frames per second, the driver's.
      motion: the driver's, with the clip whose sound `save` keeps.
      masks: uint8 picture of all masks, see `inputs.Scene.preview`.
      settings: what reproduces the clip, in plain JSON values.
    """

    frames: np.ndarray
    grid: np.ndarray
    fps: Fraction
    motion: Motion
    masks: np.ndarray
    settings: dict

    def save(self, path: str | Path) -> None:
        """Writes OUT.mp4, OUT_grid.mp4 and OUT.json, or of a single frame OUT.png, OUT_grid.png.

        Raises InputError if it cannot.
        """
        path = Path(path)
        for place, frames in (
            (path, self.frames),
            (path.with_name(f"{path.stem}_grid{path.suffix}"), self.grid),
        ):
            if path.suffix.lower() == ".png" and len(frames) == 1:
                video.write_picture(place, frames[0])
            else:
                video.write_video(place, frames, self.fps, audio_from=self.motion.sound)
        with video.written_beside(path.with_suffix(".json")) as beside:
            beside.write_text(json.dumps(self.settings, indent=2) + "\n")


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
    ):
        """
        Args:
          params: all parameters of the model.
          config: the config that they were trained with, in plain values.
          source: where they come from, for the settings of a result.
          masks: the segmenter, as `segmenters.load` takes it.
          aligner: as `aligners.load` takes it, or "self": the model itself shows the giver in the
            portrait's pose, and the attribute is looked for there.
          devices: of this process; each takes a job at a time. Default: the first.

        Raises InputError for a segmenter or an aligner that cannot be used.
        """
        self.generator = Generator(params, config, devices)
        self.source, sampling = source, {"solver": "ddim"} | config["sample"]
        self._defaults = {name: sampling[name] for name in ("steps", "guidance", "solver")}
        self._landmarker = faces.FaceLandmarker()
        self._segmenter, self._aligner = segmenters.load(masks), aligner
        self._align = self._reposed if aligner == "self" else aligners.load(aligner)

    @classmethod
    def load(
        cls,
        source: str | Path,
        masks: str = "heuristic",
        aligner: str = "geometric",
        devices: list | None = None,
    ) -> "Animator":
        """The averaged weights of a training run, or a folder of weights.

        Args:
          source: workdir, folder, hub id USER/NAME@REVISION or shipped name.
          masks, aligner, devices: as in the constructor.

        Raises:
          InputError: there is no checkpoint, it lacks a network, or no such segmenter or aligner.
        """
        params, meta = checkpoint.load(source)
        if absent := meta.get("absent"):
            raise InputError(
                f"{source}: has no {', '.join(absent)}: convert it again together with a source "
                "of them, --from diffusers --source FOLDER"
            )
        return cls(params, meta["config"], str(source), masks, aligner, devices)

    @property
    def size(self) -> int:
        """Side of the videos in pixels."""
        return self.generator.model.config.resolution

    def __call__(
        self,
        portrait: str | Path,
        attributes: list[tuple],
        driving: str | Path,
        *,
        steps: int | None = None,
        guidance: float | None = None,
        solver: str | None = None,
        quiet: bool = False,
        **more,
    ) -> Video:
        """Animates the portrait with the driver's motion, wearing the attributes.

        Args:
          portrait, attributes, driving, **more: see `Job`.
          steps, guidance, solver, quiet: see `animate`.

        Raises:
          InputError: a photo, mask or clip that cannot be used, and why.
        """
        job = Job(portrait, attributes, driving, **more)
        (result,) = self.animate([job], steps, guidance, solver, quiet)
        return result

    def animate(
        self,
        jobs: Iterable[Job],
        steps: int | None = None,
        guidance: float | None = None,
        solver: str | None = None,
        quiet: bool = False,
    ) -> Iterator[Video]:
        """The videos of the jobs, in their order; as many at a time as there are devices.

        Jobs in a row that have as many frames and attributes are sampled together. What comes out
        does not depend on that, but for rounding.

        Args:
          steps: denoising steps. guidance: classifier-free guidance scale, 1 = none.
          solver: "ddim", or "dpm++" for fewer steps. By default all three are those of the run's
            own samples, `config.sample`.
          quiet: speak of nothing but compilation.

        Raises:
          InputError: a photo, mask or clip that cannot be used, and why.
        """
        given = {"steps": steps, "guidance": guidance, "solver": solver}
        chosen = self._defaults | {name: x for name, x in given.items() if x is not None}
        group = []
        for job in jobs:
            watch = Stopwatch(quiet)
            with watch.phase("reading photos and clip", silent=quiet):
                scene = self._read(job)
            for note in () if quiet else scene.notes:
                print(f"note: {note}")
            if group and _shapes(scene.batch) != _shapes(group[0][1].batch):
                yield from self._finish(group, chosen, quiet)
                group = []
            group.append((job, scene, watch.seconds))
            if len(group) == self.generator.mesh.size:
                yield from self._finish(group, chosen, quiet)
                group = []
        if group:
            yield from self._finish(group, chosen, quiet)

    def _read(self, job: Job) -> inputs.Scene:
        if bool(job.attributes) == (self.generator.model.config.references == "single"):
            raise InputError(
                f"{self.source} has a single reference, the portrait: leave out the attributes"
                if job.attributes
                else "no attribute is given: name at least one photo and what to take from it"
            )
        return inputs.read_scene(
            job.portrait, job.attributes, job.driving, self.size, self._landmarker,
            inputs.Masking(self._segmenter, self._align, job.grow_mask),
            portrait_mask=job.portrait_mask, framed=job.framed, following=job.following,
        )  # fmt: skip

    def _finish(self, group: list[tuple], chosen: dict, quiet: bool) -> Iterator[Video]:
        """The videos of (job, scene, seconds of reading), scenes of equal shapes."""
        jobs, scenes, _ = zip(*group)
        watch = Stopwatch(quiet)
        videos = self._sample([x.batch for x in scenes], [job.seed for job in jobs], chosen, watch)
        for (job, scene, reading), frames in zip(group, videos):
            drivers = itertools.islice(itertools.cycle(scene.motion.frames(self.size)), len(frames))
            photos = [scene.portrait.image, *scene.batch["attribute"]]
            rows = [np.hstack([*photos, driver, frame]) for driver, frame in zip(drivers, frames)]
            settings = {
                **job.to_json(),
                **chosen,
                "masks": str(self._segmenter),
                "aligner": self._aligner,
                "checkpoint": self.source,
                "weights_sha256": self._weights_hash,
                "size": self.size,
                "frames": len(frames),
                "fps": str(scene.motion.fps),
                "notes": scene.notes,
                "seconds": reading | watch.seconds,
                "versions": _versions(),
            }
            yield Video(
                frames, np.stack(rows), scene.motion.fps, scene.motion, scene.preview(), settings
            )

    def _sample(
        self, batches: list[dict], seeds: list[int], chosen: dict, watch: Stopwatch
    ) -> np.ndarray:
        """Videos uint8 [N, F, S, S, 3] by the chosen steps, guidance and solver."""
        schedule = sampler.Schedule.trailing(
            self.generator.diffusion, chosen["steps"], chosen["solver"]
        )
        return self.generator(batches, seeds, schedule, chosen["guidance"], watch)

    def _reposed(
        self, giver: Subject, kind: str, mask: np.ndarray, portrait: Subject
    ) -> np.ndarray:
        """The aligner "self": the giver, wearing its own attribute, with the portrait's keypoints.

        bool [S, S]. Raises InputError where the generated picture does not show the attribute.
        """
        hidden = grow(mask, 0.03 * np.ptp(giver.keypoints[:, 1]))
        batch = {
            "keypoints": portrait.keypoints[None, :, :2],
            "portrait": transforms.hide(giver.image, hidden),
            "portrait_mask": hidden,
            "attribute": transforms.hide(giver.image, ~mask)[None],
            "attribute_mask": mask[None],
            "face": faces.align_face(giver.image, giver.keypoints),
        }
        ((image,),) = self._sample([batch], [0], self._defaults, Stopwatch(quiet=True))
        posed = dataclasses.replace(portrait, image=image, mask=None)
        found = posed.find(frozenset([kind]), self._segmenter)[kind]
        if found.mean() < MIN_ATTRIBUTE_AREA:
            raise InputError(
                f"{giver.path}: in the portrait's pose the model shows no {kind} "
                f"({found.mean():.2%} of the picture): use --aligner geometric"
            )
        return found

    @functools.cached_property
    def _weights_hash(self) -> str:
        """SHA-256 of all parameters, in the order of their names."""
        digest = hashlib.sha256()
        for name, leaf in sorted(flatten_dict(self.generator.params, sep="/").items()):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(leaf).tobytes())
        return digest.hexdigest()


def _shapes(batch: dict) -> dict:
    return {name: np.shape(value) for name, value in batch.items()}


def _versions() -> dict[str, str]:
    packages = ("durian_jax", "jax", "flax", "numpy", "av", "ai-edge-litert")
    found = {name: importlib.metadata.version(name) for name in packages}
    return {"python": platform.python_version(), **found}
