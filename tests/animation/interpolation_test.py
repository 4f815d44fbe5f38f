"""One clip for each alpha and all of them in one picture, or one clip that goes through them."""

import numpy as np
import pytest

from durian_jax.animation import interpolation
from durian_jax.animation.animator import Outcome
from durian_jax.animation.job import Job
from input_pipeline.errors import InputError
from input_pipeline.media import files, video
from input_pipeline.media.pictures import write_picture
from input_pipeline.motion.driver import MotionOptions

SIDE, FRAMES = 64, 3


class Animator:
    """Writes flat pictures: driver 10 + frame number, result 100 alpha, grids as they should be."""

    def __init__(self, reads=()):
        self.jobs, self.files = {}, files.Inputs(reads)

    def record(self, jobs, **sampling):
        for job, path in jobs:
            self.jobs[path.name] = job
            if job.portrait == "nobody.jpg":
                yield Outcome(job, path, None, None, InputError("nobody.jpg: no such file"))
                continue
            shades = [100 * job.alpha[0]] * FRAMES
            row = np.uint8([[200, 210, 220, 10 + i, shade] for i, shade in enumerate(shades)])
            grid = np.repeat(np.repeat(row[..., None], SIDE, 1), 3, 2).reshape(FRAMES, 1, -1, 3)
            grid = np.repeat(grid, SIDE, 1)
            for place, frames in (
                (path, grid[:, :, -SIDE:]),
                (path.with_name(f"{path.stem}_grid{path.suffix}"), grid),
            ):
                if path.suffix == ".png":
                    write_picture(place, frames[0])
                else:
                    video.write_video(place, frames, 25)
            yield Outcome(job, path, None, {}, None)


def _job(alpha, driving="talk.mp4", **changes):
    return Job(
        "me.jpg",
        [("her.jpg", "hair")],
        driving,
        towards=[("his.jpg", "hair")],
        alpha=alpha,
        **changes,
    )


def _squares(path):
    """Mean shade of each square of each frame, [F, squares]."""
    frames = np.float32(list(video.read_frames(path)))
    return frames.reshape(len(frames), SIDE, -1, SIDE, 3).mean((1, 3, 4))


def test_a_list_of_alphas_makes_clips_and_their_grid(tmp_path):
    animator = Animator()
    made = interpolation.run(animator, _job((0.0, 0.25, 1.0)), tmp_path / "out.mp4")
    assert [one.job.alpha for one in made] == [(0.0,), (0.25,), (1.0,)]
    clips = {"out_0.mp4": 0.0, "out_0.25.mp4": 0.25, "out_1.mp4": 1.0}
    assert {name: job.alpha for name, job in animator.jobs.items()} == {
        name: (alpha,) for name, alpha in clips.items()
    }
    grids = [name.replace(".mp4", "_grid.mp4") for name in clips]
    assert {path.name for path in tmp_path.iterdir()} == {*clips, *grids, "out.mp4"}
    expected = [[10 + i, 0, 25, 100] for i in range(FRAMES)]
    np.testing.assert_allclose(_squares(tmp_path / "out.mp4"), expected, atol=2)


def test_a_photo_that_drives_makes_pictures(tmp_path):
    animator = Animator()
    interpolation.run(animator, _job((0.0, 1.0), "pose.png"), tmp_path / "out.png")
    assert list(animator.jobs) == ["out_0.png", "out_1.png"]
    np.testing.assert_array_equal(_squares(tmp_path / "out.png"), [[10, 0, 100]])


@pytest.mark.parametrize(("alpha", "over_time"), [((0.5,), False), ((0.0, 1.0, 0.5), True)])
def test_one_alpha_or_all_over_time_is_one_clip(tmp_path, alpha, over_time):
    animator = Animator()
    interpolation.run(animator, _job(alpha), tmp_path / "out.mp4", over_time)
    assert {name: job.alpha for name, job in animator.jobs.items()} == {"out.mp4": alpha}


def test_an_alpha_that_is_there_twice_is_refused(tmp_path):
    animator = Animator()
    with pytest.raises(InputError, match=r"alpha 0\.5 is there 2 times: list it once"):
        interpolation.run(animator, _job((0.5, 1.0, 0.5)), tmp_path / "out.mp4")
    assert animator.jobs == {}


def test_what_cannot_be_read_is_said_and_leaves_no_grid(tmp_path):
    job = _job((0.0, 1.0))
    job = Job("nobody.jpg", job.attributes, "talk.mp4", towards=job.towards, alpha=job.alpha)
    with pytest.raises(InputError, match=r"nobody\.jpg: no such file"):
        interpolation.run(Animator(), job, tmp_path / "out.mp4")
    assert list(tmp_path.iterdir()) == []


def test_the_output_is_named_for_its_driver(tmp_path):
    with pytest.raises(InputError, match=r"name it \*\.png, or give frames"):
        interpolation.run(Animator(), _job((0.0, 1.0), "pose.png"), tmp_path / "out.mp4")
    moving = _job((0.0, 1.0), "pose.png", motion_options=MotionOptions(frames=3))
    interpolation.run(Animator(), moving, tmp_path / "out.mp4")
    assert len(_squares(tmp_path / "out.mp4")) == FRAMES


@pytest.mark.parametrize("hit", ["hair.png", "hair_0.5.png", "hair_0.5_grid.png"])
def test_what_the_animator_reads_is_replaced_by_no_picture(tmp_path, hit):
    (tmp_path / hit).write_text("mask")
    animator = Animator(reads=[tmp_path / hit])
    with pytest.raises(InputError, match=f"{hit}: would replace the input"):
        interpolation.run(animator, _job((0, 0.5), "pose.jpg"), tmp_path / "hair.png")
    assert (tmp_path / hit).read_text() == "mask" and not animator.jobs
