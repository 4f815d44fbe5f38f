"""Fields for portrait, attribute photos and driver, and what the model will see of them."""

import html
import shutil
from pathlib import Path

import cv2
import gradio as gr
import numpy as np

from durian_jax.app import visits, words
from durian_jax.app.field import Field
from input_pipeline.dataset.cases import Case
from input_pipeline.errors import InputError
from input_pipeline.faces.drawing import draw_keypoints
from input_pipeline.inference.inputs import Scene
from input_pipeline.kinds import KINDS
from input_pipeline.media.pictures import resize

EXAMPLES = Path(__file__).parents[1] / "examples"
_SIDE = 512  # pixels, of pictures to look at and of the editor
_PAINT = (235, 60, 60)
_CHANGED = 0.0005  # share of the picture: less comes from drawing a mask and reading it back


class People:
    """The fields.

    Attributes:
      fields: portrait, driver, then the photos.
      kinds: a component for each of the photos.
    """

    def __init__(self, tabs: visits.Visits, photos: tuple[str, ...], needed: int = 0):
        """
        Args:
          photos: labels of the attribute photos, none for a model that takes none.
          needed: how many of them must be given.
        """
        self._visits, self._needed = tabs, 2 + needed
        self.fields, self._checks, self.kinds = [], [], []
        with gr.Row():
            self._add("portrait", "Portrait: the person in the video", _photo)
            self._add("driving", "Driver: a clip, or a photo, to follow", _clip)
        with gr.Row():
            for label in photos[:2]:
                self._add(label, label, _photo)
        if photos[2:]:
            with gr.Accordion("More attribute photos", open=False), gr.Row():
                for label in photos[2:]:
                    self._add(label, label, _photo)

    def _add(self, name: str, label: str, make) -> None:
        """Adds a field and, where it is an attribute's, its kind."""
        check = visits.check_driver if make is _clip else visits.check_photo
        self._checks.append(check)
        with gr.Column(min_width=280):
            self.fields.append(field := Field(name, make(label)))
            # Nothing of gradio opens what was not checked. Handlers give these fields plain values:
            # with an update (gr.skip, too) gradio makes a field anew, without this.
            field.component.preprocess = lambda given: given and getattr(given, "path", None)
            field.component.change(
                self._checked(check), field.component, field.line, show_progress="hidden"
            )
            if name == label:
                self.kinds.append(gr.Dropdown(KINDS, value=KINDS[0], label=f"{label}: take its"))

    def _checked(self, check):
        def run(path, request: gr.Request):
            if path is None:
                return ""
            self._visits.of(request).uploads.add(path)
            try:
                check(path)
            except Exception as error:
                return words.wrong(error)
            return ""

        return run

    def chosen(self, files: list, kinds: list) -> tuple[str, str, list[tuple]]:
        """(portrait, driver, (number, photo, kind) of each attribute, from 1) of the values.

        Raises InputError: one is missing, or no photo or clip.
        """
        for i, (field, check, path) in enumerate(zip(self.fields, self._checks, files)):
            if path:
                check(path)
            elif i < self._needed:
                what = "clip or photo to follow" if i == 1 else "photo"
                raise InputError(f"is missing: give a {what}", option=field.name)
        portrait, driver, *photos = files
        worn = enumerate(zip(photos, kinds), 1)
        return portrait, driver, [(i, *one) for i, one in worn if one[0]]

    def example(self, visit: visits.Visit, case: Case) -> list:
        """Values of the components that show a case of EXAMPLES, with its masks."""
        own = visit.new_folder()
        # New files: those of the package are older than what is kept.
        shutil.copytree(EXAMPLES / case.id, own, dirs_exist_ok=True, copy_function=shutil.copyfile)
        count = len(self.kinds)
        photos, kinds = [None] * count, [KINDS[0]] * count
        shown = case.attributes[:count]
        if count:
            worn = frozenset(attribute.kind for attribute in shown)
            visit.masks[0, str(own / "portrait.png"), worn] = own / "portrait_mask.png"
        for i, attribute in enumerate(shown):
            photos[i], kinds[i] = str(own / f"attribute_{i}.png"), attribute.kind
            visit.masks[i + 1, photos[i], kinds[i]] = own / f"attribute_{i}_mask.png"
        return [str(own / "portrait.png"), str(own / "driving.mp4"), *photos, *kinds]


def masks_of(scene: Scene, worn: list[tuple]) -> dict[int, tuple]:
    """(subject, kind, bool [S, S]) of each mask that can be painted: the portrait's is 0, of all
    kinds, the others have their numbers.

    worn: (number, photo, kind); one that another covers is not in the scene.
    """
    if "portrait_mask" not in scene.batch:
        return {}
    found = {0: (scene.portrait, frozenset(kind for *_, kind in worn), scene.own)}
    for part in (scene, scene.towards) if scene.towards else (scene,):
        for (source, kind), mask in zip(part.sources, part.batch["attribute_mask"]):
            shown = (str(source.path), kind)
            number = next(i for i, *one in worn if (*one,) == shown and i not in found)
            found[number] = source, kind, mask
    return found


def pictures(scene: Scene) -> list[tuple[np.ndarray, str]]:
    """What the model will see: pictures with their captions."""
    size = len(scene.portrait.image)
    points = scene.portrait.keypoints[:, :2]
    moved = scene.motion.crop.points(scene.motion.keypoints[0], size)[:, :2]
    shown = [
        (_with_points(scene.portrait.image, points), "portrait: crop and keypoints"),
        (_with_points(next(scene.motion.frames(size)), moved), "driver: first frame"),
    ]
    return shown + [(resize(tile, _SIDE), caption) for caption, tile in scene.tiles()[1:]]


def told(scene: Scene) -> str:
    """What the user should know about the inputs."""
    frames = len(scene.motion.keypoints)
    lines = [f"driver: {frames} frames, {float(scene.motion.fps):g} a second", *scene.notes]
    return "".join(f"<p>{html.escape(words.without_folders(line))}</p>" for line in lines)


def to_editor(seen: tuple) -> dict:
    """A photo and its mask, one of `masks_of`, as the editor takes them."""
    subject, _, mask = seen
    paint = np.zeros((_SIDE, _SIDE, 4), np.uint8)
    paint[_grown(mask)] = (*_PAINT, 150)
    crop = subject.crop.apply(subject.photo(), _SIDE)
    return {"background": crop, "layers": [paint], "composite": None}


def keep_painted(visit: visits.Visit, verb: str, editors: list[dict | None]) -> None:
    """Saves what was painted since the editors of a studio were filled; they have the numbers of
    the masks."""
    seen = visit.seen.get(verb, {})
    for number, value in enumerate(editors):
        if number not in seen or not value or not value["layers"]:
            continue
        subject, kind, before = seen[number]
        painted = np.any([layer[..., 3] > 64 for layer in value["layers"]], axis=0)
        painted = cv2.resize(painted.astype(np.uint8), (_SIDE, _SIDE)) > 0
        if (painted != _grown(before)).mean() < _CHANGED:
            continue
        name = f"attribute_{number}" if number else "portrait"
        path = visit.new_folder() / f"{name}_mask.png"
        subject.write_mask(path, painted)
        visit.masks[number, str(subject.path), kind] = path
        seen[number] = subject, kind, painted


def _photo(label: str) -> gr.Image:
    return gr.Image(
        label=label, alt_text=label, type="filepath", height=220, buttons=[],
        sources=["upload", "webcam", "clipboard"],
    )  # fmt: skip


def _clip(label: str) -> gr.File:
    return gr.File(label=label, file_types=["video", "image"], height=180)


def _grown(mask: np.ndarray) -> np.ndarray:
    """bool at the size of the editor."""
    return cv2.resize(mask.astype(np.float32), (_SIDE, _SIDE)) > 0.5


def _with_points(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    scale = _SIDE / len(image)
    return draw_keypoints(resize(image, _SIDE), (points + 0.5) * scale - 0.5, 2)
