"""What the tabs that make videos have in common: fields, a look at the masks, options, a job."""

import json
from pathlib import Path

import gradio as gr

from durian_jax.animation.job import Job
from durian_jax.animation.recording import outputs
from durian_jax.app import people, words
from durian_jax.app.line import Stopped
from durian_jax.app.options import Options
from durian_jax.app.people import People
from input_pipeline.dataset.cases import Case
from input_pipeline.media.pictures import write_picture

EXAMPLES = Path(__file__).parents[1] / "examples"
_HOST_FILES = ("checkpoint", "masks", "aligner", "landmarks")


class Studio:
    """A tab, built where it is made. A subclass gives a job and makes its video.

    Attributes:
      desk: of the page. people, options: the fields.
    """

    verb = ""  # the button that makes the video

    def __init__(self, desk, photos: list[str], cases: list[Case], motion: tuple[str, ...] = ()):
        """
        Args:
          photos: labels of the attribute photos. cases: examples to click.
          motion: the options of motion that there are; default all.
        """
        self.desk = desk
        with gr.Row():
            gr.Markdown("No photos? Rendered people:")
            examples = [(case, gr.Button(f"Example: {case.group}", size="sm")) for case in cases]
        self.people = People(desk.visits, photos)
        for case, button in examples:
            button.click(self._example(case), None, self.people.components)
        look = gr.Button("1. Look at crops and masks")
        with gr.Column(visible=False) as seen:
            notes = gr.HTML()
            gallery = gr.Gallery(
                label="What the model will see", columns=3, object_fit="contain", height="auto",
                buttons=["fullscreen"], format="png",
            )  # fmt: skip
            with gr.Column(visible=bool(photos)):
                which = gr.Dropdown([], label="Mask to paint: red is where it holds")
                editor = gr.ImageEditor(
                    label="Paint or erase; press 1. again to see what comes of it",
                    type="numpy", format="png", sources=(), transforms=(), layers=False, buttons=[],
                    brush=gr.Brush(20, ["rgba(235, 60, 60, 0.6)"], color_mode="fixed"),
                    eraser=gr.Eraser(20), canvas_size=(512, 512), fixed_canvas=True, height=600,
                )  # fmt: skip
        more = self.fields()
        with gr.Accordion("Options of motion and sampling", open=False):
            self.options = Options(desk.animator.sampling, motion)
        with gr.Row():
            make = gr.Button(f"2. {self.verb}", variant="primary", interactive=False)
            stop = gr.Button("Stop", variant="stop")
        now, wrong = gr.HTML(words.now("")), gr.HTML()
        with gr.Column(visible=False, elem_classes="result") as made:
            results = [made, *self.results()]
        self._more = len(more)
        given = [*self.people.components, editor, *more, *self.options.components]
        told = [now, *self.people.lines, wrong]
        for button, handler, shown in (
            (look, self._look, [seen, notes, gallery, which, editor, make]),
            (make, self._make, results),
        ):
            button.click(
                self._guarded(handler, len(shown)), given, [*told, *shown],
                show_progress="hidden", concurrency_limit=None,
            )  # fmt: skip
        stop.click(desk.stop, queue=False)
        which.input(self._paint, [which, editor], editor)
        for field in self.people.components:  # what was looked at is no longer what is given
            field.change(lambda: gr.Button(interactive=False), None, make, show_progress="hidden")

    def fields(self) -> list:
        """More components that `job` is given the values of."""
        return []

    def results(self) -> list:
        """The components of what `make` returns."""
        raise NotImplementedError

    def job(self, worn: list[tuple], fixed: dict, more: list) -> Job:
        """The job. worn: (photo, kind) or (photo, kind, mask). fixed: all else that it has."""
        raise NotImplementedError

    def make(self, job: Job, folder: Path, more: list, progress, sampling: dict) -> tuple:
        """(what is to be said, line for the command line as `command` takes it, results)."""
        raise NotImplementedError

    def _example(self, case: Case):
        kinds = [one.kind for one in case.attributes]

        def bring(request: gr.Request):
            visit = self.desk.visits.of(request)
            return self.people.example(visit, EXAMPLES / case.id, kinds)

        return bring

    def _guarded(self, handler, count: int):
        """A handler whose generator ends in values for its own outputs, after those for the lines:
        the lines say what it waits for, or what is wrong."""
        clear, kept = [""] * (len(self.people.lines) + 1), [gr.skip()] * count

        def run(request: gr.Request, *values):
            visit = self.desk.visits.of(request)
            given = values[: len(self.people.components)]
            try:
                work = handler(visit, *values)
                while True:
                    try:
                        yield (next(work), *clear, *kept)
                    except StopIteration as end:
                        said, shown = end.value
                        yield (words.now(said), *clear, *shown)
                        return
            except Stopped:
                yield (words.now("Stopped."), *clear, *kept)
            except Exception as error:
                yield (words.now(""), *self.people.blame(error, given), *kept)

        return run

    def _asked(self, visit, values) -> tuple[Job, dict, list, tuple]:
        """The job of the fields, how it is sampled, and values of `fields` and of the options."""
        count = len(self.people.components)
        people.keep_painted(visit, values[count])
        more, options = values[count + 1 :][: self._more], values[count + 1 + self._more :]
        portrait, driver, worn = self.people.chosen(values[:count])
        fixed, sampling = self.options.read(options)
        fixed |= {"portrait": portrait, "driving": driver}
        fixed |= {"portrait_mask": visit.masks.get(("portrait", portrait))}
        masks = [visit.masks.get((field, photo)) for field, photo, _ in worn]
        worn = [(*one[1:], *([mask] if mask else [])) for one, mask in zip(worn, masks)]
        return self.job(worn, fixed, more), sampling, more, options

    def _look(self, visit, *values):
        job, sampling, *_ = self._asked(visit, values)
        self.desk.animator.settings(job, **sampling)  # raises what is wrong with the options

        def read(progress):
            progress("reading photos and clip", 0, 0)
            return self.desk.animator.read(job)

        scene = yield from self.desk.follow(visit, read)
        worn = self.people.chosen(values[: len(self.people.components)])[2]
        visit.masks_seen, visit.painted = people.masks_of(scene, worn), None
        first = next(iter(visit.masks_seen), None)
        return "Look at the pictures; where a mask is wrong, paint it. Then go on.", (
            gr.Column(visible=True), people.told(scene), people.pictures(scene),
            gr.Dropdown(list(visit.masks_seen), value=first), self._editor(visit, first),
            gr.Button(interactive=True),
        )  # fmt: skip

    def _editor(self, visit, field: str | None):
        if field is None:
            return None
        visit.painted = field, *visit.masks_seen[field]
        return people.to_editor(*visit.masks_seen[field])

    def _paint(self, field, value, request: gr.Request):
        visit = self.desk.visits.of(request)
        if people.keep_painted(visit, value):
            before, subject, mask = visit.painted
            visit.masks_seen[before] = subject, mask
        return self._editor(visit, field)

    def _make(self, visit, *values):
        job, sampling, more, options = self._asked(visit, values)
        folder, given = visit.new_folder(), self.options.words(options)

        def work(progress):
            return self.make(job, folder, more, progress, sampling, given)

        said, shown = yield from self.desk.follow(visit, work)
        return said, (gr.Column(visible=True), *shown)


def finish(made, folder: Path) -> list[str]:
    """Completes the files of a result, to be downloaded; the folders of the host are not named."""
    settings = {
        name: Path(str(value)).name if name in _HOST_FILES and value else value
        for name, value in made.settings.items()
    }
    written = outputs(made.path, made.job)
    text = json.dumps(settings, indent=2)
    (folder / "settings.json").write_text(words.without_folders(text) + "\n")
    written[2].unlink()
    write_picture(folder / "masks.png", made.scene.preview())
    painted = [one[2] for one in made.job.attributes + made.job.towards if len(one) > 2]
    painted += [made.job.portrait_mask] if made.job.portrait_mask else []
    return [*map(str, [*written[:2], folder / "settings.json", folder / "masks.png", *painted])]
