from fractions import Fraction

import numpy as np
import pytest

from input_pipeline.dataset import records, shards
from input_pipeline.errors import InputError
from input_pipeline.masks.regions import grow
from input_pipeline.media import video
from input_pipeline.prepare import expanders, packing, prepare


def test_some_frames_of_every_kind_get_the_masks_of_all_expanders(painted_chunk):
    def twice(chunk, frame, kind, own, rng):
        return [grow(own, 3), grow(own, 5)]

    def nothing(chunk, frame, kind, own, rng):
        return [np.zeros_like(own)]

    chunk = painted_chunk(0, 40)
    expanders.expand(chunk, [twice, nothing], np.random.default_rng(0))
    assert list(chunk.expanded) == ["hair"]
    found = chunk.expanded["hair"]
    assert len(found) == expanders.NUM_FRAMES and {0, 39} < set(found)
    for frame, pngs in found.items():
        own = records.decode_mask(chunk.masks["hair"][frame])
        for png, radius in zip(pngs, (3, 5), strict=True):
            np.testing.assert_array_equal(records.decode_mask(png), grow(own, radius))
    records.validate(chunk, 64)


@pytest.fixture(scope="module")
def clips(talking_head, tmp_path_factory):
    """Two clips of two people, 18 frames of 128 pixels."""
    folder = tmp_path_factory.mktemp("two")
    for name, mirrored in (("a", False), ("b", True)):
        frames = talking_head(mirrored=mirrored, count=18)
        video.write_video(folder / f"{name}.mp4", frames, Fraction(25))
    return folder


def test_prepare_keeps_borrowed_and_grown_masks(clips, tmp_path):
    def run(out, *specs):
        prepare.prepare(clips, out, size=64, expand=specs, workers=1, progress=False)
        dataset = shards.Dataset(out)
        return dataset, [records.decode(dataset[i]) for i in range(len(dataset))]

    dataset, chunks = run(tmp_path / "out", "borrow", "grow")
    assert dataset.metadata["settings"]["expand"] == ["borrow", "grow"]
    assert len(chunks) == 2
    for chunk in chunks:
        records.validate(chunk, 64)
        assert chunk.tools["expanded masks"] == "borrow, grow"
        for frame, pngs in chunk.expanded["hair"].items():
            own = records.decode_mask(chunk.masks["hair"][frame])
            *borrowed, _, _, _, _ = found = [records.decode_mask(png) for png in pngs]
            assert borrowed and len(found) <= 2 * expanders.NUM_MASKS
            assert all(mask[own].all() for mask in found[-4:]), "grown masks hold their own"
            assert all((mask & own).sum() > 0.4 * own.sum() for mask in borrowed)
    _, again = run(tmp_path / "again", "borrow", "grow")
    assert [c.expanded for c in again] == [c.expanded for c in chunks], "and are drawn by seed"
    _, plain = run(tmp_path / "out")
    assert all(not chunk.expanded for chunk in plain), "other settings, other records"


def test_nobody_of_another_split_lends_masks_to_training(clips, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text("file,identity,split,hair\na.mp4,a,train,long\nb.mp4,b,val,long\n")
    out = tmp_path / "out"
    prepare.prepare(
        clips, out, size=64, labels=labels, expand=["borrow"], workers=1, progress=False
    )
    masks = {}
    for split in ("train", "val"):
        dataset = shards.Dataset(out, split)
        masks[split] = records.decode(dataset[0]).expanded
    assert masks["val"]["hair"] and not masks["train"].get("hair"), "a has nobody, b has a"


def test_nor_does_anybody_who_left_it_while_a_run_was_stopped(clips, tmp_path, monkeypatch):
    labels, out = tmp_path / "labels.csv", tmp_path / "out"

    def run(split):
        labels.write_text(f"file,identity,split,hair\na.mp4,a,train,long\nb.mp4,b,{split},long\n")
        options = {"labels": labels, "expand": ["borrow"], "workers": 1, "progress": False}
        prepare.prepare(clips, out, size=64, **options)

    with monkeypatch.context() as stopped:
        stopped.setattr(packing, "pack", lambda shard: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run("train")
    run("val")
    assert not records.decode(shards.Dataset(out, "train")[0]).expanded.get("hair")


@pytest.mark.parametrize("spec", ["dilate", "generate", "generate:base=x", "borrow:x"])
def test_an_unknown_expander_is_refused_before_the_work(clips, tmp_path, spec):
    with pytest.raises(InputError, match=f"expand {spec}: "):
        prepare.prepare(clips, tmp_path / "out", size=64, expand=[spec], progress=False)
    assert not (tmp_path / "out").exists()
