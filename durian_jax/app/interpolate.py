"""The tab Interpolate: from one look to another, in steps or over time."""

import gradio as gr

from durian_jax.animation.job import Job, parse_alphas
from durian_jax.app.studio import Studio
from input_pipeline.errors import InputError


class Interpolate(Studio):
    verb, motion = "Interpolate", ("motion", "smooth", "frames")
    photos = ("From photo (alpha 0)", "To photo (alpha 1)")

    def fields(self) -> list:
        return [
            gr.Textbox("0,0.25,0.5,0.75,1", label="Alphas, 0 to 1, with commas between them"),
            gr.Checkbox(label="One clip that changes over time, in place of one for each alpha"),
        ]

    def job(self, worn: list[tuple], fixed: dict, more: list) -> tuple[Job, bool, list[str]]:
        alphas, over_time = more
        if len(worn) != 2:
            raise InputError(f"{len(worn)} photos of looks: give both, to go from one to the other")
        job = Job(attributes=worn[:1], towards=worn[1:], alpha=parse_alphas(alphas), **fixed)
        flags = ["--alphas", ",".join(f"{alpha:g}" for alpha in job.alpha)]
        return job, over_time, flags + ["--over-time"] * over_time
