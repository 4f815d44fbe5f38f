"""The tab Interpolate: from one look to another, in steps or over time."""

import gradio as gr

from durian_jax.animation.job import Job, parse_alphas
from durian_jax.app.field import Field
from durian_jax.app.studio import Studio
from input_pipeline.errors import InputError


class Interpolate(Studio):
    verb, motion = "Interpolate", ("motion", "smooth", "frames")
    photos, needed = ("From photo (alpha 0)", "To photo (alpha 1)"), 2

    def more(self) -> list[Field]:
        alphas = "Alphas, 0 to 1, with commas between them"
        over_time = "One clip that changes over time, in place of one for each alpha"
        return [
            Field("alpha", gr.Textbox("0,0.25,0.5,0.75,1", label=alphas)),
            Field("over_time", gr.Checkbox(label=over_time)),
        ]

    def job(self, worn: list[tuple], fixed: dict, more: list) -> tuple[Job, bool, list[str]]:
        text, over_time = more
        try:
            alphas = parse_alphas(text)
        except InputError as error:
            raise InputError(str(error), option="alpha") from None
        job = Job(attributes=worn[:1], towards=worn[1:], alpha=alphas, **fixed)
        flags = ["--alphas", ",".join(f"{alpha:g}" for alpha in job.alpha)]
        return job, over_time, flags + ["--over-time"] * over_time
