"""Fields for portrait, attribute photos and driver, and what the model will see of them."""

import html
import shutil
from pathlib import Path

import cv2
import gradio as gr
import numpy as np

from durian_jax.app import visits, words
from input_pipeline.dataset.cases import Case
from input_pipeline.errors import InputError
from input_pipeline.faces.drawing import draw_keypoints
from input_pipeline.inference.inputs import Scene
from input_pipeline.inference.subject import Subject
from input_pipeline.kinds import KINDS

EXAMPLES = Path(__file__).parents[1] / "examples"
_SIDE = 512  # pixels, of pictures to look at and of the editor
_PAINT = (235, 60, 60)
_CHANGED = 0.0005  # share of the picture: less comes from drawing a mask and reading it back


class People:
    """The fields.

    Attributes:
      components: portrait, driver, the photos, then the kinds: what handlers take.
      lines: one for each but the kinds, for what is wrong with it.
    """

    def __init__(self, tabs: visits.Visits, photos: tuple[str, ...]):
        """
        Args:
          photos: labels of the attribute photos, none for a model that takes none.
        """
        self._visits, self._count = tabs, len(photos)
        self._checks = [
            visits.check_photo,
            visits.check_driver,
            *[visits.check_photo] * len(photos),
        ]
        kinds = []
        with gr.Row():
            found = [_field("Portrait: the person in the video", _photo)]
            found.append(_field("Driver: a clip, or a photo, to follow", _clip))
        with gr.Row():
            found += [_field(label, _photo, kinds) for label in photos[:2]]
        if photos[2:]:
            with gr.Accordion("More attribute photos", open=False), gr.Row():
                found += [_field(label, _photo, kinds) for label in photos[2:]]
        self.components, self.lines = [field for field, _ in found] + kinds, [x for _, x in found]
        for (field, line), check in zip(found, self._checks):
            # Nothing of gradio opens what was not checked. Handlers give these fields plain values:
            # with an update (gr.skip, too) gradio makes a field anew, without this.
            field.preprocess = lambda given: given and getattr(given, "path", None)
            field.change(self._checked(check), field, line, show_progress="hidden")

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

    def chosen(self, values) -> tuple[str, str, list[tuple]]:
        """(portrait, driver, (number, photo, kind) of each attribute, from 1).

        Raises InputError: one is missing, or no photo or clip.
        """
        portrait, driver, *photos = files = values[: 2 + self._count]
        if not portrait:
            raise InputError("is missing: give a photo of the person", option="portrait")
        if not driver:
            raise InputError("is missing: give a clip or photo to follow", option="driving")
        for path, check in zip(files, self._checks):
            if path:
                check(path)
        worn = enumerate(zip(photos, values[len(files) :]), 1)
        return portrait, driver, [(i, *one) for i, one in worn if one[0]]

    def blame(self, error: Exception, values) -> list[str]:
        """Texts for `lines`, and one more for what belongs to none of them."""
        texts = [""] * (len(self.lines) + 1)
        place = {"portrait": 0, "driving": 1}.get(getattr(error, "option", ""), -1)
        for i, path in enumerate(values[: len(self.lines)]):
            if path and str(error).startswith(path):
                place = i
        texts[place] = words.wrong(error)
        return texts

    def example(self, visit: visits.Visit, case: Case) -> list:
        """Values of the components that show a case of EXAMPLES, with its masks."""
        own = visit.new_folder()
        shutil.copytree(EXAMPLES / case.id, own, dirs_exist_ok=True)
        photos, kinds = [None] * self._count, [KINDS[0]] * self._count
        if self._count:
            visit.masks[0, str(own / "portrait.png")] = own / "portrait_mask.png"
        for i, attribute in enumerate(case.attributes[: self._count]):
            photos[i], kinds[i] = str(own / f"attribute_{i}.png"), attribute.kind
            visit.masks[i + 1, photos[i]] = own / f"attribute_{i}_mask.png"
        return [str(own / "portrait.png"), str(own / "driving.mp4"), *photos, *kinds]


def _field(label: str, make, kinds: list | None = None) -> tuple:
    """(field, line for what is wrong with it); its kind is put to the kinds."""
    with gr.Column(min_width=280):
        found = make(label), gr.HTML()
        if kinds is not None:
            kinds.append(gr.Dropdown(KINDS, value=KINDS[0], label=f"{label}: take its"))
    return found


def masks_of(scene: Scene, worn: list[tuple]) -> dict[int, tuple]:
    """(subject, bool [S, S]) of each mask that can be painted: the portrait's is 0, the others have
    their numbers.

    worn: (number, photo, kind); one that another covers is not in the scene.
    """
    if "portrait_mask" not in scene.batch:
        return {}
    found = {0: (scene.portrait, scene.own)}
    for part in (scene, scene.towards) if scene.towards else (scene,):
        for (source, kind), mask in zip(part.sources, part.batch["attribute_mask"]):
            shown = (str(source.path), kind)
            number = next(i for i, *one in worn if (*one,) == shown and i not in found)
            found[number] = source, mask
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
    return shown + [(_large(tile), caption) for caption, tile in scene.tiles()[1:]]


def told(scene: Scene) -> str:
    """What the user should know about the inputs."""
    frames = len(scene.motion.keypoints)
    lines = [f"driver: {frames} frames, {float(scene.motion.fps):g} a second", *scene.notes]
    return "".join(f"<p>{html.escape(words.without_folders(line))}</p>" for line in lines)


def to_editor(subject: Subject, mask: np.ndarray) -> dict:
    """A photo and its mask, bool [n, n], as the editor takes them."""
    paint = np.zeros((_SIDE, _SIDE, 4), np.uint8)
    paint[_grown(mask)] = (*_PAINT, 150)
    crop = subject.crop.apply(subject.photo(), _SIDE)
    return {"background": crop, "layers": [paint], "composite": None}


def keep_painted(visit: visits.Visit, editors: list[dict | None]) -> None:
    """Saves what was painted since the editors were filled; they have the numbers of the masks."""
    for number, value in enumerate(editors):
        if number not in visit.seen or not value or not value["layers"]:
            continue
        subject, before = visit.seen[number]
        painted = np.any([layer[..., 3] > 64 for layer in value["layers"]], axis=0)
        painted = cv2.resize(painted.astype(np.uint8), (_SIDE, _SIDE)) > 0
        if (painted != _grown(before)).mean() < _CHANGED:
            continue
        name = f"attribute_{number}" if number else "portrait"
        path = visit.new_folder() / f"{name}_mask.png"
        subject.write_mask(path, painted)
        visit.masks[number, str(subject.path)] = path
        visit.seen[number] = subject, painted


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


def _large(image: np.ndarray) -> np.ndarray:
    return cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)


def _with_points(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    scale = _SIDE / len(image)
    return draw_keypoints(_large(image), (points + 0.5) * scale - 0.5, 2)
