"""The Animator: portrait, attribute photos and driving clip in, video out."""

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import itertools
import json
import platform
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from tqdm import tqdm

from durian_jax import checkpoint, sampler
from durian_jax.diffusion import Diffusion
from durian_jax.models.durian import Durian, DurianConfig
from input_pipeline import aligners, faces, inputs, segmenters, transforms, video
from input_pipeline.driving import FOLLOWING, Following, Motion
from input_pipeline.errors import InputError
from input_pipeline.expansion import grow
from input_pipeline.records import MIN_ATTRIBUTE_AREA
from input_pipeline.subject import Subject

PROGRESS_PARTS = 10


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
    ):
        """
        Args:
          params: all parameters of the model.
          config: the config that they were trained with, in plain values.
          source: where they come from, for the settings of a result.
          masks: the segmenter, as `segmenters.load` takes it.
          aligner: as `aligners.load` takes it, or "self": the model itself shows the giver in the
            portrait's pose, and the attribute is looked for there.

        Raises InputError for a segmenter or an aligner that cannot be used.
        """
        self.model = Durian(DurianConfig.from_dict(config["model"]))
        self.diffusion = Diffusion(**config["diffusion"])
        self.params = jax.device_put(params)
        self.source, self._sampling = source, config["sample"]
        self._landmarker = faces.FaceLandmarker()
        self._segmenter, self._aligner = segmenters.load(masks), aligner
        self._align = self._reposed if aligner == "self" else aligners.load(aligner)
        self._programs = {}

    @classmethod
    def load(
        cls, source: str | Path, masks: str = "heuristic", aligner: str = "geometric"
    ) -> "Animator":
        """The averaged weights of a training run, or a folder of weights.

        Args:
          source: workdir, folder, hub id USER/NAME@REVISION or shipped name.
          masks: the segmenter. aligner: likewise as in the constructor.

        Raises:
          InputError: there is no checkpoint, it lacks a network, or no such segmenter or aligner.
        """
        params, meta = checkpoint.load(source)
        if absent := meta.get("absent"):
            raise InputError(
                f"{source}: has no {', '.join(absent)}: convert it again together with a source "
                "of them, --from diffusers --source FOLDER"
            )
        return cls(params, meta["config"], str(source), masks, aligner)

    def __call__(
        self,
        portrait: str | Path,
        attributes: list[tuple],
        driving: str | Path,
        *,
        portrait_mask: str | Path | None = None,
        grow_mask: float = 0.03,
        framed: bool = False,
        following: Following = FOLLOWING,
        steps: int | None = None,
        guidance: float | None = None,
        solver: str | None = None,
        seed: int = 0,
        quiet: bool = False,
    ) -> Video:
        """Animates the portrait with the driver's motion, wearing the attributes.

        Args:
          portrait: photo of the person.
          attributes: (photo, kind) or (photo, kind, mask) tuples; kind is hair, glasses, beard or
            hat; a mask is a picture as large as the photo, white where the attribute shows. Without
            one the attribute is looked for. None at all for a model with a single reference.
          driving: clip; the result has its length, frame rate and sound. Or a photo, or a template
            (`driving.write_template`).
          portrait_mask: likewise, white where the portrait shows its own attributes of these kinds.
          grow_mask: the portrait's mask grows by this share of the face's height.
          framed: photos and clip are head-and-shoulders squares already and are not cropped, so
            that the result has the framing of the portrait.
          following: how the portrait follows the driver.
          steps: denoising steps. guidance: classifier-free guidance scale, 1 = none.
          solver: "ddim", or "dpm++" for fewer steps. By default all three are those of the run's
            own samples, `config.sample`.
          quiet: speak of nothing but compilation.

        Raises:
          InputError: a photo, mask or clip that cannot be used, and why.
        """
        steps = self._sampling["steps"] if steps is None else steps
        guidance = self._sampling["guidance"] if guidance is None else guidance
        solver = solver or self._sampling.get("solver", "ddim")
        watch = _Stopwatch(quiet)
        size = self.model.config.resolution
        if bool(attributes) == (self.model.config.references == "single"):
            raise InputError(
                f"{self.source} has a single reference, the portrait: leave out the attributes"
                if attributes
                else "no attribute is given: name at least one photo and what to take from it"
            )
        masking = inputs.Masking(self._segmenter, self._align, grow_mask)
        with watch.phase("reading photos and clip", silent=quiet):
            scene = inputs.read_scene(
                portrait, attributes, driving, size, self._landmarker, masking,
                portrait_mask=portrait_mask, framed=framed, following=following,
            )  # fmt: skip
            grid = [scene.portrait.image, *scene.batch["attribute"]]
            count = len(scene.batch["keypoints"])
            drivers = list(itertools.islice(itertools.cycle(scene.motion.frames(size)), count))
        if not quiet:
            for note in scene.notes:
                print(f"note: {note}")
        schedule = sampler.Schedule.trailing(self.diffusion, steps, solver)
        frames = self._generate(scene.batch, schedule, guidance, seed, watch)
        settings = {
            "portrait": str(portrait),
            "portrait_mask": portrait_mask and str(portrait_mask),
            "attributes": [":".join(map(str, attribute)) for attribute in attributes],
            "driving": str(driving),
            **dataclasses.asdict(following),
            "masks": str(self._segmenter),
            "aligner": self._aligner,
            "grow_mask": grow_mask,
            "checkpoint": self.source,
            "weights_sha256": self._weights_hash,
            "steps": steps,
            "guidance": guidance,
            "solver": solver,
            "seed": seed,
            "size": size,
            "frames": len(frames),
            "fps": str(scene.motion.fps),
            "notes": scene.notes,
            "seconds": watch.seconds,
            "versions": _versions(),
        }
        rows = [np.hstack([*grid, driver, frame]) for driver, frame in zip(drivers, frames)]
        return Video(
            frames, np.stack(rows), scene.motion.fps, scene.motion, scene.preview(), settings
        )

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
        steps, solver = self._sampling["steps"], self._sampling.get("solver", "ddim")
        schedule = sampler.Schedule.trailing(self.diffusion, steps, solver)
        watch = _Stopwatch(quiet=True)
        (image,) = self._generate(batch, schedule, self._sampling["guidance"], 0, watch)
        posed = dataclasses.replace(portrait, image=image, mask=None)
        found = posed.find(frozenset([kind]), self._segmenter)[kind]
        if found.mean() < MIN_ATTRIBUTE_AREA:
            raise InputError(
                f"{giver.path}: in the portrait's pose the model shows no {kind} "
                f"({found.mean():.2%} of the picture): use --aligner geometric"
            )
        return found

    def _generate(
        self,
        batch: dict,
        schedule: sampler.Schedule,
        guidance: float,
        seed: int,
        watch: "_Stopwatch",
    ) -> np.ndarray:
        """uint8 [F, S, S, 3] of a batch contract without its clip axis."""
        window, overlap = self._sampling["window"], self._sampling["overlap"]
        options = sampler.SamplerOptions(window, overlap, guided=guidance != 1)
        batch = {name: jnp.asarray(value)[None] for name, value in batch.items()}
        scale = jnp.float32(guidance)

        encoded = self._run(sampler.encode, watch, batch)
        clips, count = encoded[1].shape[:2]
        noise = sampler.initial_noise(self.model, jax.random.key(seed), clips, count)
        walk, steps = sampler.Trajectory.start(noise), len(schedule.timesteps)
        with tqdm(total=steps, desc="denoising", unit="step", disable=watch.quiet) as bar:
            for part in schedule.slices(PROGRESS_PARTS):
                walk = self._run(
                    sampler.denoise, watch, walk, *encoded, scale, part,
                    diffusion=self.diffusion, options=options,
                )  # fmt: skip
                bar.update(len(part.timesteps))
        return np.asarray(sampler.to_uint8(self._run(sampler.decode, watch, walk.latents)[0]))

    def _run(self, function: Callable, watch: "_Stopwatch", *arguments, **fixed):
        """Calls a part of the sampler; says so and times it when it has to be compiled first."""
        name = function.__name__
        shapes = jax.tree.map(lambda x: (x.shape, str(x.dtype)), arguments)
        key = (name, str(shapes), str(fixed))
        if key not in self._programs:
            with watch.phase(f"compiling {name}"):
                program = jax.jit(functools.partial(function, self.model, **fixed))
                self._programs[key] = program.lower(self.params, *arguments).compile()
        with watch.phase(name, silent=True):
            return jax.block_until_ready(self._programs[key](self.params, *arguments))

    @functools.cached_property
    def _weights_hash(self) -> str:
        """SHA-256 of all parameters, in the order of their names."""
        digest = hashlib.sha256()
        for name, leaf in sorted(flatten_dict(self.params, sep="/").items()):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(leaf).tobytes())
        return digest.hexdigest()


class _Stopwatch:
    """Seconds by phase; each phase says on one line what is going on."""

    def __init__(self, quiet: bool = False):
        self.quiet = quiet
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def phase(self, name: str, silent: bool = False):
        if not silent:
            tqdm.write(f"{name} ...")
        start = time.perf_counter()
        yield
        spent = self.seconds.get(name, 0.0) + time.perf_counter() - start
        self.seconds[name] = round(spent, 2)


def _versions() -> dict[str, str]:
    packages = ("durian_jax", "jax", "flax", "numpy", "av", "ai-edge-litert")
    found = {name: importlib.metadata.version(name) for name in packages}
    return {"python": platform.python_version(), **found}
