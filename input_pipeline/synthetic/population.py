"""The people and clips of a synthetic data set: settings, identities, one rendered chunk."""

import dataclasses
import threading

import numpy as np

from input_pipeline.dataset import records
from input_pipeline.errors import InputError
from input_pipeline.faces.landmarker import FaceLandmarker
from input_pipeline.synthetic.motion import Motion, sample_clip
from input_pipeline.synthetic.people import Person, sample_person
from input_pipeline.synthetic.renderer import keypoints as truth
from input_pipeline.synthetic.renderer import render

VERSION = "1"  # raise when the same seed gives other pictures
_PERSON, _CLIP, _CONTROL = 0, 1, 3  # streams of random numbers


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to render. Equal settings give equal bytes on the same machine and versions.

    Attributes:
      people: number of people: of ten, 8 are for training, 1 for validation, 1 for tests.
      clips: clips of each person.
      frames: frames of a clip, which is one record.
      size: side of the frames in pixels, a multiple of 16.
      fps: frames per second: at 2.5 twelve frames hold the whole range of a person's poses, to
        learn single frames from; 12.5 or more is film, for temporal layers.
      seed: another seed, other people.
      oversample: render so many times larger and average: calmer textures.
      control: render somebody else with the motion of each clip as well: the control track.
      tracked: keypoints as the landmarker finds them in the frames, as it will in the pictures that
        are animated, in place of those that the renderer knows.
    """

    people: int = 2000
    clips: int = 1
    frames: int = 12
    size: int = 64
    fps: float = 2.5
    seed: int = 0
    oversample: int = 1
    control: bool = dataclasses.field(default=False, repr=False)
    tracked: bool = dataclasses.field(default=False, repr=False)

    def __post_init__(self):
        least = dict(people=1, clips=1, frames=3, size=64, oversample=1, seed=0)
        for name, limit in least.items():
            if getattr(self, name) < limit:
                raise InputError(f"{getattr(self, name)}: must be at least {limit}", option=name)
        if self.size % render.TILE:
            raise InputError(f"{self.size}: must be a multiple of {render.TILE}", option="size")
        if not 0.01 <= self.fps <= 1000:
            raise InputError(f"{self.fps:g}: must be 0.01 to 1000", option="fps")

    def facts(self) -> dict:
        """Plain values that name what is rendered."""
        values = dataclasses.asdict(self)
        for name in ("control", "tracked"):  # a set without is what it was before there was any
            if not values[name]:
                del values[name]
        return values

    @property
    def seconds(self) -> np.ndarray:
        """[T] times of the frames of a clip."""
        return np.arange(self.frames) / self.fps

    def tools(self) -> dict[str, str]:
        """What the records say made them."""
        tools = {"renderer": f"durian_jax synthetic {VERSION}", "seed": str(self.seed)}
        return tools | ({"landmarks": _landmarker().version} if self.tracked else {})


def split_of(person: int) -> str:
    """Eight people of ten are for training, one is for validation, one for tests."""
    return {8: "val", 9: "test"}.get(person % 10, "train")


def clip_name(person: int, clip: int) -> str:
    """What a record calls its clip; a file on disk has a suffix besides."""
    return f"person_{person:06d}/clip_{clip:03d}"


def identity(settings: Settings, person: int) -> str:
    """What labels and records call a person."""
    return f"synthetic_{settings.seed}_{person:06d}"


def draw_person(settings: Settings, index: int) -> Person:
    """Person number `index`."""
    return sample_person(np.random.default_rng([settings.seed, _PERSON, index]))


def draw_performer(settings: Settings, index: int, clip: int) -> Person:
    """Who else performs the motion of a clip: nobody of the data set, and each time another."""
    return sample_person(np.random.default_rng([settings.seed, _CONTROL, index, clip]))


def draw_motion(settings: Settings, index: int, clip: int) -> Motion:
    """The motion in clip number `clip` of person number `index`, arrays [T]."""
    rng = np.random.default_rng([settings.seed, _CLIP, index, clip])
    return sample_clip(rng, settings.seconds)


def chunk(settings: Settings, index: int, clip: int) -> records.Chunk:
    """Renders one clip with everything that is known about it."""
    person, motion = draw_person(settings, index), draw_motion(settings, index, clip)
    pictures = render.render_clip(person, motion, settings.size, settings.oversample)
    points = truth.keypoints_of_clip(person, motion, settings.size)
    frames = render.to_uint8(pictures.colour)
    keypoints, found = _keypoints(settings, frames, points)
    middle = (settings.size - 1) / 2
    return records.Chunk(
        frames=[records.encode_frame(image) for image in frames],
        fps=settings.fps,
        keypoints=keypoints,
        found=found,
        masks={
            kind: [records.encode_mask(mask) for mask in track]
            for kind, track in render.masks(pictures, person).items()
        },
        clip=clip_name(index, clip),
        identity=identity(settings, index),
        start=0,
        crop=np.float32([middle, middle, settings.size]),
        tools=settings.tools(),
        truth=truth_rows(points, motion),
        control=_control_track(settings, index, clip) if settings.control else None,
    )


def _keypoints(
    settings: Settings, frames: np.ndarray, points: truth.Keypoints
) -> tuple[np.ndarray, np.ndarray]:
    """float32 [T, 478, 3] in pixels of the frames, and bool [T], False where the landmarker found
    no face: there they are the renderer's."""
    if not settings.tracked:
        return points.points, np.ones(len(frames), bool)
    track = _landmarker().track(frames)
    return np.where(track.found[:, None, None], track.keypoints, points.points), track.found


def _control_track(settings: Settings, index: int, clip: int) -> records.ControlTrack:
    """The motion of a clip by its other performer: camera, pose and expression are the same."""
    person, motion = draw_performer(settings, index, clip), draw_motion(settings, index, clip)
    pictures = render.render_clip(person, motion, settings.size, settings.oversample)
    frames = render.to_uint8(pictures.colour)
    points = truth.keypoints_of_clip(person, motion, settings.size)
    return records.ControlTrack(
        [records.encode_frame(image) for image in frames], _keypoints(settings, frames, points)[0]
    )


_of_thread = threading.local()


def _landmarker() -> FaceLandmarker:
    """One for each thread that renders: the interpreter behind it serves one call at a time."""
    if not hasattr(_of_thread, "landmarker"):
        _of_thread.landmarker = FaceLandmarker()
    return _of_thread.landmarker


def truth_rows(points: truth.Keypoints, motion: Motion) -> dict[str, np.ndarray]:
    """The arrays of `records.TRUTH`."""
    return {
        "visible": points.visible,
        "pose": np.float32(motion.pose),
        "expression": np.float32(motion.expression),
    }
