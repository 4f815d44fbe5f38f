"""Looks at a data set: every record validated, statistics, and contact sheets for the eye."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from input_pipeline.dataset import manifest, records, shards
from input_pipeline.dataset.store import Store
from input_pipeline.errors import InputError
from input_pipeline.faces.drawing import COLOURS, draw_keypoints, draw_masks
from input_pipeline.media.files import check_output
from input_pipeline.media.pictures import write_picture
from input_pipeline.prepare import duplicates
from input_pipeline.training import transforms

_SHEET, _CLIPS_PER_SHEET = "contact_sheet.png", 20
_MOST_CLIPS = 200  # on all sheets together, evenly chosen
_FRAMES_PER_CLIP = 4
_TILE, _STRIP = 144, 20
_SAMPLES, _DRAWS = 12, 3  # on the sheet of augmentation


@dataclasses.dataclass
class Report:
    """What a data set holds. `str()` gives it as text.

    clips: record numbers by clip.
    frames, interpolated: frames in all, and those whose keypoints were bridged.
    fps: lowest and highest. controlled: chunks with a control track.
    areas: by kind and clip, the share of the frame that the mask covers, a mean for each chunk.
    problems: one line per broken record.
    remarks: one line per thing that is valid but looks wrong.
    sheets: the pictures written.
    """

    path: Path
    size: int
    clips: dict[str, list[int]] = dataclasses.field(default_factory=dict)
    identities: set[str] = dataclasses.field(default_factory=set)
    frames: int = 0
    interpolated: int = 0
    controlled: int = 0
    fps: tuple[float, float] = (np.inf, 0.0)
    areas: dict[str, dict[str, list[float]]] = dataclasses.field(default_factory=dict)
    problems: list[str] = dataclasses.field(default_factory=list)
    remarks: list[str] = dataclasses.field(default_factory=list)
    sheets: list[Path] = dataclasses.field(default_factory=list)

    def __str__(self) -> str:
        chunks = sum(map(len, self.clips.values()))
        lines = [
            f"{self.path}: {len(self.clips)} clips of {len(self.identities)} people, {chunks} "
            f"chunks, {self.frames} frames of {self.size} x {self.size} pixels",
        ]
        if chunks:
            lines.append(f"fps {self.fps[0]:.3g} to {self.fps[1]:.3g}")
            share = self.interpolated / self.frames
            lines.append(f"keypoints interpolated in {self.interpolated} frames ({share:.1%})")
        if self.controlled:
            lines.append(f"control track: in {self.controlled} chunks")
        for kind, by_clip in self.areas.items():
            mean = np.mean([np.mean(areas) for areas in by_clip.values()])
            lines.append(f"{kind}: in {len(by_clip)} clips, mask covers {mean:.1%} on average")
        lines += [f"remark: {remark}" for remark in self.remarks]
        lines += [f"problem: {problem}" for problem in self.problems]
        lines += [f"contact sheet: {sheet}" for sheet in self.sheets]
        lines.append(f"{len(self.problems)} problems")
        return "\n".join(lines)


def check(dataset_dir: str | Path, out_dir: str | Path | None = None) -> Report:
    """Decodes every picture of a data set, prints the report, and draws contact sheets.

    All splits are looked at. Clips that look alike, and people in two splits, are remarks.

    The sheets, `contact_sheet.png` (then `contact_sheet_2.png`, ...), lie in `out_dir`, by default
    in the data set itself. A clip is a row: frames with their keypoints, each beside the same frame
    with its masks laid over it.

    Raises:
      InputError: no data set here, or the sheet cannot be written. Broken records do not raise;
        they are `Report.problems`.
    """
    dataset = shards.Dataset(dataset_dir, shards.ALL)
    folder = Path(out_dir or dataset_dir)
    check_output(folder / _SHEET, ".png")
    report = Report(Path(dataset_dir), dataset.size)
    report.remarks += duplicates.notes(manifest.read(Store.at(dataset_dir)))
    for index in tqdm(range(len(dataset)), unit="record", desc="check"):
        try:
            chunk = records.decode(dataset[index])
            records.validate(chunk, dataset.size)
        except InputError as error:
            report.problems.append(f"record {index}: {error}")
        except records.DAMAGED as error:
            report.problems.append(f"record {index}: cannot be read ({error})")
        else:
            _count(report, index, chunk)
    if not report.clips:
        report.problems.append("not one readable record")
    report.sheets = _write_sheets(report, dataset, folder)
    print(report)
    return report


def _count(report: Report, index: int, chunk: records.Chunk) -> None:
    report.clips.setdefault(chunk.clip, []).append(index)
    report.identities.add(chunk.identity)
    count = len(chunk.frames)
    report.frames += count
    report.interpolated += int(count - chunk.found.sum())
    report.controlled += chunk.control is not None
    report.fps = min(report.fps[0], chunk.fps), max(report.fps[1], chunk.fps)
    for kind, masks in chunk.masks.items():
        areas = np.array([records.decode_mask(mask).mean() for mask in masks])
        by_clip = report.areas.setdefault(kind, {})
        by_clip.setdefault(chunk.clip, []).append(float(areas.mean()))
        if empty := int((areas == 0).sum()):
            report.remarks.append(
                f"{chunk.clip} from frame {chunk.start}: {kind} mask empty in {empty} of {count} "
                "frames"
            )


def _write_sheets(report: Report, dataset: shards.Dataset, folder: Path) -> list[Path]:
    clips = list(report.clips)
    shown = np.unique(np.linspace(0, len(clips) - 1, min(len(clips), _MOST_CLIPS)).round())
    clips = [clips[int(i)] for i in shown]
    pages = range(0, len(clips), _CLIPS_PER_SHEET)
    paths = []
    for number, first in enumerate(pages, 1):
        rows = [_legend(f"{report.path.name}, sheet {number} of {len(pages)}")]
        for clip in clips[first : first + _CLIPS_PER_SHEET]:
            rows.append(draw_clip(dataset, report.clips[clip]))
        name = _SHEET if number == 1 else f"contact_sheet_{number}.png"
        write_picture(folder / name, np.concatenate(rows))
        paths.append(folder / name)
    return paths


def draw_augmentation(
    dataset_dir: str | Path,
    options: transforms.SampleOptions | None = None,
    out_dir: str | Path | None = None,
) -> Path:
    """Draws what training makes of a data set, `augmentation.png`, by the training's own functions.

    A record is a row, see `draw_training`. The picture lies in `out_dir`, by default in the data
    set itself.

    Args:
      options: of a system's samples, see `training.samples`; by default Durian's.

    Raises:
      InputError: no data set here, not one record that can be used, or no place to write.
    """
    dataset = shards.Dataset(dataset_dir)
    options = options or transforms.SampleOptions(size=dataset.size)
    rows = []
    for index in np.unique(np.linspace(0, len(dataset) - 1, _SAMPLES).round()).astype(int):
        try:
            rows.append(draw_training(dataset, int(index), options))
        except records.DAMAGED as error:
            print(f"record {index} left out: {error}")
    if not rows:
        raise InputError(f"{dataset_dir}: no record can be used: see above")
    path = Path(out_dir or dataset_dir) / "augmentation.png"
    write_picture(path, np.concatenate(rows))
    print(f"augmentation: {path}")
    return path


def draw_training(
    dataset: shards.Dataset, index: int, options: transforms.SampleOptions
) -> np.ndarray:
    """uint8 [H, W, 3]: several draws of one record, with their names above: the target's first
    frame, and the first of each kind of picture that a model is given with it."""
    chunk, rng, found = records.decode(dataset[index]), np.random.default_rng(index), []
    for draw in range(1, _DRAWS + 1):
        sample = options.make(chunk, rng, dataset.donors)
        side = sample["video"].shape[1:]
        found.append((f"target {draw}", sample.pop("video")[0]))
        for name, pictures in sample.items():
            if pictures.shape[-3:] == side:
                found.append((f"{name.replace('_', ' ')} {draw}", pictures.reshape(-1, *side)[0]))
    kinds = ", ".join(chunk.masks) or "no attribute"
    title = [(f"{chunk.clip} from frame {chunk.start}   {kinds}", (255, 255, 255))]
    heads = [(name, (255, 255, 255)) for name, _ in found]
    strips = [_strip(title, len(found)), _strip(heads, len(found), _TILE)]
    return np.concatenate([*strips, np.concatenate([_tile(one) for _, one in found], 1)])


def _tile(image: np.ndarray) -> np.ndarray:
    return cv2.resize(image, (_TILE, _TILE), interpolation=cv2.INTER_AREA)


def draw_clip(dataset: shards.Dataset, indices: list[int]) -> np.ndarray:
    """uint8 [strip + tile, W, 3]: a line of text over pairs of tiles, from all over the clip."""
    # One record at a time: a clip may be an hour long.
    places = [
        (index, frame)
        for index in indices
        for frame in range(len(records.decode(dataset[index]).frames))
    ]
    chosen = np.linspace(0, len(places) - 1, _FRAMES_PER_CLIP).round().astype(int)
    tiles = []
    for index, frame in (places[i] for i in chosen):
        chunk = records.decode(dataset[index])
        image = records.decode_frame(chunk.frames[frame])
        tile = _tile(image)
        points = (chunk.keypoints[frame, :, :2] + 0.5) * (_TILE / dataset.size) - 0.5
        masks = {kind: records.decode_mask(pngs[frame]) for kind, pngs in chunk.masks.items()}
        tiles += [draw_keypoints(tile, points), draw_masks(tile, masks)]
    first = records.decode(dataset[indices[0]])
    kinds = ", ".join(first.masks) or "no attribute"
    line = f"{first.clip}   {len(places)} frames, {first.fps:.3g} fps, {kinds}"
    return np.concatenate([_strip([(line, (255, 255, 255))]), np.concatenate(tiles, 1)])


def _legend(title: str) -> np.ndarray:
    return _strip([(title, (255, 255, 255)), *((kind, COLOURS[kind]) for kind in COLOURS)])


def _strip(
    words: list[tuple[str, tuple]], tiles: int = 2 * _FRAMES_PER_CLIP, column: int = 0
) -> np.ndarray:
    """uint8 [strip, W, 3]: coloured words on black, above `tiles`; `column` pixels each or more."""
    picture = Image.new("RGB", (tiles * _TILE, _STRIP))
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(13)
    x = 4.0
    for word, colour in words:
        pen.text((x, 2), word, colour, font)
        x += max(pen.textlength(word, font) + 16, column)
    return np.asarray(picture)
