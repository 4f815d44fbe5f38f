"""Finds one face in pictures and follows it: MediaPipe's networks on LiteRT, 478 keypoints."""

import hashlib
import importlib.metadata
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from input_pipeline.errors import InputError
from input_pipeline.kinds import NUM_KEYPOINTS

# Each eye: outer corner, inner corner, first of its 5 iris points, and its eyelid points in the
# order of the iris network.
EYES = (
    (33, 133, 468)
    + ((33, 7, 163, 144, 145, 153, 154, 155, 133, 246, 161, 160, 159, 158, 157, 173),),
    (263, 362, 473)
    + ((263, 249, 390, 373, 374, 380, 381, 382, 362, 466, 388, 387, 386, 385, 384, 398),),
)

_ASSETS = Path(__file__).parents[1] / "assets"
_FOUND = 0.5  # probability from which a face counts as found
_OVERLAP = 0.3  # intersection over union from which two boxes are one face
_REGION = 1.5  # side of the landmark region / side of the face
_CLOSE = 1.7  # side of the window for the second look / side of the landmark region
_EYE_REGION = 2.3  # side of the iris network's region / width of the eye
_RECOUNT = 25  # frames between two counts of the faces in the picture
_TASK_NETWORK, _LID_SIDE = "face_landmarks_detector.tflite", 256  # of a Face Landmarker


@dataclass(frozen=True)
class Region:
    """A square of a picture: centre and side in pixels, angle in radians, clockwise."""

    cx: float
    cy: float
    side: float
    angle: float = 0.0

    def matrix(self, size: int, mirrored: bool = False) -> np.ndarray:
        """[2, 3]: pixels of a size x size sample of the region -> pixels of the picture."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        across = [-cos, -sin] if mirrored else [cos, sin]
        linear = np.array([across, [-sin, cos]]).T * self.side / size
        centre = np.array([self.cx, self.cy])
        return np.column_stack([linear, centre - linear.sum(1) * (size - 1) / 2])


@dataclass(frozen=True)
class Face:
    """A detection: probability, box (x0, y0, x1, y1) in pixels, region for `landmarks`."""

    score: float
    box: tuple[float, float, float, float]
    region: Region


@dataclass(frozen=True)
class Track:
    """One face through T frames.

    keypoints: float32 [T, 478, 3], NaN where the face was not found. found: bool [T].
    face_count: the most faces seen in one of the frames looked at for this (about one a second).
    """

    keypoints: np.ndarray
    found: np.ndarray
    face_count: int


class FaceLandmarker:
    """Finds faces and their 478 keypoints with MediaPipe's networks, on one thread.

    BlazeFace short range (arXiv:1907.05047), face mesh (arXiv:1907.06724), iris (arXiv:2006.11341);
    the eyelids are the iris network's, which follows blinks closer than the mesh, or those of a
    Face Landmarker, which follows them closer still. Pictures are uint8 [H, W, 3] RGB. One instance
    per process.

    Attributes:
      version: what the keypoints are made by.
    """

    def __init__(self, task: str | Path | None = None):
        """task: a Face Landmarker of MediaPipe, `face_landmarker.task`, for the eyelids.

        Raises InputError: no such file, or another kind of file.
        """
        self._detector = _Network(_asset("face_detection_short_range.tflite"), 128)
        self._mesh = _Network(_asset("face_landmark.tflite"), 192)
        self._iris = _Network(_asset("iris_landmark.tflite"), 64)
        runtime = importlib.metadata.version("ai-edge-litert")
        self.version = f"mediapipe face mesh and iris, ai-edge-litert {runtime}"
        self._lids = None
        if task:
            self._lids, digest = _read_task(Path(task))
            self.version += f", eyelids of face landmarker {digest[:12]}"
        cells = []
        for grid, repeats in ((16, 2), (8, 6)):
            centre = (np.arange(grid) + 0.5) / grid * 128
            x, y = np.meshgrid(centre, centre)
            cells.append(np.repeat(np.stack([x, y], -1).reshape(-1, 2), repeats, 0))
        self._anchors = np.concatenate(cells)

    def detect(self, image: np.ndarray) -> list[Face]:
        """All faces, largest first.

        The detector sees faces down to about 1/8 of its window; where the whole picture shows
        none, square tiles of it are searched as well (down to about 1/16 of the short side). Each
        find is looked at again from close by, which mends its box or drops it.
        """
        height, width = image.shape[:2]
        short, long = sorted((height, width))
        for side, step in ((long, long), (short, short / 2), (short / 2, short / 4)):
            windows = [
                Region(cx, cy, side)
                for cy in _centres(height, side, step)
                for cx in _centres(width, side, step)
            ]
            faces = self._detect_in(image, windows)
            close = [Region(f.region.cx, f.region.cy, _CLOSE * f.region.side) for f in faces]
            faces = self._detect_in(image, close)
            if faces:
                break
        return sorted(faces, key=lambda face: face.region.side, reverse=True)

    def landmarks(self, image: np.ndarray, region: Region) -> np.ndarray | None:
        """float32 [478, 3] of the face in `region`, or None where there is none.

        A region that does not fit its face well is corrected and read again, so that the result
        hardly depends on where the region came from.
        """
        for _ in range(3):
            points = self._mesh_points(image, region)
            if points is None:
                return None
            fitted = _region_around(points)
            moved = np.hypot(fitted.cx - region.cx, fitted.cy - region.cy) / region.side
            if moved < 0.05 and abs(np.log(fitted.side / region.side)) < 0.1:
                break
            region = fitted
        closer = self._lids and _in_picture(self._lids(image, region)[0], region, _LID_SIDE)
        for outer, inner, iris, lids in EYES:
            lid_points, iris_points = self._eye_points(image, points[outer], points[inner])
            points[list(lids), :2] = lid_points if closer is None else closer[list(lids), :2]
            points[iris : iris + 5, :2] = iris_points
            points[iris : iris + 5, 2] = points[[outer, inner], 2].mean()
        return points.astype(np.float32)

    def track(self, frames: Iterable[np.ndarray]) -> Track:
        """The face that a `Follower` sees in each frame."""
        follower = Follower(self)
        points = [follower(image) for image in frames]
        nowhere = np.full((NUM_KEYPOINTS, 3), np.nan, np.float32)
        keypoints = np.array([nowhere if p is None else p for p in points], np.float32)
        found = np.array([p is not None for p in points], bool)
        return Track(keypoints.reshape(-1, NUM_KEYPOINTS, 3), found, follower.face_count)

    def confirmed(self, image: np.ndarray) -> list[Face]:
        """Detections in which the mesh network sees a face, too: patches and badges drop out."""
        faces = self.detect(image)
        return [face for face in faces if self._mesh_points(image, face.region) is not None]

    def _detect_in(self, image: np.ndarray, windows: list[Region]) -> list[Face]:
        return _merged([row for window in windows for row in self._candidates(image, window)])

    def _candidates(self, image: np.ndarray, window: Region) -> np.ndarray:
        """float64 [n, 9]: score, box and the two eyes (x, y each), in pixels of the picture."""
        boxes, logits = self._detector(image, window, low=-1.0)
        logits = logits[:, 0]
        keep = logits > np.log(_FOUND / (1 - _FOUND))
        centre = boxes[keep, :2] + self._anchors[keep]
        half = boxes[keep, 2:4] / 2
        eyes = boxes[keep, 4:8].reshape(-1, 2, 2) + self._anchors[keep, None]
        corners = np.concatenate([(centre - half)[:, None], (centre + half)[:, None], eyes], 1)
        matrix = window.matrix(128)
        corners = corners @ matrix[:, :2].T + matrix[:, 2]
        score = 1 / (1 + np.exp(-logits[keep]))
        return np.column_stack([score, corners.reshape(-1, 8)])

    def _mesh_points(self, image: np.ndarray, region: Region) -> np.ndarray | None:
        coordinates, logit = self._mesh(image, region)
        if 1 / (1 + np.exp(-logit.item())) < _FOUND:
            return None
        points = np.zeros((NUM_KEYPOINTS, 3))
        points[:468] = _in_picture(coordinates, region, 192)
        return points

    def _eye_points(
        self, image: np.ndarray, outer: np.ndarray, inner: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """[16, 2] eyelid and [5, 2] iris points of the eye with these corners."""
        # The network knows one eye; the other is shown to it mirrored.
        mirrored = outer[0] > inner[0]
        across = (outer - inner if mirrored else inner - outer)[:2]
        centre = (outer + inner)[:2] / 2
        angle = np.arctan2(across[1], across[0])
        region = Region(*centre, _EYE_REGION * np.hypot(*across), angle)
        contours, iris = self._iris(image, region, mirrored=mirrored)
        matrix = region.matrix(64, mirrored)
        points = np.concatenate([contours.reshape(-1, 3)[:16, :2], iris.reshape(5, 3)[:, :2]])
        points = points @ matrix[:, :2].T + matrix[:, 2]
        return points[:16], points[16:]


class Follower:
    """Follows one face from frame to frame: the largest of the first frame that shows any.

    A face that was lost is found again only near its last place and at about its last size;
    another person's face is not taken for it.

    Attributes:
      face_count: the most faces seen so far, see `Track`.
    """

    def __init__(self, landmarker: FaceLandmarker):
        self._landmarker, self._region, self._index = landmarker, None, 0
        self.face_count = 0

    def __call__(self, image: np.ndarray) -> np.ndarray | None:
        """float32 [478, 3] pixels of the next frame, uint8 [H, W, 3]; None if it is not found."""
        recount = self._index % _RECOUNT == 0
        faces = self._landmarker.confirmed(image) if recount else None
        points = None
        if self._region is not None:
            points = self._landmarker.landmarks(image, self._region)
        if points is None:
            faces = self._landmarker.confirmed(image) if faces is None else faces
            face = _same_face(faces, self._region)
            if face is not None:
                points = self._landmarker.landmarks(image, face.region)
        self.face_count = max(self.face_count, len(faces or ()))
        if points is not None:
            self._region = _region_around(points)
        self._index += 1
        return points


def sample(image: np.ndarray, matrix: np.ndarray, size: int, border: int) -> np.ndarray:
    """uint8 [size, size, 3] whose pixels `matrix` [2, 3] maps into `image`; free of aliasing."""
    # Where it shrinks, bilinear samples at most one source pixel apart are averaged.
    fine = max(1, int(np.ceil(np.hypot(*matrix[:, 0]) - 0.1)))
    step = matrix[:, :2] / fine
    matrix = np.column_stack([step, matrix[:, 2] + step.sum(1) * (1 - fine) / 2])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    pixels = cv2.warpAffine(image, matrix, (size * fine,) * 2, flags=flags, borderMode=border)
    if fine > 1:
        pixels = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA)
    return pixels


class _Network:
    """A .tflite file's content applied to a region of a picture; outputs without the batch axis."""

    def __init__(self, content: bytes, size: int):
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(model_content=content, num_threads=1)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._outputs = [detail["index"] for detail in self._interpreter.get_output_details()]
        self._size = size

    def __call__(self, image, region: Region, low: float = 0.0, mirrored: bool = False):
        matrix = region.matrix(self._size, mirrored)
        pixels = sample(image, matrix, self._size, cv2.BORDER_CONSTANT)
        scaled = pixels.astype(np.float32) * ((1 - low) / 255) + np.float32(low)
        self._interpreter.set_tensor(self._input, scaled[None])
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index)[0] for index in self._outputs]


def _asset(name: str) -> bytes:
    return (_ASSETS / name).read_bytes()


def _read_task(path: Path) -> tuple[_Network, str]:
    """The landmark network of a Face Landmarker, and the SHA-256 of the file."""
    where = f"--landmarks {path}"
    try:
        content = path.read_bytes()
        with zipfile.ZipFile(path) as task:
            network = _Network(task.read(_TASK_NETWORK), _LID_SIDE)
        points = network(np.zeros((8, 8, 3), np.uint8), Region(4, 4, 8))[0]
        if points.size != 3 * NUM_KEYPOINTS:
            raise ValueError(f"{points.size} values, not {NUM_KEYPOINTS} points")
    except OSError as error:
        raise InputError(f"{where}: cannot be read ({error.strerror}): check the path") from None
    # What LiteRT raises for a network that is none, or another one, is open-ended.
    except Exception as error:
        reason = (str(error).strip("' \n") or repr(error)).splitlines()[0]
        raise InputError(
            f"{where}: no Face Landmarker of MediaPipe ({reason}): give face_landmarker.task"
        ) from None
    return network, hashlib.sha256(content).hexdigest()


def _in_picture(coordinates: np.ndarray, region: Region, size: int) -> np.ndarray:
    """[n, 3] pixels of the picture from a mesh network's points in its size x size input."""
    points = coordinates.astype(np.float64).reshape(-1, 3)
    matrix = region.matrix(size)
    points[:, :2] = points[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    points[:, 2] *= region.side / size
    return points


def _centres(length: int, side: float, step: float) -> np.ndarray:
    """Centres of windows of width `side` that cover 0..length, at most `step` apart."""
    room = max(length - side, 0)
    return (length - 1) / 2 + np.linspace(-room / 2, room / 2, int(np.ceil(room / step)) + 1)


def _merged(rows: list[np.ndarray]) -> list[Face]:
    """Overlapping candidates averaged by score, as BlazeFace does instead of suppression."""
    faces = []
    candidates = np.reshape(sorted(rows, key=lambda row: -row[0]), (-1, 9))
    while len(candidates):
        low = np.maximum(candidates[:, 1:3], candidates[0, 1:3])
        high = np.minimum(candidates[:, 3:5], candidates[0, 3:5])
        common = np.prod(np.clip(high - low, 0, None), 1)
        areas = np.prod(candidates[:, 3:5] - candidates[:, 1:3], 1)
        same = common / (areas + areas[0] - common) > _OVERLAP
        same[0] = True
        score, *box_and_eyes = np.average(candidates[same], 0, candidates[same, 0])
        x0, y0, x1, y1, *eyes = map(float, box_and_eyes)
        angle = float(np.arctan2(eyes[3] - eyes[1], eyes[2] - eyes[0]))
        region = Region((x0 + x1) / 2, (y0 + y1) / 2, _REGION * max(x1 - x0, y1 - y0), angle)
        faces.append(Face(float(score), (x0, y0, x1, y1), region))
        candidates = candidates[~same]
    return faces


def _region_around(points: np.ndarray) -> Region:
    across = points[263, :2] - points[33, :2]
    angle = float(np.arctan2(across[1], across[0]))
    cos, sin = np.cos(angle), np.sin(angle)
    upright = points[:468, :2] @ np.array([[cos, -sin], [sin, cos]])
    low, high = upright.min(0), upright.max(0)
    x, y = (low + high) / 2
    side = _REGION * float((high - low).max())
    return Region(float(cos * x - sin * y), float(sin * x + cos * y), side, angle)


def _same_face(faces: list[Face], last: Region | None) -> Face | None:
    """The largest face, or the one nearest to the last region if that is near and alike in size."""
    if last is None:
        return faces[0] if faces else None

    def distance(face: Face) -> float:
        return np.hypot(face.region.cx - last.cx, face.region.cy - last.cy)

    alike = [face for face in faces if 0.5 < face.region.side / last.side < 2]
    nearest = min(alike, key=distance, default=None)
    return nearest if nearest is not None and distance(nearest) < last.side else None
