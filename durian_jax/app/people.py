"""Fields for portrait, attribute photos and driver, and what the model will see of them."""

import html
import shutil
from pathlib import Path

import cv2
import gradio as gr
import numpy as np

from durian_jax.app import visits, words
from input_pipeline.errors import InputError
from input_pipeline.faces.drawing import draw_keypoints, draw_masks
from input_pipeline.inference.inputs import Scene
from input_pipeline.kinds import KINDS

_SIDE = 512  # pixels, of pictures to look at and of the editor
_PAINT = (235, 60, 60)
_CHANGED = 0.0005  # share of the picture: less comes from drawing a mask and reading it back


class People:
    """The fields, each with a line for what is wrong with it.

    Attributes:
      components: portrait, driver, the photos, then the kinds: what handlers take.
      lines: one for each but the kinds.
    """

    def __init__(self, tabs: visits.Visits, photos: list[str]):
        """
        Args:
          photos: labels of the attribute photos, none for a model that takes none.
        """
        self._visits, self.count = tabs, len(photos)
        with gr.Row():
            with gr.Column(min_width=280):
                portrait, told = _photo("Portrait: the person in the video")
                self.lines = [told]
            with gr.Column(min_width=280):
                driver = gr.File(
                    label="Driver: a clip (or photo) whose motion the person follows",
                    file_types=["video", "image"], height=180,
                )  # fmt: skip
                self.lines.append(gr.HTML())
        found, kinds, self.columns = [], [], []
        with gr.Row():
            for i, label in enumerate(photos):
                with gr.Column(min_width=280, visible=i < 2) as column:
                    photo, told = _photo(label)
                    kinds.append(gr.Dropdown(KINDS, value=KINDS[0], label=f"{label}: take its"))
                found.append(photo)
                self.lines.append(told)
                self.columns.append(column)
        self.components = [portrait, driver, *found, *kinds]
        if self.count > 2:
            self._add_more()
        checks = [visits.check_photo, visits.check_driver, *[visits.check_photo] * self.count]
        for field, line, check in zip(self.components, self.lines, checks):
            field.preprocess = lambda given: given and getattr(given, "path", None)
            field.change(self._checked(check), field, line, show_progress="hidden")

    def _add_more(self) -> None:
        more, shown = gr.Button("One more attribute photo", size="sm"), gr.State(2)

        def show(count):
            count = min(count + 1, len(self.columns))
            return count, *(gr.Column(visible=i < count) for i in range(len(self.columns)))

        more.click(show, shown, [shown, *self.columns], show_progress="hidden")

    def _checked(self, check):
        def run(path, request: gr.Request):
            if path is None:
                return ""
            self._visits.of(request).uploads.add(path)
            try:
                check(path)
            except Exception as error:
                return words.wrong(words.tell(error))
            return ""

        return run

    def chosen(self, values) -> tuple[str, str, list[tuple]]:
        """(portrait, driver, (field, photo, kind) of each attribute). InputError: none is there."""
        portrait, driver, *rest = values
        if not portrait:
            raise InputError("is missing: give a photo of the person", option="portrait")
        if not driver:
            raise InputError("is missing: give a clip or photo to follow", option="driving")
        worn = [
            (f"photo {i + 1}", photo, kind)
            for i, (photo, kind) in enumerate(zip(rest[: self.count], rest[self.count :]))
            if photo
        ]
        for path in (portrait, driver, *(photo for _, photo, _ in worn)):
            (visits.check_driver if path == driver else visits.check_photo)(path)
        return portrait, driver, worn

    def blame(self, error: Exception, values) -> list[str]:
        """Texts for `lines`, and one more for what belongs to none of them."""
        said, texts = str(error), [""] * (len(self.lines) + 1)
        names = {"portrait": 0, "driving": 1}
        place = names.get(getattr(error, "option", ""), len(self.lines))
        for i, path in enumerate(values[: len(self.lines)]):
            if path and said.startswith(str(path)):
                place = i
        texts[place] = words.wrong(words.tell(error))
        return texts

    def example(self, visit: visits.Visit, folder: Path, kinds: list[str]) -> list:
        """Values of the components that show a case of a case folder, with its masks."""
        own = visit.new_folder()
        shutil.copytree(folder, own, dirs_exist_ok=True)
        photos, chosen = [None] * self.count, [KINDS[0]] * self.count
        visit.masks["portrait", str(own / "portrait.png")] = own / "portrait_mask.png"
        for i, kind in enumerate(kinds):
            photos[i], chosen[i] = str(own / f"attribute_{i}.png"), kind
            visit.masks[f"photo {i + 1}", photos[i]] = own / f"attribute_{i}_mask.png"
        return [str(own / "portrait.png"), str(own / "driving.mp4"), *photos, *chosen]


def masks_of(scene: Scene, worn: list[tuple]) -> dict[str, tuple]:
    """(subject, bool [S, S]) of each mask that can be painted, by its field.

    worn: (field, photo, kind); one that another covers is not in the scene.
    """
    if "portrait_mask" not in scene.batch:
        return {}
    found, rest = {"portrait": (scene.portrait, scene.own)}, list(worn)
    for part in (scene, scene.towards) if scene.towards else (scene,):
        for (source, kind), mask in zip(part.sources, part.batch["attribute_mask"]):
            match = next(one for one in rest if one[1:] == (str(source.path), kind))
            rest.remove(match)
            found[match[0]] = source, mask
    return found


def pictures(scene: Scene) -> list[tuple[np.ndarray, str]]:
    """What the model will see: pictures with their captions."""
    size = len(scene.portrait.image)
    points = scene.portrait.keypoints[:, :2]
    driver = next(scene.motion.frames(size))
    moved = scene.motion.crop.points(scene.motion.keypoints[0], size)
    shown = [
        (_with_points(scene.portrait.image, points), "portrait: crop and keypoints"),
        (_with_points(driver, moved[:, :2]), "driver: first frame"),
    ]
    if "portrait_mask" in scene.batch:
        own = draw_masks(_large(scene.portrait.image), {"hair": scene.own})
        shown.append((own, "portrait: its own attribute"))
        for (source, kind), mask, aligned in zip(
            scene.sources, scene.batch["attribute_mask"], scene.aligned
        ):
            shown.append((draw_masks(_large(source.image), {kind: mask}), f"{kind}: what is taken"))
            covered = draw_masks(_large(scene.portrait.image), {kind: aligned})
            shown.append((covered, f"{kind}: where it will be"))
        shown.append((_large(scene.batch["portrait"]), "what is left of the portrait"))
    more = pictures(scene.towards)[3:-1] if scene.towards else []
    return shown + [(picture, f"towards {caption}") for picture, caption in more]


def told(scene: Scene) -> str:
    """What the user should know about the inputs."""
    frames = len(scene.motion.keypoints)
    lines = [f"driver: {frames} frames, {float(scene.motion.fps):g} a second", *scene.notes]
    return "".join(f"<p>{html.escape(words.without_folders(line))}</p>" for line in lines)


def to_editor(subject, mask: np.ndarray) -> dict:
    """Photo and mask as the editor takes them."""
    crop = subject.crop.apply(subject.photo(), _SIDE)
    paint = np.zeros((_SIDE, _SIDE, 4), np.uint8)
    paint[_grown(mask)] = (*_PAINT, 150)
    return {"background": crop, "layers": [paint], "composite": None}


def from_editor(value: dict | None) -> np.ndarray | None:
    """bool [S, S]: where the editor is painted."""
    if not value or not value.get("layers"):
        return None
    return np.any([layer[..., 3] > 64 for layer in value["layers"]], axis=0)


def keep_painted(visit: visits.Visit, value: dict | None) -> bool:
    """Saves what was painted since the editor was filled; whether there was anything."""
    painted = from_editor(value)
    if visit.painted is None or painted is None:
        return False
    field, subject, before = visit.painted
    shown = cv2.resize(painted.astype(np.uint8), (_SIDE, _SIDE)) > 0
    if (shown != _grown(before)).mean() < _CHANGED:
        return False
    path = visit.new_folder() / f"{Path(subject.path).stem}_mask.png"
    subject.write_mask(path, shown)
    visit.masks[field, str(subject.path)] = path
    visit.painted = field, subject, shown
    return True


def _photo(label: str) -> tuple:
    photo = gr.Image(
        label=label, type="filepath", sources=["upload", "webcam", "clipboard"], height=220,
        buttons=[],
    )  # fmt: skip
    return photo, gr.HTML()


def _grown(mask: np.ndarray) -> np.ndarray:
    """bool at the size of the editor."""
    return cv2.resize(mask.astype(np.float32), (_SIDE, _SIDE)) > 0.5


def _large(image: np.ndarray) -> np.ndarray:
    return cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)


def _with_points(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    scale = _SIDE / len(image)
    return draw_keypoints(_large(image), (points + 0.5) * scale - 0.5, 2)
