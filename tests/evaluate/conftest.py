import pytest

from durian_jax.evaluate import scores


@pytest.fixture(scope="module")
def prediction(case_set, landmarker):
    """A function of frames [F, S, S, 3] to an Prediction to the first case; default, the truth."""
    case = case_set.cases[0]
    pictures = case_set.load(case)
    reference = scores.find_reference(case, pictures, landmarker)
    baselines = scores.baseline_frames(case, pictures, reference)

    def make(frames="truth"):
        frames = baselines[frames] if isinstance(frames, str) else frames
        track = scores.find_track(frames, landmarker)
        return scores.Prediction(frames, track, case, pictures, reference)

    return make
