"""The tab Animate: photos and a driver in, a video out."""

from pathlib import Path

import gradio as gr

from durian_jax.animation.job import Job
from durian_jax.animation.recording import outputs
from durian_jax.app.options import command
from durian_jax.app.studio import EXAMPLES, Studio, finish
from input_pipeline.dataset.cases import CaseSet
from input_pipeline.inference.inputs import MAX_ATTRIBUTES


class Animate(Studio):
    verb = "Animate"

    def __init__(self, desk):
        count = MAX_ATTRIBUTES if desk.animator.takes_attributes else 0
        cases = [case for case in CaseSet.read(EXAMPLES).cases if not case.interpolates]
        labels = [f"Attribute photo {i + 1}" for i in range(count)]
        super().__init__(desk, labels, cases if count else [])

    def results(self) -> list:
        return [
            gr.Video(label="Result, with the driver's sound", interactive=False),
            gr.Image(label="Result", interactive=False, visible=False, buttons=[]),
            gr.Video(label="Portrait, attributes, driver, result", interactive=False),
            gr.File(label="Files to download", file_count="multiple", interactive=False),
            gr.Textbox(
                label="The same on the command line", lines=3, buttons=["copy"], interactive=False
            ),
        ]

    def job(self, worn: list[tuple], fixed: dict, more: list) -> Job:
        return Job(attributes=worn, **fixed)

    def make(self, job: Job, folder: Path, more: list, progress, sampling: dict, given: list):
        out = folder / f"out{job.motion_options.suffix(job.driving)}"
        animator, still = self.desk.animator, out.suffix == ".png"
        (made,) = animator.record([(job, out)], quiet=True, progress=progress, **sampling)
        if made.error is not None:
            raise made.error
        return f"Done: {made.settings['frames']} frames.", (
            gr.Video(None if still else str(out), visible=not still),
            gr.Image(str(out) if still else None, visible=still),
            gr.Video(None if still else str(outputs(out, job)[1]), visible=not still),
            finish(made, folder),
            command("animate", job, given, self.desk.checkpoint),
        )
