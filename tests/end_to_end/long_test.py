"""A long clip needs the memory of a short one, but for its keypoints."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]

CODE = """
import dataclasses, resource, sys
from fractions import Fraction
from pathlib import Path
import numpy as np
from durian_jax.animation.animator import Animator
from durian_jax.animation.job import Job
from input_pipeline.motion import driver
from input_pipeline.faces import geometry
from input_pipeline.faces.landmarker import FaceLandmarker
from tests import smallest

photo, frames, out = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
config = smallest.get_config("stage2").to_dict()
params = smallest.draw_params(smallest.build_model(config), 0.1)
still = driver.read_motion(photo, FaceLandmarker())
sway = 5 * np.sin(np.arange(frames, dtype=np.float32) / 10)[:, None, None] * np.float32([1, 0.5, 0])
moving = dataclasses.replace(still, keypoints=still.keypoints + sway, fps=Fraction(25))
driver.write_template(out / "motion.npz", moving)
job = Job(photo, [(photo, "hair")], out / "motion.npz")
(made,) = Animator(params, config, "untrained").record([(job, out / "out.mp4")], steps=2)
assert made.error is None and made.settings["frames"] == frames
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""

FOLLOWED = """
import itertools, resource, sys
from pathlib import Path
from configs import svp_small
from durian_jax.animation.animator import Animator
from durian_jax.animation.job import Job
from durian_jax.weights import storage
from input_pipeline.media import video
from tests import smallest

frames, out = int(sys.argv[2]), Path(sys.argv[3])
example = storage._PACKAGED.parent / "examples" / "0000"
pictures = list(video.read_frames(example / "driving.mp4"))
pictures += pictures[-2:0:-1]  # forth and back, without a cut
with video.VideoWriter(out / "driving.mp4", 25) as writer:
    for picture in itertools.islice(itertools.cycle(pictures), frames):
        writer.write(picture)
config = svp_small.get_config("stage2")
config.model.update(resolution=128, patch=16)
config.model.transformer.update(layers=1, heads=2, head_dim=8, video_layers=(0,))
config = config.to_dict()
params = smallest.draw_params(smallest.build_model(config), 0.1)
job = Job(example / "portrait.png", [], out / "driving.mp4", framed=True)
(made,) = Animator(params, config, "untrained").record([(job, out / "out.mp4")], steps=1)
assert made.error is None and made.settings["frames"] == frames
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def _peak(code, photo, frames, folder) -> int:
    """Bytes that a process held at its peak."""
    folder.mkdir()
    command = [sys.executable, "-c", code, str(photo), str(frames), str(folder)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_five_thousand_frames_need_little_more_memory_than_a_hundred(portrait_picture, tmp_path):
    _peak(
        CODE, portrait_picture, 20, tmp_path / "compiles"
    )  # the others find the programs compiled
    short, long = (_peak(CODE, portrait_picture, n, tmp_path / str(n)) for n in (100, 5000))
    # What is held of a frame are its keypoints, 22 kB in all their forms.
    assert long - short < 4900 * 25_000


@pytest.mark.slow
def test_the_pictures_of_a_long_driver_are_not_held(portrait_picture, tmp_path):
    _peak(FOLLOWED, portrait_picture, 20, tmp_path / "compiles")
    short, long = (_peak(FOLLOWED, portrait_picture, n, tmp_path / str(n)) for n in (1000, 2000))
    # A picture of 128 px is 49 kB.
    assert long - short < 1000 * 25_000
