"""One clip -> chunks: the face followed, repeats and cuts found, then crops and masks written."""

import dataclasses
import functools
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from input_pipeline.dataset import records
from input_pipeline.errors import InputError
from input_pipeline.faces import descriptor, geometry, orientation
from input_pipeline.faces.landmarker import FaceLandmarker
from input_pipeline.kinds import MAX_ATTRIBUTE_AREA, MAX_BAD_MASKS, MIN_ATTRIBUTE_AREA
from input_pipeline.masks import segmenters
from input_pipeline.media import video
from input_pipeline.media.changes import Changes
from input_pipeline.prepare import control_clips, duplicates
from input_pipeline.prepare.control_clips import ControlClip, ControlFace
from input_pipeline.prepare.labels import Label

MIN_FRAMES = 16  # consecutive frames with a face, below which a clip is of no use
MIN_FACE = 48  # face length in source pixels
MIN_FACE_SHARE = 0.15  # face length / side of the data set's frames


@dataclasses.dataclass(frozen=True)
class Settings:
    """What decides how a clip becomes chunks.

    size: side of the frames in pixels. chunk_frames: most frames in a chunk. masks: spec of the
    segmenter. face_descriptor: ONNX file, "sface" or "". expand: specs of `expanders`. landmarks:
    a Face Landmarker for the eyelids, or "".
    """

    size: int
    chunk_frames: int
    masks: str
    face_descriptor: str = ""
    expand: tuple[str, ...] = ()
    landmarks: str = ""

    @functools.cached_property
    def tools(self) -> dict[str, str]:
        """Name and version of what makes the annotations."""
        tools = {
            "landmarks": _landmarker(self.landmarks).version,
            "masks": str(segmenters.load(self.masks)),
        }
        if self.face_descriptor:
            tools["face descriptor"] = descriptor.load(self.face_descriptor).version
        if self.expand:
            tools["expanded masks"] = ", ".join(self.expand)
        return tools


@dataclasses.dataclass(frozen=True)
class FaceTrack:
    """Pass 1 over a clip.

    fresh: bool, one per frame that is read, False for repeats. The rest counts the fresh frames:
    keypoints [T, 478, 3] in source pixels, found [T], runs of usable frames, frames per second.
    picture: float32 [64, 64], the mean of the frames in grey, what a fingerprint is made of. notes:
    what was done to the pictures that is no matter of course.
    """

    fresh: np.ndarray
    keypoints: np.ndarray
    found: np.ndarray
    runs: list[range]
    fps: float
    crop: geometry.Crop
    face_count: int
    picture: np.ndarray
    notes: tuple[str, ...]


def follow(path: Path, size: int, landmarks: str = "") -> FaceTrack:
    """Pass 1: follows the face through all frames, none of which is kept in memory.

    size, landmarks: see `Settings`.

    Raises:
      InputError: the clip cannot be used for frames of `size` pixels a side; says why.
    """
    info = video.probe(path)
    if turns := orientation.turns(video.read_frames(path), _landmarker(landmarks)):
        raise InputError(f"{path}: the face {orientation.describe(turns)}: turn the clip upright")
    fresh, picture = [], np.zeros((duplicates.SIDE, duplicates.SIDE), np.float32)
    track = _landmarker(landmarks).track(_fresh_frames(path, fresh, picture))
    keypoints, usable = geometry.fill_gaps(track)
    runs = [run for run in _runs(usable) if len(run) >= MIN_FRAMES]
    if not track.found.any():
        raise InputError(f"{path}: no face in {len(fresh)} frames; use clips that show a face")
    if not runs:
        longest = max(map(len, _runs(usable)))
        raise InputError(
            f"{path}: at most {longest} consecutive frames with a face, {MIN_FRAMES} are needed; "
            "use a longer clip"
        )
    used = np.concatenate([keypoints[run.start : run.stop] for run in runs])
    face = np.median(np.ptp(used[..., :2], axis=1).max(-1))
    smallest = max(MIN_FACE, MIN_FACE_SHARE * size)
    if face < smallest:
        raise InputError(
            f"{path}: the face is {face:.0f} pixels long, {smallest:.0f} are needed; use a closer "
            "or sharper clip, or a smaller size"
        )
    return FaceTrack(
        fresh=np.array(fresh),
        keypoints=keypoints,
        found=track.found,
        runs=runs,
        fps=float(info.fps) * sum(fresh) / len(fresh),
        crop=geometry.Crop.around(used, info.height, info.width),
        face_count=track.face_count,
        picture=picture / sum(fresh),
        notes=info.notes,
    )


def _fresh_frames(path: Path, fresh: list[bool], picture: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the frames that differ from the one before; fills `fresh`, a flag per frame read, and
    adds them to `picture`, in grey."""
    changes = Changes(path)
    for image in video.read_frames(path):
        fresh.append(changes(image))
        if fresh[-1]:
            picture += duplicates.small(changes.small)
            yield image


def _runs(usable: np.ndarray) -> list[range]:
    """Runs of True as index ranges."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], usable, [False]]).astype(np.int8)))
    return [range(start, stop) for start, stop in edges.reshape(-1, 2).tolist()]


def _split(run: range, longest: int) -> list[range]:
    """The fewest pieces of at most `longest` frames, as even as can be."""
    count = -(-len(run) // longest)
    bounds = [run.start + len(run) * i // count for i in range(count + 1)]
    return [range(a, b) for a, b in itertools.pairwise(bounds)]


def follow_control(clip: ControlClip, motion: FaceTrack, landmarks: str = "") -> ControlFace:
    """Pass 1 over the control clip of a clip; see `control_clips.follow`."""
    return control_clips.follow(clip, motion.fresh, motion.runs, _landmarker(landmarks))


def chunks(
    root: Path,
    clip: str,
    label: Label,
    motion: FaceTrack,
    settings: Settings,
    control: ControlFace | None = None,
) -> Iterator[records.Chunk]:
    """Pass 2: reads the clip again and yields its chunks, in order.

    root: folder of the clips. clip: path of the clip in it. control: somebody else with its motion.

    Raises InputError for masks that are empty or cover the picture in a tenth of a chunk's frames.
    """
    segmenter, size = segmenters.load(settings.masks), settings.size
    keypoints = motion.crop.points(motion.keypoints, size)
    places = np.flatnonzero(motion.fresh)
    others = itertools.repeat(None) if control is None else control.clip.frames()
    pairs = zip(video.read_frames(root / clip), others)
    numbered = enumerate(itertools.compress(pairs, motion.fresh))
    for run in motion.runs:
        for piece in _split(run, settings.chunk_frames):
            images, performed = [], []
            for index, (frame, other) in numbered:
                if index < piece.start:
                    continue
                images.append(motion.crop.apply(frame, size))
                if other is not None:
                    performed.append(records.encode_frame(control.crop.apply(other, size)))
                if index == piece.stop - 1:
                    break
            shown = slice(piece.start, piece.stop)
            pictures = segmenters.Pictures(
                images=np.array(images),
                keypoints=keypoints[shown],
                source=Path(clip),
                frames=places[shown],
                source_shape=frame.shape[:2],
                crop=motion.crop,
            )
            found = segmenter(pictures, label.present)
            for kind in sorted(found):
                _check_areas(f"{root / clip}: frames from {piece.start}", kind, found[kind])
            track = None
            if control is not None:
                points = control.crop.points(control.keypoints[shown], size)
                track = records.ControlTrack(performed, points)
            yield records.Chunk(
                frames=[records.encode_frame(image) for image in images],
                fps=motion.fps,
                keypoints=keypoints[shown],
                found=motion.found[shown],
                masks={kind: list(map(records.encode_mask, found[kind])) for kind in sorted(found)},
                clip=clip,
                identity=label.identity,
                start=piece.start,
                crop=np.array(dataclasses.astuple(motion.crop), np.float32),
                tools=settings.tools,
                control=track,
            )


def _check_areas(where: str, kind: str, masks: np.ndarray) -> None:
    areas = masks.mean((1, 2))
    low, high = MIN_ATTRIBUTE_AREA, MAX_ATTRIBUTE_AREA
    bad = int(((areas < low) | (areas > high)).sum())
    if bad > MAX_BAD_MASKS * len(areas):
        raise InputError(
            f"{where}: the {kind} masks of {bad} of {len(areas)} cover less than {low:.1%} or more "
            f"than {high:.0%} of the picture (median {np.median(areas):.2%}); if the clip does not "
            f"show {kind}, say so in the labels, else use other masks"
        )


@functools.cache
def _landmarker(task: str) -> FaceLandmarker:
    return FaceLandmarker(task)
