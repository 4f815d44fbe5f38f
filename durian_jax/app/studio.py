"""What the tabs that make videos have in common: fields, a look at the masks, options, a job."""

import dataclasses
import itertools
import json
import time
from pathlib import Path

import gradio as gr

from durian_jax.animation import interpolation
from durian_jax.animation.animator import Animator, Outcome
from durian_jax.animation.job import Job
from durian_jax.animation.recording import outputs
from durian_jax.app import people, words
from durian_jax.app.field import Field, blame
from durian_jax.app.line import Line, Stopped
from durian_jax.app.options import Options, command
from durian_jax.app.visits import Visits
from input_pipeline.dataset.cases import CaseSet
from input_pipeline.media.pictures import write_picture

# In the browser: by way of the server it could come late, after the next look.
_OFF = "() => ({__type__: 'update', interactive: false})"
_HOST_FILES = ("checkpoint", "masks", "aligner", "landmarks")


class Studio:
    """A tab, built where it is made. A subclass says which job its fields ask for.

    Attributes:
      verb: the button that makes the video. photos: labels of the attribute photos.
      needed: how many of these must be given.
      motion: the options of motion that there are; none means all.
    """

    verb, photos, needed, motion = "", (), 0, ()

    def __init__(self, animator: Animator, visits: Visits, line: Line, given: dict[str, str]):
        """
        Args:
          visits, line, given: of the page.
        """
        self._animator, self._visits, self._line = animator, visits, line
        self._given = given
        photos = self.photos if animator.takes_attributes else ()
        cases = CaseSet.read(people.EXAMPLES).cases
        cases = [case for case in cases if case.interpolates == bool(self.needed)]
        with gr.Row():
            gr.Markdown("No photos? Rendered people:")
            names = [f"Example: {case.group}" for case in cases] if photos else ["Example"]
            buttons = [gr.Button(name, size="sm") for name in names]
        self._people = people.People(visits, photos, self.needed)
        own = [*(field.component for field in self._people.fields), *self._people.kinds]
        for case, button in zip(cases, buttons):
            button.click(self._example(case), None, own)
        look = gr.Button("1. Look at crops and masks")
        with gr.Column(visible=False) as seen:
            notes, gallery = gr.HTML(), _gallery()
            names = ("portrait", *photos) if photos else ()
            boxes, editors = zip(*map(_editor, names)) if names else ((), ())
        more = self.more()
        with gr.Accordion("Options of motion and sampling", open=False) as folded, gr.Row():
            self._options = Options(animator.sampling, self.motion)
        with gr.Row():
            make = gr.Button(f"2. {self.verb}", variant="primary", interactive=False)
            stop = gr.Button("Stop", variant="stop")
        now, wrong = gr.HTML(words.now("")), gr.HTML()
        with gr.Column(visible=False, elem_classes="narrow") as made:
            results = _results()
        parts = [self._people.fields, more, self._options.fields, self._people.kinds, editors]
        self._counts, self._fields = [*map(len, parts)], [*itertools.chain(*parts[:3])]
        given = [*(field.component for field in self._fields), *self._people.kinds, *editors]
        told = [now, folded, *(field.line for field in self._fields), wrong]
        for button, handler, shown in (
            (look, self._look, [seen, notes, gallery, *boxes, *editors, make]),
            (make, self._make, [made, *results]),
        ):
            button.click(
                self._guarded(handler, len(shown)), given, [*told, *shown],
                show_progress="hidden", concurrency_limit=None,
            )  # fmt: skip
        stop.click(self._stop, queue=False)
        for one in own:  # what was looked at is no longer what is given
            one.change(None, None, make, js=_OFF)

    def more(self) -> list[Field]:
        """More fields, whose values `job` is given."""
        return []

    def job(self, worn: list[tuple], fixed: dict, more: list) -> tuple[Job, bool, list[str]]:
        """The job, whether it passes its alphas over time, and its own words on the command line.

        Args:
          worn: (photo, kind) or (photo, kind, mask). fixed: all else that a job has.
        """
        raise NotImplementedError

    def _example(self, case):
        def bring(request: gr.Request):
            return self._people.example(self._visits.of(request), case)

        return bring

    def _stop(self, request: gr.Request) -> None:
        self._line.stop(self._visits.of(request))

    def _guarded(self, handler, count: int):
        """What runs a handler's work when it is its turn: the lines say what is going on, or what
        is wrong; then come the values of its own outputs."""
        clear, kept = [gr.skip(), *[""] * (len(self._fields) + 1)], [gr.skip()] * count

        def run(request: gr.Request, *values):
            visit = self._visits.of(request)
            try:
                for text, found in self._line.follow(visit, handler(visit, *values)):
                    visit.used = time.time()
                    if text is None:
                        said, shown = found
                        yield (words.now(said), *clear, *visit.filed(shown))
                    else:
                        yield (words.now(text, found), *clear, *kept)
            except Stopped:
                yield (words.now("Stopped."), *clear, *kept)
            except Exception as error:
                lines = blame(self._fields, values, error)
                hidden = any(lines[-1 - self._counts[2] : -1])  # beside an option
                folded = gr.Accordion(open=True) if hidden else gr.skip()
                yield (words.now(""), folded, *lines, *kept)

        return run

    def _asked(self, visit, values) -> tuple[Job, dict, bool, list[str], list[tuple]]:
        """(job, how it is sampled, whether its alphas are passed over time, words of the command
        line for what differs from the defaults, attributes as `People.chosen`) of the fields."""
        rest = iter(values)
        files, more, options, kinds, editors = ([*itertools.islice(rest, n)] for n in self._counts)
        people.keep_painted(visit, self.verb, editors)
        portrait, driver, worn = self._people.chosen(files, kinds)
        fixed, sampling = self._options.read(options)
        fixed |= {"portrait": portrait, "driving": driver}
        shown = frozenset(kind for *_, kind in worn)
        fixed |= {"portrait_mask": visit.masks.get((0, portrait, shown))}
        masked = [
            (photo, kind, *filter(None, [visit.masks.get((number, photo, kind))]))
            for number, photo, kind in worn
        ]
        job, over_time, flags = self.job(masked, fixed, more)
        return job, sampling, over_time, flags + self._options.words(options), worn

    def _look(self, visit, *values):
        job, sampling, over_time, *_, worn = self._asked(visit, values)
        if not over_time:  # each alpha is a job of its own, and the masks are the same
            job = dataclasses.replace(job, alpha=job.alpha[:1])
        self._animator.settings(job, **sampling)  # raises what is wrong with the options

        def work(progress):
            progress("reading photos and clip", 0, 0)
            scene = self._animator.read(job)
            seen = visit.seen[self.verb] = people.masks_of(scene, worn)
            numbers = range(self._counts[-1])
            return "Look at the pictures; where a mask is wrong, paint it. Then go on.", (
                gr.Column(visible=True), people.told(scene), people.pictures(scene),
                *(gr.Accordion(visible=i in seen) for i in numbers),
                *(people.to_editor(seen[i]) if i in seen else None for i in numbers),
                gr.Button(interactive=True),
            )  # fmt: skip

        return work

    def _make(self, visit, *values):
        job, sampling, over_time, flags, _ = self._asked(visit, values)
        folder = visit.new_folder()
        out = folder / f"out{job.motion_options.suffix(job.driving)}"

        def work(progress):
            made = interpolation.run(
                self._animator, job, out, over_time, quiet=True, progress=progress, **sampling
            )
            clips, several = [str(one.path) for one in made], len(made) > 1
            grid = None if out.suffix == ".png" else str(out if several else outputs(out, job)[1])
            return f"Done: {made[0].settings['frames']} frames.", (
                gr.Column(visible=True), clips,
                gr.Slider(maximum=max(1, len(clips) - 1), value=0, visible=several),
                *_shown(clips, 0), gr.Video(grid, visible=grid is not None),
                _files(made, folder), command(self.verb.lower(), job, flags, self._given),
            )  # fmt: skip

        return work


def _gallery() -> gr.Gallery:
    return gr.Gallery(
        label="What the model will see", columns=3, object_fit="contain", height="auto",
        buttons=["fullscreen"],
    )  # fmt: skip


def _editor(name: str) -> tuple[gr.Accordion, gr.ImageEditor]:
    """Of one mask. Closed, as an editor draws all the time once it is there."""
    with gr.Accordion(f"Paint the mask: {name}", open=False, visible=False) as box:
        editor = gr.ImageEditor(
            label="Red is where it holds; press 1. again to see what comes of it",
            type="numpy", sources=(), transforms=(), layers=False, buttons=[],
            brush=gr.Brush(20, ["rgba(235, 60, 60, 0.6)"], color_mode="fixed"),
            eraser=gr.Eraser(20), canvas_size=(512, 512), fixed_canvas=True, height=600,
            elem_classes="narrow",
        )  # fmt: skip
    return box, editor


def _results() -> list:
    """Fields for clips, which of them is shown, video or picture of it, grid, files and line."""
    clips = gr.State([])
    shown = [
        gr.Video(label="Result, with the driver's sound", interactive=False),
        gr.Image(label="Result", alt_text="Result", interactive=False, buttons=[]),
    ]
    which = gr.Slider(0, 1, 0, step=1, label="Which alpha, from the first to the last")
    which.input(_shown, [clips, which], shown, show_progress="hidden")
    return [
        clips, which, *shown,
        gr.Video(label="All side by side", interactive=False),
        gr.File(label="Files to download", file_count="multiple", interactive=False),
        gr.Textbox(
            label="The same on the command line", lines=4, buttons=["copy"], interactive=False
        ),
    ]  # fmt: skip


def _shown(clips: list[str], i: int) -> tuple:
    """Video and picture, one of which shows clip i."""
    still = clips[i].endswith(".png")
    return gr.Video(None if still else clips[i], visible=not still), gr.Image(
        clips[i] if still else None, visible=still
    )


def _files(made: list[Outcome], folder: Path) -> list[str]:
    """Completes the files of results, to be downloaded; the folders of the host are not named."""
    job = made[0].job
    for one in made:
        hosts = {name: Path(x).name for name in _HOST_FILES if (x := one.settings[name])}
        path = outputs(one.path, one.job)[2]
        path.write_text(words.without_folders(json.dumps(one.settings | hosts, indent=2)) + "\n")
        path.rename(path.with_stem(path.stem.replace("out", "settings")))
    write_picture(folder / "masks.png", made[0].scene.preview())
    painted = [mask for _, _, *masks in job.attributes + job.towards for mask in masks]
    painted += [job.portrait_mask] if job.portrait_mask else []
    return [*map(str, [*sorted(folder.iterdir()), *painted])]
