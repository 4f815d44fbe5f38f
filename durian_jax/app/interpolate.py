"""The tab Interpolate: from one look to another, in steps or over time."""

from pathlib import Path

import gradio as gr

from durian_jax.animation import interpolation
from durian_jax.animation.job import Job, parse_alphas
from durian_jax.app.options import command
from durian_jax.app.studio import EXAMPLES, Studio
from input_pipeline.dataset.cases import CaseSet
from input_pipeline.errors import InputError

_STEPS, _TIME = "a clip for each alpha", "one clip that changes over time"


class Interpolate(Studio):
    verb = "Interpolate"

    def __init__(self, desk):
        cases = [case for case in CaseSet.read(EXAMPLES).cases if case.interpolates]
        labels = ["From photo (alpha 0)", "To photo (alpha 1)"]
        super().__init__(desk, labels, cases, ("motion", "smooth", "frames"))

    def fields(self) -> list:
        return [
            gr.Textbox("0,0.25,0.5,0.75,1", label="Alphas, 0 to 1, with commas between them"),
            gr.Radio([_STEPS, _TIME], value=_STEPS, label="What to make"),
        ]

    def results(self) -> list:
        clips, video = gr.State([]), gr.Video(label="Result", interactive=False)
        slider = gr.Slider(0, 1, 0, step=1, label="Which alpha, from the first to the last")
        slider.input(lambda clips, i: clips[int(i)], [clips, slider], video)
        return [
            clips, video, slider,
            gr.Video(label="Driver, then every alpha", interactive=False),
            gr.Textbox(
                label="The same on the command line", lines=3, buttons=["copy"], interactive=False
            ),
        ]  # fmt: skip

    def job(self, worn: list[tuple], fixed: dict, more: list) -> Job:
        if len(worn) != 2:
            raise InputError(f"{len(worn)} photos of looks: give both, to go from one to the other")
        alpha = parse_alphas(more[0])
        return Job(attributes=worn[:1], towards=worn[1:], alpha=alpha, **fixed)

    def make(self, job: Job, folder: Path, more: list, progress, sampling: dict, given: list):
        out, over_time = folder / f"out{job.motion_options.suffix(job.driving)}", more[1] == _TIME
        interpolation.run(
            self.desk.animator, job, out, over_time, quiet=True, progress=progress, **sampling
        )
        clips = [out] if over_time else [out.with_stem(f"out_{alpha:g}") for alpha in job.alpha]
        alphas = ",".join(f"{alpha:g}" for alpha in job.alpha)
        given = ["--alphas", alphas, *["--over-time"] * over_time, *given]
        return f"Done: alpha {alphas}.", (
            [str(clip) for clip in clips],
            str(clips[0]),
            gr.Slider(maximum=max(1, len(clips) - 1), value=0, visible=len(clips) > 1),
            gr.Video(None if over_time else str(out), visible=not over_time),
            command("interpolate", job, given, self.desk.checkpoint),
        )
