"""The record: one chunk of consecutive frames of one clip, as a serialised tf.train.Example.

Frames stay JPEG and masks 1-bit PNG until the moment a transform asks for one of them. No
TensorFlow: tfds describes the features and serialises them without it.
"""

import dataclasses
import functools
import json
import threading
from collections.abc import Sequence

import cv2
import numpy as np
import simplejpeg
from google.protobuf.message import DecodeError

from input_pipeline.errors import InputError
from input_pipeline.kinds import KINDS, NUM_KEYPOINTS

SCHEMA_VERSION = 3
JPEG_QUALITY = 95
# What reading, decoding or transforming a broken record raises (InputError is a ValueError).
DAMAGED = (ValueError, KeyError, IndexError, RuntimeError, DecodeError)
_IMPORTING = threading.Lock()
# Shape and type of a frame's row: keypoints in view; degrees; the rest as in `synthetic.motion`.
TRUTH = {
    "visible": ((NUM_KEYPOINTS,), np.bool_),
    "pose": ((3,), np.float32),
    "expression": ((7,), np.float32),
}


@dataclasses.dataclass
class ControlTrack:
    """Somebody else with the motion of a chunk: a driver for it who gives nothing of it away.

    frames: T JPEG pictures [S, S, 3] RGB, framed as the chunk's. keypoints: as the chunk's.
    """

    frames: Sequence[bytes]
    keypoints: np.ndarray


@dataclasses.dataclass
class Chunk:
    """T consecutive frames of one clip, square, S pixels a side.

    Attributes:
      frames: T JPEG pictures [S, S, 3] RGB.
      fps: frames per second of the clip after repeated frames were dropped.
      keypoints: float32 [T, 478, 3], pixels of the frame (x right, y down, z towards the back, same
        scale as x), MediaPipe face mesh order with irises.
      found: bool [T], False where the keypoints were interpolated.
      masks: for each attribute kind that the clip shows, T 1-bit PNG pictures [S, S]; a kind that
        is absent from the dictionary is absent from the clip.
      clip: source clip, relative to the prepared folder.
      identity: who is shown; clips of one person share it.
      start: index of the first frame among the kept frames of the clip.
      crop: float32 [3], centre x, centre y and side of the crop in pixels of the source frame.
      tools: name and version of each tool that made the annotations.
      truth: what only a rendered clip knows, by name: see TRUTH. Empty for filmed clips.
      expanded: for each kind, for some frames (by index in the chunk), 1-bit PNG pictures [S, S] of
        where other people's attributes would lie; see `expansion`.
      control: somebody else with this motion, where the data set has that.
    """

    frames: Sequence[bytes]
    fps: float
    keypoints: np.ndarray
    found: np.ndarray
    masks: dict[str, list[bytes]]
    clip: str
    identity: str
    start: int
    crop: np.ndarray
    tools: dict[str, str]
    truth: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    expanded: dict[str, dict[int, list[bytes]]] = dataclasses.field(default_factory=dict)
    control: ControlTrack | None = None


def encode_frame(image: np.ndarray, quality: int = JPEG_QUALITY) -> bytes:
    """JPEG of a uint8 [H, W, 3] RGB picture, 4:4:4 so that thin coloured edges survive."""
    return simplejpeg.encode_jpeg(
        np.ascontiguousarray(image), quality=quality, colorspace="RGB", colorsubsampling="444"
    )


def decode_frame(data: bytes) -> np.ndarray:
    """uint8 [H, W, 3] RGB. Raises ValueError on broken data."""
    return simplejpeg.decode_jpeg(data, colorspace="RGB")


def encode_mask(mask: np.ndarray) -> bytes:
    """1-bit PNG of a bool [H, W] mask."""
    options = [cv2.IMWRITE_PNG_BILEVEL, 1]
    return cv2.imencode(".png", mask.astype(np.uint8) * 255, options)[1].tobytes()


def decode_mask(data: bytes) -> np.ndarray:
    """bool [H, W]. Raises ValueError on broken data."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise ValueError("mask is not a readable PNG")
    return image > 127


def features(size: int, control: bool = False):
    """The tfds feature specification of a chunk whose frames are `size` pixels a side.

    control: whether it has a control track, which all chunks of a data set have or none has.
    """
    import tensorflow_datasets as tfds

    frame = tfds.features.Image(shape=(size, size, 3), encoding_format="jpeg")
    mask = tfds.features.Image(shape=(size, size, 1), encoding_format="png")
    tensor = tfds.features.Tensor
    points = tensor(shape=(None, NUM_KEYPOINTS, 3), dtype=np.float32)
    truth = {name: tensor(shape=(None, *row), dtype=kind) for name, (row, kind) in TRUTH.items()}
    track = {"control": {"frames": tfds.features.Sequence(frame), "keypoints": points}}
    return tfds.features.FeaturesDict(
        {
            "frames": tfds.features.Sequence(frame),
            "keypoints": points,
            "found": tfds.features.Tensor(shape=(None,), dtype=np.bool_),
            "fps": np.float32,
            "masks": {kind: tfds.features.Sequence(mask) for kind in KINDS},
            "expanded": {
                kind: {
                    "frames": tensor(shape=(None,), dtype=np.int32),
                    "masks": tfds.features.Sequence(mask),
                }
                for kind in KINDS
            },
            "clip": tfds.features.Text(),
            "identity": tfds.features.Text(),
            "start": np.int32,
            "crop": tfds.features.Tensor(shape=(3,), dtype=np.float32),
            "tools": tfds.features.Text(),
            "truth": truth,
            "schema_version": np.int32,
        }
        | (track if control else {})
    )


@functools.lru_cache
def _specification(size: int, control: bool):
    """`features`, without the pitfall that threads wait for each other in tfds' lazy imports."""
    with _IMPORTING:
        return features(size, control)


def encode(chunk: Chunk, size: int) -> bytes:
    """One record: the chunk as a serialised tf.train.Example. Equal chunks give equal bytes."""
    specification = _specification(size, chunk.control is not None)
    data = specification.serialize_example(specification.encode_example(to_example(chunk)))
    # Left to itself, protobuf writes the features in an order that changes from run to run.
    return _example_class().FromString(data).SerializeToString(deterministic=True)


def to_example(chunk: Chunk) -> dict:
    """The chunk as `features` has it: every key there, absent things empty but for `control`."""
    example = dict(vars(chunk))
    if (control := example.pop("control")) is not None:
        example["control"] = {"frames": list(control.frames), "keypoints": control.keypoints}
    example["frames"] = list(chunk.frames)
    example["masks"] = {kind: chunk.masks.get(kind, []) for kind in KINDS}
    pairs = {
        kind: [(i, png) for i, pngs in chunk.expanded.get(kind, {}).items() for png in pngs]
        for kind in KINDS
    }
    example["expanded"] = {
        kind: {
            "frames": np.array([i for i, _ in rows], np.int32),
            "masks": [png for _, png in rows],
        }
        for kind, rows in pairs.items()
    }
    example["tools"] = json.dumps(chunk.tools, sort_keys=True)
    example["schema_version"] = SCHEMA_VERSION
    nothing = {name: np.zeros((0, *row), kind) for name, (row, kind) in TRUTH.items()}
    return example | {"truth": nothing | chunk.truth}


def decode(data: bytes) -> Chunk:
    """The chunk in a record; pictures stay encoded. Raises on data that is no record.

    tfds would copy all frames several times; here a frame is copied when it is taken.
    """
    fields = _example_class().FromString(data).features.feature

    def column(name: str):
        if name not in fields:
            raise KeyError(f"record lacks {name}: prepare the data set again")
        kind = fields[name].WhichOneof("kind")
        return getattr(fields[name], kind).value if kind else []

    def rows(name: str, dtype, *shape: int) -> np.ndarray:
        return np.array(column(name), dtype).reshape(-1, *shape)

    (version,) = column("schema_version")
    if version != SCHEMA_VERSION:
        raise InputError(
            f"record has schema version {version}, this code reads {SCHEMA_VERSION}: "
            "prepare the data set again"
        )
    masks = {kind: list(column(f"masks/{kind}")) for kind in KINDS}
    expanded = {}
    for kind in KINDS:
        frames, pngs = column(f"expanded/{kind}/frames"), column(f"expanded/{kind}/masks")
        for i, png in zip(frames, pngs, strict=True):
            expanded.setdefault(kind, {}).setdefault(i, []).append(png)
    truth = {name: rows(f"truth/{name}", kind, *row) for name, (row, kind) in TRUTH.items()}
    control = None
    if "control/frames" in fields:
        points = rows("control/keypoints", np.float32, NUM_KEYPOINTS, 3)
        control = ControlTrack(column("control/frames"), points)
    return Chunk(
        frames=column("frames"),
        fps=column("fps")[0],
        keypoints=rows("keypoints", np.float32, NUM_KEYPOINTS, 3),
        found=rows("found", np.bool_),
        masks={kind: pngs for kind, pngs in masks.items() if pngs},
        clip=column("clip")[0].decode(),
        identity=column("identity")[0].decode(),
        start=column("start")[0],
        crop=rows("crop", np.float32),
        tools=json.loads(column("tools")[0]),
        expanded=expanded,
        truth={name: values for name, values in truth.items() if len(values)},
        control=control,
    )


@functools.lru_cache
def _example_class():
    with _IMPORTING:
        from tensorflow_datasets.proto import tf_example_pb2
    return tf_example_pb2.Example


def validate(chunk: Chunk, size: int) -> None:
    """Decodes every picture; raises InputError that names the clip and what is wrong with it."""
    where = f"{chunk.clip} from frame {chunk.start}"
    count = len(chunk.frames)
    if count == 0:
        raise InputError(f"{where}: the chunk holds no frames: prepare the clip again")
    if not chunk.fps > 0:
        raise InputError(f"{where}: fps is {chunk.fps}, must be positive: prepare the clip again")
    if chunk.keypoints.shape != (count, NUM_KEYPOINTS, 3) or chunk.found.shape != (count,):
        raise InputError(
            f"{where}: keypoints {chunk.keypoints.shape} and found flags {chunk.found.shape} do "
            f"not fit {count} frames: prepare the clip again"
        )
    _check_face(where, chunk.keypoints, size)
    if (control := chunk.control) is not None:
        if len(control.frames) != count or control.keypoints.shape != chunk.keypoints.shape:
            raise InputError(
                f"{where}: {len(control.frames)} control frames with keypoints "
                f"{control.keypoints.shape} for {count} frames: prepare the clip again"
            )
        _check_face(f"{where}, control track", control.keypoints, size)
    tracks = {f"{kind} masks": masks for kind, masks in chunk.masks.items()} | chunk.truth
    for name, rows in tracks.items():
        if len(rows) != count:
            raise InputError(f"{where}: {len(rows)} {name} for {count} frames")
    pictures = [("frame", decode_frame, data, i) for i, data in enumerate(chunk.frames)]
    if control is not None:
        pictures += [
            ("control frame", decode_frame, one, i) for i, one in enumerate(control.frames)
        ]
    for kind, masks in chunk.masks.items():
        pictures += [(f"{kind} mask", decode_mask, data, i) for i, data in enumerate(masks)]
    for kind, tracks in chunk.expanded.items():
        if outside := sorted(set(tracks) - set(range(count))):
            raise InputError(f"{where}: expanded {kind} masks for frame {outside[0]} of {count}")
        pictures += [
            (f"expanded {kind} mask", decode_mask, data, i) for i in tracks for data in tracks[i]
        ]
    for name, read, data, i in pictures:
        try:
            shape = read(data).shape[:2]
        except ValueError as error:
            raise InputError(f"{where}: {name} {i} cannot be decoded ({error})") from error
        if shape != (size, size):
            raise InputError(f"{where}: {name} {i} is {shape}, must be {size} x {size} pixels")


def _check_face(where: str, keypoints: np.ndarray, size: int) -> None:
    if not np.isfinite(keypoints).all():
        raise InputError(f"{where}: keypoints are not finite: prepare the clip again")
    centres = keypoints[..., :2].mean(1)
    if (centres < 0).any() or (centres > size).any():
        raise InputError(f"{where}: the face lies outside the frame: prepare the clip again")
