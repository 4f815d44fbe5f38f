import numpy as np
import pytest

from durian_jax.evaluate.predictions import FolderPredictions
from input_pipeline.errors import InputError
from input_pipeline.media import video
from input_pipeline.media.pictures import write_picture


@pytest.fixture
def frames(case_set):
    """uint8 [F, S, S, 3] for every case."""
    case = case_set.cases[0]
    shape = (case.frames, case_set.size, case_set.size, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def folder(case_set, frames, tmp_path):
    """A complete folder: a lossless video, pictures, and an array."""
    video.write_video(tmp_path / "0000.mp4", frames, case_set.fps, lossless=True)
    for number, frame in enumerate(frames):
        write_picture(tmp_path / "0001" / f"{number:04d}.png", frame)
    np.save(tmp_path / "0002.npy", frames / 255)
    return tmp_path


def _problems(folder, case_set) -> str:
    with pytest.raises(InputError) as failure:
        FolderPredictions(folder, case_set, case_set.cases)
    return str(failure.value)


def test_videos_pictures_and_arrays_are_read_alike(folder, case_set, frames):
    predictions = FolderPredictions(folder, case_set, case_set.cases)
    for case in case_set.cases:
        found = predictions(case)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, frames / 255, atol=1e-6)


def test_every_problem_is_listed(folder, case_set, frames):
    (folder / "0000.mp4").unlink()
    (folder / "0001" / "0003.png").rename(folder / "0001" / "0009.png")
    np.save(folder / "0002.npy", frames[:-1] / 255)
    (folder / "0009.mp4").write_bytes(b"")
    (folder / "notes.txt").write_text("hello")
    text = _problems(folder, case_set)
    assert "5 problems, nothing was scored" in text
    for line in (
        "0000: missing",
        "0001: 0001/0003.png: frames must be 0000.png, 0001.png, ... in a row",
        "0002: 0002.npy has 5 frames, must have 6",
        "0009.mp4: extra: not a prediction of any case",
        "notes.txt: extra",
    ):
        assert line in text


@pytest.mark.parametrize(
    "change,message",
    [
        (lambda x: np.where(x > 0.99, np.nan, x), "NaN or infinite values from frame 0 on"),
        (lambda x: 2 * x - 1, "must lie in 0 .. 1"),
        (lambda x: x[:, ::2], "frame 0 is 64x128x3, must be 128x128x3"),
        (lambda x: x[..., 0], r"shape (6, 128, 128), must be [F, S, S, 3]"),
        (lambda x: (x * 1000).astype(np.int32), "int32, must be uint8 or floats"),
    ],
)
def test_bad_arrays_are_errors(folder, case_set, frames, change, message):
    np.save(folder / "0002.npy", change(frames / 255))
    assert message in _problems(folder, case_set)


def test_an_archive_of_arrays_is_an_error(folder, case_set):
    path = folder / "0002.npy"
    with path.open("wb") as file:
        np.savez(file, frames=np.zeros(3))
    assert "0002.npy: several arrays (.npz): save one with numpy.save" in _problems(
        folder, case_set
    )
    path.write_bytes(path.read_bytes()[:-20])
    assert "not a readable array" in _problems(folder, case_set)


def test_broken_files_are_errors(folder, case_set):
    (folder / "0000.mp4").write_text("no video")
    (folder / "0002.npy").write_text("no array")
    (folder / "0001" / "0002.png").write_text("no picture")
    text = _problems(folder, case_set)
    assert "3 problems" in text and "not a readable video" in text
    assert "not a readable array" in text and "0002.png: neither a readable picture" in text


def test_two_answers_to_one_case_are_an_error(folder, case_set, frames):
    np.save(folder / "0000.npy", frames / 255)
    assert "0000: given twice, 0000.mp4 and 0000.npy" in _problems(folder, case_set)


def test_only_the_groups_asked_for_need_answers(folder, case_set):
    (folder / "0002.npy").unlink()
    hair = tuple(case for case in case_set.cases if case.group == "hair")
    FolderPredictions(folder, case_set, hair)
    assert "0002: missing" in _problems(folder, case_set)


def test_hidden_files_are_overlooked_and_a_missing_folder_is_not(folder, case_set):
    (folder / ".DS_Store").write_text("")
    FolderPredictions(folder, case_set, case_set.cases)
    with pytest.raises(InputError, match="no such folder"):
        FolderPredictions(folder / "nowhere", case_set, case_set.cases)
