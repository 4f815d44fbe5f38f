"""The tab Animate: photos and a driver in, a video out."""

from durian_jax.animation.job import Job
from durian_jax.app.studio import Studio
from input_pipeline.inference.inputs import MAX_ATTRIBUTES


class Animate(Studio):
    verb = "Animate"
    photos = tuple(f"Attribute photo {i + 1}" for i in range(MAX_ATTRIBUTES))

    def job(self, worn: list[tuple], fixed: dict, more: list) -> tuple[Job, bool, list[str]]:
        return Job(attributes=worn, **fixed), False, []
