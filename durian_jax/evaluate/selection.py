"""Cases of the self and cross protocols, chosen from a prepared data set, always the same ones."""

import dataclasses
import shutil
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from tqdm import tqdm

from durian_jax.evaluate import scores
from durian_jax.evaluate.protocol import Build, Protocol
from input_pipeline.dataset import cases, records
from input_pipeline.dataset.records import Chunk
from input_pipeline.dataset.shards import Dataset
from input_pipeline.errors import InputError
from input_pipeline.faces.landmarker import FaceLandmarker
from input_pipeline.kinds import MIN_ATTRIBUTE_AREA
from input_pipeline.media import video

_SPLITS = ("test", "val", "train")
_ID_LENGTH = 4
_DRAWS = 20  # attempts for each case of the cross protocol to find people not yet combined


@dataclasses.dataclass(frozen=True)
class _Entry:
    """What the choice needs to know of a chunk; `kinds` maps a kind to the frames that show it."""

    index: int
    clip: str
    identity: str
    frames: int
    fps: Fraction
    kinds: dict[str, np.ndarray]


def write_cases(dataset: str | Path, protocol: Protocol, out: Path) -> None:
    """Chooses cases and writes them as a case folder.

    The split is `test`, else `val`, else `train`; `source` in cases.json says which. Self:
    portrait, attribute and truth are one chunk of a clip, the attribute picture the frame that
    shows the attribute farthest from the target frames, which begin with the portrait. Cross:
    portrait, attribute and driver are three people. Cases in which no face can be found are left
    out, and `source` says so.

    Raises:
      InputError: no data set, no chunk shows any of the kinds or is long enough, or, for cross,
        too few people.
    """
    source, split = _open(dataset)
    build = protocol.build
    entries = [_entry(source, i, build) for i in tqdm(range(len(source)), "looking for cases")]
    entries = [entry for entry in entries if entry.frames >= build.least_frames]
    # A case folder has one frame rate: the commonest.
    rates = [entry.fps for entry in entries]
    fps = max(set(rates), key=lambda rate: (rates.count(rate), rate), default=Fraction(25))
    left_out = [f"{entry.clip}: {entry.fps} fps" for entry in entries if entry.fps != fps]
    entries = [entry for entry in entries if entry.fps == fps]
    choose, make = (_self_cases, _self_case) if protocol.truth else (_cross_cases, _cross_case)
    chosen = list(choose(entries, build, dataset))
    landmarker, written = FaceLandmarker(), []
    for kind, parts in tqdm(chosen, "writing cases", unit="case"):
        case, pictures = make(f"{len(written):0{_ID_LENGTH}d}", kind, parts, source)
        cases.write_case(out, case, pictures, fps)
        folder = out / case.id
        # The driver as a method gets him: compression may cost a small face.
        driving = np.stack(list(video.read_frames(folder / "driving.mp4")))
        try:
            scores.find_reference(case, dataclasses.replace(pictures, driving=driving), landmarker)
        except InputError as error:
            left_out.append(f"{kind}: {error}".replace(f"case {case.id}: ", ""))
            shutil.rmtree(folder)
            continue
        written.append(case)
    if not written:
        reason = left_out[0] if left_out else f"kinds are {', '.join(build.kinds)}"
        raise InputError(
            f"{dataset}: split {split} gives no case ({reason}): it needs chunks of at least "
            f"{build.least_frames + build.spare} frames that show an attribute and a face"
        )
    facts = {"dataset": Path(dataset).resolve().name, "split": split, "left_out": left_out}
    facts |= {"records": source.metadata["records"], "protocol_sha256": protocol.sha256}
    cases.write_index(
        out, written, protocol=protocol.name, version=protocol.version, size=source.size, fps=fps,
        source=facts,
    )  # fmt: skip


def _open(dataset: str | Path) -> tuple[Dataset, str]:
    """The split that training sees least of, and its name."""
    for split in _SPLITS:
        if any(Path(dataset).glob(f"durian-{split}.array_record-*")):
            return Dataset(dataset, split), split
    return Dataset(dataset), "train"  # which says what is wrong


def _entry(source: Dataset, index: int, build: Build) -> _Entry:
    chunk = _chunk(source, index)
    kinds = {}
    for kind in build.kinds:
        if kind in chunk.masks:
            areas = np.array([records.decode_mask(mask).mean() for mask in chunk.masks[kind]])
            shown = np.flatnonzero(areas >= MIN_ATTRIBUTE_AREA)
            if len(shown):
                kinds[kind] = shown
    frames = min(build.frames, len(chunk.frames) - build.spare)
    fps = Fraction(chunk.fps).limit_denominator(1001)
    return _Entry(index, chunk.clip, chunk.identity, frames, fps, kinds)


def _self_cases(entries: list[_Entry], build: Build, _) -> Iterator[tuple]:
    """(kind, (entry,)), clips before further chunks of a clip."""
    rng = np.random.default_rng(build.seed)
    for kind in build.kinds:
        able = [entry for entry in entries if kind in entry.kinds]
        able = [entry for entry in able if entry.kinds[kind][-1] >= entry.frames]
        order = [able[i] for i in rng.permutation(len(able))]
        seen: dict[str, int] = {}
        turns = []
        for entry in order:
            seen[entry.clip] = seen.get(entry.clip, 0) + 1
            turns.append(seen[entry.clip])
        order = [order[i] for i in np.argsort(turns, kind="stable")]
        yield from ((kind, (entry,)) for entry in order[: build.cases_per_kind])


def _cross_cases(entries: list[_Entry], build: Build, dataset) -> Iterator[tuple]:
    """(kind, (portrait, attribute, driver)), three people, no three clips twice."""
    people = {entry.identity for entry in entries}
    if len(people) < 3:
        raise InputError(
            f"{dataset}: {len(people)} people in usable chunks; the cross protocol needs 3 "
            "(portrait, attribute, driver): prepare more clips, with identities in the labels"
        )
    rng = np.random.default_rng(build.seed)
    for kind in build.kinds:
        attribute_sources = [entry for entry in entries if kind in entry.kinds]
        if not attribute_sources:
            continue
        used = set()
        for number in range(build.cases_per_kind * _DRAWS):
            if len(used) == build.cases_per_kind:
                break
            attribute_source = attribute_sources[number % len(attribute_sources)]
            others = [entry for entry in entries if entry.identity != attribute_source.identity]
            portrait = others[rng.integers(len(others))]
            others = [entry for entry in others if entry.identity != portrait.identity]
            driver = others[rng.integers(len(others))]
            clips = (portrait.clip, attribute_source.clip, driver.clip)
            if clips not in used:
                used.add(clips)
                yield kind, (portrait, attribute_source, driver)


def _self_case(name: str, kind: str, parts: tuple, source: Dataset):
    (entry,) = parts
    chunk = _chunk(source, entry.index)
    frames = entry.frames
    video = np.stack([records.decode_frame(data) for data in chunk.frames[:frames]])
    masks = {
        shown: np.stack([records.decode_mask(data) for data in pngs[:frames]])
        for shown, pngs in chunk.masks.items()
    }
    attribute_source = int(entry.kinds[kind][-1])
    truth = cases.Truth(video, masks, chunk.keypoints[:frames].astype(np.float32))
    people = {
        "portrait": chunk.identity, "attributes": [chunk.identity], "driving": chunk.identity
    }  # fmt: skip
    case = cases.Case(name, kind, (cases.Attribute(kind),), frames, people, scored_from=1)
    return case, cases.Pictures(
        portrait=video[0],
        portrait_mask=masks[kind][0],
        attributes=records.decode_frame(chunk.frames[attribute_source])[None],
        attribute_masks=records.decode_mask(chunk.masks[kind][attribute_source])[None],
        driving=video,
        truth=truth,
    )


def _cross_case(name: str, kind: str, parts: tuple, source: Dataset):
    portrait, attribute_source, driver = (_chunk(source, entry.index) for entry in parts)
    frames = parts[2].frames
    shown = parts[1].kinds[kind]
    frame = int(shown[len(shown) // 2])
    own = np.zeros((source.size, source.size), bool)
    if kind in portrait.masks:
        own = records.decode_mask(portrait.masks[kind][0])
    people = {
        "portrait": portrait.identity, "attributes": [attribute_source.identity],
        "driving": driver.identity,
    }  # fmt: skip
    case = cases.Case(name, kind, (cases.Attribute(kind),), frames, people, truth=False)
    return case, cases.Pictures(
        portrait=records.decode_frame(portrait.frames[0]),
        portrait_mask=own,
        attributes=records.decode_frame(attribute_source.frames[frame])[None],
        attribute_masks=records.decode_mask(attribute_source.masks[kind][frame])[None],
        driving=np.stack([records.decode_frame(data) for data in driver.frames[:frames]]),
    )


def _chunk(source: Dataset, index: int) -> Chunk:
    try:
        return records.decode(source[index])
    except records.DAMAGED as error:
        raise InputError(
            f"{source.path}: record {index} cannot be read ({error}): run durian check"
        ) from error
