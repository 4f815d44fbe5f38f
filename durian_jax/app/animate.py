"""The tab Animate: photos and a driver in, what the model will see of them, a video out."""

import json
from pathlib import Path

import gradio as gr

from durian_jax.animation.job import Job
from durian_jax.animation.recording import outputs
from durian_jax.app import people, words
from durian_jax.app.line import Stopped
from durian_jax.app.options import Options, command
from durian_jax.app.people import People
from input_pipeline.dataset.cases import CaseSet
from input_pipeline.inference.inputs import MAX_ATTRIBUTES
from input_pipeline.media.pictures import write_picture

EXAMPLES = Path(__file__).parents[1] / "examples"
_HOST_FILES = ("checkpoint", "masks", "aligner", "landmarks")


class Animate:
    """Fields and handlers of the tab; `desk` is the page's."""

    def __init__(self, desk):
        self._desk = desk
        count = MAX_ATTRIBUTES if desk.animator.takes_attributes else 0
        if count:
            self._examples()
        self.people = People(desk.visits, [f"Attribute photo {i + 1}" for i in range(count)])
        if count:
            self._more()
            self._bring_examples()
        look = gr.Button("1. Look at crops and masks")
        with gr.Column(visible=False) as self.seen:
            self.notes = gr.HTML()
            self.gallery = gr.Gallery(
                label="What the model will see", columns=3, object_fit="contain", height="auto",
                buttons=["fullscreen"], format="png",
            )  # fmt: skip
            with gr.Column(visible=bool(count)):
                self.which = gr.Dropdown([], label="Mask to paint: red is where it holds")
                self.editor = gr.ImageEditor(
                    label="Paint or erase; press 1. again to see what comes of it",
                    type="numpy", format="png", sources=(), transforms=(), layers=False, buttons=[],
                    brush=gr.Brush(20, ["rgba(235, 60, 60, 0.6)"], color_mode="fixed"),
                    eraser=gr.Eraser(20), canvas_size=(512, 512), fixed_canvas=True, height=640,
                )  # fmt: skip
        with gr.Accordion("Options of motion and sampling", open=False):
            self.options = Options(desk.animator.sampling)
        with gr.Row():
            make = gr.Button("2. Animate", variant="primary", interactive=False)
            stop = gr.Button("Stop", variant="stop")
        self.now, self.wrong = gr.HTML(words.now("")), gr.HTML()
        with gr.Column(visible=False, elem_classes="result") as self.made:
            self.video = gr.Video(label="Result, with the driver's sound", interactive=False)
            self.picture = gr.Image(label="Result", interactive=False, visible=False, buttons=[])
            self.grid = gr.Video(label="Portrait, attributes, driver, result", interactive=False)
            self.files = gr.File(label="Files: video, grid, masks, settings", file_count="multiple")
            self.line = gr.Textbox(
                label="The same on the command line", lines=3, buttons=["copy"], interactive=False
            )
        given = [*self.people.components, self.editor, *self.options.components]
        told = [*self.people.lines, self.wrong]
        seen = [self.seen, self.notes, self.gallery, self.which, self.editor, make]
        look.click(self._look, given, [self.now, *told, *seen], show_progress="hidden",
                   concurrency_limit=None)  # fmt: skip
        made = [self.made, self.video, self.picture, self.grid, self.files, self.line]
        make.click(self._animate, given, [self.now, *told, *made], show_progress="hidden",
                   concurrency_limit=None)  # fmt: skip
        stop.click(desk.stop, queue=False)
        self.which.input(self._paint, [self.which, self.editor], self.editor)
        for field in self.people.components:  # what was looked at is no longer what is given
            field.change(lambda: gr.Button(interactive=False), None, make, show_progress="hidden")

    def _examples(self) -> None:
        cases = [case for case in CaseSet.read(EXAMPLES).cases if not case.interpolates]
        with gr.Row():
            gr.Markdown("Nobody at hand? Rendered people:")
            self._buttons = [
                (case, gr.Button(f"Example: {case.group}", size="sm")) for case in cases
            ]

    def _bring_examples(self) -> None:
        for case, button in self._buttons:
            kinds = [one.kind for one in case.attributes]

            def bring(request: gr.Request, case=case, kinds=kinds):
                visit, fields = self._desk.visits.of(request), range(len(kinds))
                return self.people.example(visit, EXAMPLES / case.id, kinds, fields)

            button.click(bring, None, self.people.components)

    def _more(self) -> None:
        more, shown = gr.Button("One more attribute photo", size="sm"), gr.State(2)

        def show(count):
            return min(count + 1, len(self.people.columns)), *(
                gr.Column(visible=i <= count) for i in range(len(self.people.columns))
            )

        more.click(show, shown, [shown, *self.people.columns], show_progress="hidden")

    def _split(self, values) -> tuple:
        """(values of the people, of the editor, of the options)."""
        count = len(self.people.components)
        return values[:count], values[count], values[count + 1 :]

    def _job(self, visit, given, options) -> tuple[Job, dict]:
        """The job of the fields, and how it is sampled."""
        portrait, driver, worn = self.people.chosen(given)
        job, sampling = self.options.read(options)
        masks = visit.masks
        attributes = [
            (photo, kind, *([masks[field, photo]] if (field, photo) in masks else []))
            for field, photo, kind in worn
        ]
        mask = masks.get(("portrait", portrait))
        return Job(portrait, attributes, driver, portrait_mask=mask, **job), sampling

    def _look(self, request: gr.Request, *values):
        given, painted, options = self._split(values)
        visit = self._desk.visits.of(request)
        try:
            people.keep_painted(visit, painted)
            job, sampling = self._job(visit, given, options)
            self._desk.animator.settings(job, **sampling)  # the options, too, before any work

            def read(progress):
                progress("reading photos and clip", 0, 0)
                return self._desk.animator.read(job)

            scene = yield from self._desk.follow(visit, read, len(self.people.lines) + 1, 6)
            masks = people.masks_of(scene, self.people.chosen(given)[2])
            visit.scene, visit.painted = masks, None
            first = next(iter(masks), None)
            shown = self._shown(visit, first)
            yield (
                words.now("Look at the pictures; where a mask is wrong, paint it. Then animate."),
                *[""] * (len(self.people.lines) + 1),
                gr.Column(visible=True), people.told(scene), people.pictures(scene),
                gr.Dropdown(list(masks), value=first), shown, gr.Button(interactive=True),
            )  # fmt: skip
        except Exception as error:
            yield self._failed(error, given)

    def _shown(self, visit, field: str | None):
        if field is None:
            return None
        subject, mask = visit.scene[field]
        visit.painted = field, subject, mask
        return people.to_editor(subject, mask)

    def _paint(self, field, value, request: gr.Request):
        visit = self._desk.visits.of(request)
        if people.keep_painted(visit, value):
            before, subject, mask = visit.painted
            visit.scene[before] = subject, mask
        return self._shown(visit, field)

    def _animate(self, request: gr.Request, *values):
        given, painted, options = self._split(values)
        visit = self._desk.visits.of(request)
        try:
            people.keep_painted(visit, painted)
            job, sampling = self._job(visit, given, options)
            folder = visit.new_folder()
            out = folder / f"out{job.motion_options.suffix(job.driving)}"

            def make(progress):
                (made,) = self._desk.animator.record(
                    [(job, out)], quiet=True, progress=progress, **sampling
                )
                if made.error is not None:
                    raise made.error
                return made

            made = yield from self._desk.follow(visit, make, len(self.people.lines) + 1, 6)
            files = finish(made, folder)
            still, grid = out.suffix == ".png", outputs(out, job)[1]
            line = command("animate", job, self.options.words(options), self._desk.checkpoint)
            yield (
                words.now(f"Done: {made.settings['frames']} frames."),
                *[""] * (len(self.people.lines) + 1),
                gr.Column(visible=True),
                gr.Video(None if still else str(out), visible=not still),
                gr.Image(str(out) if still else None, visible=still),
                gr.Video(None if still else str(grid), visible=not still),
                list(map(str, files)), line,
            )  # fmt: skip
        except Exception as error:
            yield self._failed(error, given)

    def _failed(self, error: Exception, given) -> tuple:
        rest = [gr.skip()] * 6
        if isinstance(error, Stopped):
            return (words.now("Stopped."), *[""] * (len(self.people.lines) + 1), *rest)
        return (words.now(""), *self.people.blame(error, given), *rest)


def finish(made, folder: Path) -> list[Path]:
    """Completes the files of a result, to be downloaded; the paths of the host go."""
    settings = {
        name: Path(str(value)).name if name in _HOST_FILES and value else value
        for name, value in made.settings.items()
    }
    written = outputs(made.path, made.job)
    text = json.dumps(settings, indent=2)
    (folder / "settings.json").write_text(words.without_folders(text) + "\n")
    written[2].unlink()
    write_picture(folder / "masks.png", made.scene.preview())
    painted = [Path(one[2]) for one in made.job.attributes if len(one) > 2]
    painted += [Path(made.job.portrait_mask)] if made.job.portrait_mask else []
    return [*written[:2], folder / "settings.json", folder / "masks.png", *painted]
