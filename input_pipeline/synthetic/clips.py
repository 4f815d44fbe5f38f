"""People -> clips on disk, as if somebody had filmed them: `durian synth --videos`.

    OUT/person_000000/clip_000.mp4              the frames, lossless
    OUT/masks/person_000000/clip_000/hair/00000.png   white where the attribute shows
    OUT/masks/truth.json                        what rendered them
    OUT/labels.csv                              what each clip shows well, whom, and its split
    OUT/control/person_000000/clip_000.mp4      on demand, somebody else with its motion

`durian prepare OUT --labels OUT/labels.csv --masks truth:OUT/masks --control OUT/control` reads
all of it.
"""

import csv
import functools
import io
import itertools
import json
from fractions import Fraction
from pathlib import Path

from tqdm import tqdm

from input_pipeline.dataset import records
from input_pipeline.dataset.store import Store
from input_pipeline.errors import InputError
from input_pipeline.kinds import KINDS, MAX_BAD_MASKS, MIN_ATTRIBUTE_AREA
from input_pipeline.media import video
from input_pipeline.synthetic import dataset, population
from input_pipeline.synthetic.population import Settings
from input_pipeline.synthetic.renderer import render


def write_clips(out: str | Path, settings: Settings) -> int:
    """Renders all clips; returns their number. Clips that are there already are kept, so that a
    stopped run resumes; equal settings give equal bytes.

    Raises:
      InputError: `out` is not writable, or holds clips of other settings or labels of other clips;
        settings of keypoints, which clips do not have.
    """
    if settings.tracked:
        raise InputError("clips have no keypoints, durian prepare finds them", option="tracked")
    store = Store.at(out)
    facts = {"renderer": settings.tools()["renderer"], "settings": settings.facts()}
    for name in ("people", "clips", "control"):  # of these there may be more
        facts["settings"].pop(name, None)
    if not store.exists("masks/truth.json"):
        if store.exists("labels.csv"):
            raise InputError(f"{out}: holds a labels.csv of something else; choose a new folder")
    elif json.loads(store.read("masks/truth.json")) != facts:
        raise InputError(f"{out}: holds clips of other settings; choose a new folder")
    store.make("masks")
    store.write("masks/truth.json", json.dumps(facts, indent=2).encode())
    dataset.compile_renderer(settings)
    wanted = list(itertools.product(range(settings.people), range(settings.clips)))
    with tqdm(total=len(wanted), unit="clip", desc="rendering") as bar:
        write = functools.partial(_write_clip, Path(out), settings)
        rows = list(dataset.in_parallel(write, wanted, bar))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["file", *KINDS, "identity", "split"])
    table.writerows(rows)
    store.write("labels.csv", text.getvalue().encode())
    return len(rows)


def _write_clip(out: Path, settings: Settings, index: int, clip: int) -> list[str]:
    """Writes masks, then the clip; returns its row of the labels."""
    name, person = population.clip_name(index, clip), population.draw_person(settings, index)
    film, masks = out / f"{name}.mp4", out / "masks" / name
    motion = population.draw_motion(settings, index, clip)
    if not film.exists():
        pictures = render.render_clip(person, motion, settings.size, settings.oversample)
        for kind, track in render.masks(pictures, person).items():
            # A strand of hair under a hat is not hair to learn from: prepare would refuse the clip.
            if (track.mean((1, 2)) < MIN_ATTRIBUTE_AREA).mean() > MAX_BAD_MASKS:
                continue
            folder = masks / kind
            folder.mkdir(parents=True, exist_ok=True)
            for frame, mask in enumerate(track):
                (folder / f"{frame:05d}.png").write_bytes(records.encode_mask(mask))
        _write_film(film, pictures, settings)
    control = out / "control" / f"{name}.mp4"
    if settings.control and not control.exists():
        control.parent.mkdir(parents=True, exist_ok=True)
        other = population.draw_performer(settings, index, clip)
        pictures = render.render_clip(other, motion, settings.size, settings.oversample)
        _write_film(control, pictures, settings)
    shown = ["yes" if (masks / kind).is_dir() else "no" for kind in KINDS]
    return [f"{name}.mp4", *shown, population.identity(settings, index), population.split_of(index)]


def _write_film(path: Path, pictures: render.Picture, settings: Settings) -> None:
    frames, fps = render.to_uint8(pictures.colour), Fraction(settings.fps).limit_denominator(1001)
    video.write_video(path, frames, fps, lossless=True, reproducible=True)
