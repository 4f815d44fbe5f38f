"""`durian interpolate` on real files: it begins and ends where plain animations are."""

import numpy as np
import pytest

from durian_jax import Animator
from durian_jax.animation.job import Job
from durian_jax.cli.main import main
from input_pipeline.media import video
from input_pipeline.media.pictures import write_picture


@pytest.fixture(scope="module")
def photos(portrait_picture, talking_head, tmp_path_factory):
    """Portrait, two sources, and a photo that drives."""
    folder = tmp_path_factory.mktemp("photos")
    for name, colours in (("from", [1, 0.9, 0.8]), ("to", [0.5, 0.3, 0.6]), ("pose", [1, 1, 1])):
        write_picture(folder / f"{name}.png", next(talking_head(np.diag(colours))))
    return portrait_picture, folder / "from.png", folder / "to.png", folder / "pose.png"


def _picture(path):
    return np.int32(next(video.read_frames(path)))


def test_an_interpolation_ends_at_the_plain_animations(photos, random_weights, tmp_path):
    portrait, first, last, pose = photos
    code = main(
        ["interpolate", "--portrait", str(portrait), "--from", f"{first}:hair",
         "--to", f"{last}:hair", "--driving", str(pose), "--alphas", "0,0.5,1",
         "--out", str(tmp_path / "out.png"), "--checkpoint", str(random_weights), "--seed", "3",
         "--guidance", "20"]
    )  # fmt: skip
    assert code == 0
    ends = [tmp_path / f"out_{alpha}.png" for alpha in ("0", "0.5", "1")]
    begin, middle, end = map(_picture, ends)
    jobs = [Job(portrait, [(source, "hair")], pose, seed=3) for source in (first, last)]
    made = Animator.load(random_weights).animate(jobs, guidance=20.0)
    plain = [np.int32(one.frames[0]) for one in made]
    assert np.abs(plain[0] - plain[1]).mean() > 0.5
    assert np.abs(begin - plain[0]).max() <= 1 and np.abs(end - plain[1]).max() <= 1
    assert (middle != begin).any() and (middle != end).any()
    row = _picture(tmp_path / "out.png")
    np.testing.assert_array_equal(row[:, 32:], np.hstack([begin, middle, end]))
