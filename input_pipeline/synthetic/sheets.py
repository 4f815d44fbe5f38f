"""Pictures for the eye: who is in a synthetic data set, and what its counterfactual cases ask."""

from pathlib import Path

import cv2
import numpy as np

from input_pipeline.dataset import records, shards
from input_pipeline.dataset.cases import CaseSet
from input_pipeline.faces import drawing
from input_pipeline.media.pictures import write_picture

_PEOPLE, _COLUMNS, _CASES = 100, 10, 20
_TILE = 144
_TIMES = (0.0, 0.5, 1.0)  # of a clip, where frames of it are shown


def draw_people(dataset: Path, settings) -> Path:
    """OUT/people.png: the first 100 people, a frame of each, over all splits."""
    wanted = range(min(settings.people, _PEOPLE))
    found = {}
    for split in shards.Dataset(dataset).metadata["records"]:
        source = shards.Dataset(dataset, split)
        for index in range(0, len(source), settings.clips):
            chunk = records.decode(source[index])
            person = int(chunk.clip.split("/")[0].removeprefix("person_"))
            if person not in wanted:
                break
            found[person] = _tile(records.decode_frame(chunk.frames[len(chunk.frames) // 2]))
    blank = np.full((_TILE, _TILE, 3), 255, np.uint8)
    tiles = [found[person] for person in wanted] + [blank] * (-len(wanted) % _COLUMNS)
    rows = [np.hstack(tiles[i : i + _COLUMNS]) for i in range(0, len(tiles), _COLUMNS)]
    write_picture(dataset / "people.png", np.vstack(rows))
    return dataset / "people.png"


def draw_cases(folder: Path) -> Path:
    """OUT/FOLDER.png: the first 20 cases of OUT/FOLDER, a row each.

    Portrait and its hidden region | attribute pictures with masks | then at three times the driver,
    the truth, and the truth with its masks and keypoints.
    """
    found = CaseSet.read(folder)
    most, rows = max(len(case.attributes) for case in found.cases), []
    for case in found.cases[:_CASES]:
        pictures = found.load(case)
        hidden = {kind: pictures.portrait_mask for kind in case.kinds[:1]}
        tiles = [_tile(pictures.portrait), drawing.draw_masks(_tile(pictures.portrait), hidden)]
        for attribute, image, mask in zip(
            case.attributes, pictures.attributes, pictures.attribute_masks
        ):
            tiles.append(drawing.draw_masks(_tile(image), {attribute.kind: mask}))
        tiles += [np.full((_TILE, _TILE, 3), 255, np.uint8)] * (most - len(case.attributes))
        for time in _TIMES:
            frame = round(time * (case.frames - 1))
            truth = _tile(pictures.truth.video[frame])
            masks = {kind: track[frame] for kind, track in pictures.truth.masks.items()}
            points = (pictures.truth.keypoints[frame, :, :2] + 0.5) * _TILE / found.size - 0.5
            marked = drawing.draw_keypoints(drawing.draw_masks(truth, masks), points)
            tiles += [_tile(pictures.driving[frame]), truth, marked]
        rows.append(np.hstack(tiles))
    path = folder.with_name(f"{folder.name}.png")
    write_picture(path, np.vstack(rows))
    return path


def _tile(image: np.ndarray) -> np.ndarray:
    shrinks = len(image) > _TILE
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return cv2.resize(image, (_TILE, _TILE), interpolation=interpolation)
