"""The case folder: what a method is asked for, and what is true, in files any framework can read.

    CASES/cases.json                   protocol, size, fps, sources, and one entry per case
    CASES/ID/portrait.png              person A
             portrait_mask.png         A's own region of the kinds that are replaced; may be empty
                                       (and is, where a case has no attributes)
             attribute_0.png           person B, who shows the attribute; attribute_1.png, ...
             attribute_0_mask.png      where B shows it
             driving.mp4               person C, F frames
             truth.mp4                 where the truth is known: F frames, lossless
             truth.npz                 mask_KIND bool [F, S, S] per kind, keypoints float32
                                       [F, 478, 3] in pixels, and further arrays of F rows

Masks are white where they hold. All pictures of a folder are S x S and framed alike, and so is the
prediction: F frames in the framing of the portrait. Motion is relative to the driver's first frame,
so frame 0 of the prediction has the portrait's own pose and expression (`retarget.retarget`).
"""

import dataclasses
import hashlib
import json
import zipfile
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from input_pipeline.errors import InputError
from input_pipeline.kinds import KINDS, NUM_KEYPOINTS
from input_pipeline.media import files, video
from input_pipeline.media.pictures import SHORTEST_SIDE, read_picture

FORMAT = 1
_INDEX = "cases.json"
_DRIVING_CRF = 10


@dataclasses.dataclass(frozen=True)
class Attribute:
    """What to take from attribute picture i: its kind, and its share among sources of that kind.

    Two sources of one kind with weights 1 - alpha and alpha ask for an interpolation.
    """

    kind: str
    weight: float = 1.0


@dataclasses.dataclass(frozen=True)
class Case:
    """One question. The names of its files follow from the number of attributes.

    Attributes:
      id: name of its folder; ids of one set are equally long, so that they sort.
      group: row of the table that it counts for, such as "hair" or "hair+glasses".
      attributes: one for each attribute picture, in order; none where a portrait is animated as it
        is.
      frames: F.
      people: who is shown: {"portrait": name, "attributes": [name, ...], "driving": name}.
      scored_from: the first frame that is scored; 1 where the portrait is frame 0 of the truth.
      truth: whether it is known.

    Raises:
      InputError: values that do not fit together.
    """

    id: str
    group: str
    attributes: tuple[Attribute, ...]
    frames: int
    people: dict
    scored_from: int = 0
    truth: bool = True

    def __post_init__(self):
        where = f"case {self.id!r}"
        if not self.id or self.id.startswith(".") or Path(self.id).name != self.id:
            raise InputError(f"{where}: an id is a plain folder name, such as 0007")
        shares: dict[str, float] = {}
        for attribute in self.attributes:
            if attribute.kind not in KINDS:
                raise InputError(
                    f"{where}: unknown kind {attribute.kind!r}: choose from {', '.join(KINDS)}"
                )
            if not 0 <= attribute.weight <= 1:
                raise InputError(f"{where}: weight {attribute.weight} lies outside 0 .. 1")
            shares[attribute.kind] = shares.get(attribute.kind, 0.0) + attribute.weight
        for kind, share in shares.items():
            if abs(share - 1) > 1e-6:
                raise InputError(f"{where}: the weights of {kind} add up to {share:g}, must be 1")
        if not 0 <= self.scored_from < self.frames:
            raise InputError(
                f"{where}: scored from frame {self.scored_from}, has {self.frames} frames"
            )

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that are replaced, in the order of KINDS."""
        asked = {attribute.kind for attribute in self.attributes}
        return tuple(kind for kind in KINDS if kind in asked)

    @property
    def interpolates(self) -> bool:
        """Whether two sources share one kind."""
        return len(self.kinds) < len(self.attributes)


@dataclasses.dataclass(frozen=True)
class Truth:
    """The prediction: video uint8 [F, S, S, 3]; masks, by kind, bool [F, S, S]; keypoints float32
    [F, 478, 3] in pixels; extra, further arrays of F rows by name (pose, visible, ...)."""

    video: np.ndarray
    masks: dict[str, np.ndarray]
    keypoints: np.ndarray
    extra: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Pictures:
    """What a case shows: uint8 pictures RGB, bool masks; N attributes, F frames.

    portrait [S, S, 3], portrait_mask [S, S], attributes [N, S, S, 3], attribute_masks [N, S, S],
    driving [F, S, S, 3]; truth or None.
    """

    portrait: np.ndarray
    portrait_mask: np.ndarray
    attributes: np.ndarray
    attribute_masks: np.ndarray
    driving: np.ndarray
    truth: Truth | None = None


def write_case(root: str | Path, case: Case, pictures: Pictures, fps: Fraction) -> None:
    """Writes ROOT/ID, complete or not at all; the same arrays give the same bytes.

    Raises:
      InputError: not writable, or arrays that do not fit the case.
    """
    root = Path(root)
    _check_shapes(f"case {case.id!r}", case, pictures, len(pictures.portrait))
    with files.folder_beside(root / case.id, replaces="portrait.png") as beside:
        for name, image in _stills(case, pictures).items():
            Image.fromarray(image).save(beside / name)
        driving = beside / "driving.mp4"
        video.write_video(driving, pictures.driving, fps, crf=_DRIVING_CRF, reproducible=True)
        if pictures.truth is not None:
            truth = beside / "truth.mp4"
            video.write_video(truth, pictures.truth.video, fps, lossless=True, reproducible=True)
            masks = {f"mask_{kind}": mask for kind, mask in pictures.truth.masks.items()}
            # numpy stamps every member with 1980-01-01, so this is reproducible, too.
            np.savez_compressed(
                beside / "truth.npz",
                keypoints=pictures.truth.keypoints, **masks, **pictures.truth.extra,
            )  # fmt: skip


def write_index(
    root: str | Path,
    cases: list[Case],
    *,
    protocol: str,
    version: int,
    size: int,
    fps: Fraction,
    source: dict,
) -> None:
    """Writes ROOT/cases.json, last, which marks the folder as complete.

    Args:
      source: where the pictures come from (data set, seed, ...), in plain JSON values.
    """
    if size < SHORTEST_SIDE or size % 2:
        raise InputError(f"size {size}: must be even and at least {SHORTEST_SIDE}")
    entries = []
    for case in cases:
        entry = dataclasses.asdict(case)
        for number, attribute in enumerate(entry["attributes"]):
            attribute["image"] = f"attribute_{number}.png"
            attribute["mask"] = f"attribute_{number}_mask.png"
        entries.append(entry)
    facts = {"format": FORMAT, "protocol": protocol, "version": version, "size": size}
    facts |= {"fps": str(Fraction(fps)), "source": source, "cases": entries}
    with files.written_beside(Path(root) / _INDEX) as beside:
        beside.write_text(json.dumps(facts, indent=1) + "\n")


@dataclasses.dataclass(frozen=True)
class CaseSet:
    """A case folder that has been read: the facts of cases.json, pictures on demand."""

    path: Path
    protocol: str
    version: int
    size: int
    fps: Fraction
    source: dict
    cases: tuple[Case, ...]

    @classmethod
    def read(cls, path: str | Path) -> "CaseSet":
        """Raises InputError: no case folder, another format, bad entries, or missing files."""
        path = Path(path)
        index = path / _INDEX
        if not index.is_file():
            raise InputError(f"{path}: no cases here ({_INDEX} missing): make them again")
        try:
            facts = json.loads(index.read_text())
            if facts["format"] != FORMAT:
                raise InputError(f"{index}: format {facts['format']}, this code reads {FORMAT}")
            cases = tuple(_case(entry) for entry in facts["cases"])
            found = cls(
                path, facts["protocol"], facts["version"], int(facts["size"]),
                Fraction(facts["fps"]), facts["source"], cases,
            )  # fmt: skip
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{index}: not a case index ({error!r}): make it again") from None
        if not cases:
            raise InputError(f"{index}: holds no cases: make it again")
        ids = [case.id for case in cases]
        if len(set(ids)) < len(ids) or len({len(name) for name in ids}) > 1:
            raise InputError(f"{index}: ids must be unique and equally long: make it again")
        for case in cases:
            for name in _files(case):
                if not (path / case.id / name).is_file():
                    raise InputError(f"{path / case.id / name}: missing: make the cases again")
        return found

    def load(self, case: Case) -> Pictures:
        """The pictures of a case. Raises InputError: unreadable, or not of the stated shape."""
        folder = self.path / case.id
        portrait, portrait_mask, *attribute_sources = (
            read_picture(folder / name) for name in _files(case) if name.endswith(".png")
        )
        if len({image.shape for image in attribute_sources}) > 1:
            raise InputError(f"{folder}: attribute pictures differ in size: make the cases again")
        pictures = Pictures(
            portrait=portrait,
            portrait_mask=_as_mask(portrait_mask),
            attributes=_stacked(attribute_sources[::2], portrait),
            attribute_masks=_as_mask(_stacked(attribute_sources[1::2], portrait)),
            driving=np.stack(list(video.read_frames(folder / "driving.mp4"))),
            truth=_read_truth(folder) if case.truth else None,
        )
        _check_shapes(str(folder), case, pictures, self.size)
        return pictures

    def sha256(self) -> str:
        """Hash of the index and of every file of every case, in order."""
        digest = hashlib.sha256((self.path / _INDEX).read_bytes())
        for case in self.cases:
            for name in _files(case):
                digest.update((self.path / case.id / name).read_bytes())
        return digest.hexdigest()


def _case(entry: dict) -> Case:
    known = {field.name for field in dataclasses.fields(Case)}
    values = {name: value for name, value in entry.items() if name in known}
    attributes = [Attribute(one["kind"], float(one["weight"])) for one in entry["attributes"]]
    return Case(**values | {"attributes": tuple(attributes), "frames": int(entry["frames"])})


def _files(case: Case) -> list[str]:
    """Names of the files of a case."""
    names = ["portrait.png", "portrait_mask.png"]
    for number in range(len(case.attributes)):
        names += [f"attribute_{number}.png", f"attribute_{number}_mask.png"]
    return names + ["driving.mp4"] + (["truth.mp4", "truth.npz"] if case.truth else [])


def _stills(case: Case, pictures: Pictures) -> dict[str, np.ndarray]:
    arrays = [pictures.portrait, pictures.portrait_mask]
    for pair in zip(pictures.attributes, pictures.attribute_masks):
        arrays += pair
    return dict(zip(_files(case), arrays))


def _check_shapes(where: str, case: Case, pictures: Pictures, size: int) -> None:
    """Raises InputError that names the array, its shape, and the shape it must have."""
    picture, frames, number = (size, size), case.frames, len(case.attributes)
    expected = {
        "portrait": (*picture, 3),
        "portrait_mask": picture,
        "attributes": (number, *picture, 3),
        "attribute_masks": (number, *picture),
        "driving": (frames, *picture, 3),
    }
    shapes = {name: getattr(pictures, name).shape for name in expected}
    if (pictures.truth is not None) != case.truth:
        raise InputError(f"{where}: truth is {'missing' if case.truth else 'not announced'}")
    if pictures.truth is not None:
        expected |= {"truth.video": (frames, *picture, 3)}
        expected |= {"truth.keypoints": (frames, NUM_KEYPOINTS, 3)}
        expected |= {f"truth.masks[{kind}]": (frames, *picture) for kind in case.kinds}
        shapes |= {"truth.video": pictures.truth.video.shape}
        shapes |= {"truth.keypoints": pictures.truth.keypoints.shape}
        shapes |= {f"truth.masks[{k}]": mask.shape for k, mask in pictures.truth.masks.items()}
    for name, shape in expected.items():
        if shapes.get(name) != shape:
            raise InputError(f"{where}: {name} is {shapes.get(name)}, must be {shape}")


def _stacked(images: list[np.ndarray], like: np.ndarray) -> np.ndarray:
    """[N, S, S, 3], of no pictures as large as another one."""
    return np.stack(images) if images else np.zeros((0, *like.shape), np.uint8)


def _as_mask(image: np.ndarray) -> np.ndarray:
    return image[..., 0] > 127


def _read_truth(folder: Path) -> Truth:
    frames = np.stack(list(video.read_frames(folder / "truth.mp4")))
    try:
        with np.load(folder / "truth.npz") as file:
            arrays = dict(file)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{folder / 'truth.npz'}: damaged ({error}): copy it again") from None
    masks = {
        name.removeprefix("mask_"): arrays.pop(name)
        for name in list(arrays)
        if name.startswith("mask_")
    }
    keypoints = arrays.pop("keypoints", np.zeros(0, np.float32))
    return Truth(frames, masks, keypoints, arrays)
