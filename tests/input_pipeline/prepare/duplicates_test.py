import itertools

import cv2
import numpy as np

from input_pipeline.dataset.manifest import Row
from input_pipeline.faces import descriptor
from input_pipeline.prepare import duplicates


def bits_apart(one, other):
    a, b = (np.frombuffer(bytes.fromhex(text), np.uint8) for text in (one, other))
    return int(np.bitwise_count(a ^ b).sum())


def mean_of(frames):
    return np.mean([duplicates.small(frame) for frame in frames], axis=0)


def test_copies_are_near_and_other_pictures_are_far(talking_head):
    frames = list(talking_head(count=24))
    own = duplicates.fingerprint(mean_of(frames))
    half = [cv2.resize(frame, None, fx=0.5, fy=0.5) for frame in frames]
    brighter = [np.clip(frame * 1.1 + 8, 0, 255).astype(np.uint8) for frame in frames]
    for copy in (half, brighter, frames[:16]):
        assert bits_apart(own, duplicates.fingerprint(mean_of(copy))) <= duplicates.LIMIT
    other = duplicates.fingerprint(mean_of([frame[:, ::-1].copy() for frame in frames]))
    assert bits_apart(own, other) > 2 * duplicates.LIMIT


def test_all_near_pairs_are_found_and_no_others():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 256, (400, 32), np.uint8)
    for index, distance in enumerate((0, 1, 8, 16, 24, 32, 33, 40)):
        bits = np.unpackbits(hashes[index])
        bits[rng.choice(256, distance, replace=False)] ^= 1
        hashes[399 - index] = np.packbits(bits)
    words = hashes.view(np.uint64)
    wanted = {}
    for i, j in itertools.combinations(range(400), 2):
        apart = int(np.bitwise_count(words[i] ^ words[j]).sum())
        if apart <= 32:
            wanted[i, j] = apart
    assert len(wanted) == 6 and duplicates.near(hashes) == wanted


def test_the_first_and_the_last_of_many_clips_meet():
    hashes = np.random.default_rng(0).integers(0, 256, (5000, 32), np.uint8)
    hashes[-1] = hashes[0]
    assert duplicates.near(hashes) == {(0, 4999): 0}


def row(clip, split, whole=0, vector=(1, 0), identity=None):
    word = np.random.default_rng(whole).integers(0, 256, 32, np.uint8).tobytes().hex()
    return Row(clip, clip, identity or clip, split, chunks=1, whole=word, face=word,
               descriptor=descriptor.pack([np.array(vector, float)]))  # fmt: skip


def test_what_is_in_two_splits_is_told_first():
    rows = [
        row("a", "train", 1), row("b", "val", 1, (0, 1)), row("c", "train", 1, (0, -1)),
        row("d", "val", 2, (0.9, -0.1)), row("e", "test", 3, (-1, -0.1), identity="d"),
        Row("f", "f", "f", "train", reason="broken"),
    ]  # fmt: skip
    notes = duplicates.notes(rows)
    assert notes[0].startswith("between splits: a and b look alike (train and val, 0 of 256")
    assert notes[1].startswith("between splits: b and c look alike")
    assert notes[2].startswith("between splits: a (train) and d (val) show one face (cosine 0.99")
    assert notes[3] == "between splits: d is in the splits test, val"
    assert notes[4].startswith("within a split: a and c look alike (train, 0 of 256")
    assert len(notes) == 5
    assert duplicates.notes(rows[-1:]) == []


def test_many_notes_are_cut_and_counted():
    notes = duplicates.notes([row(str(i), "train") for i in range(10)])
    assert len(notes) == 21 and notes[-1] == "within a split: and 25 more"


def test_a_search_that_finds_too_much_ends_and_says_so(monkeypatch):
    monkeypatch.setattr(duplicates, "_MOST_PAIRS", 20)
    notes = duplicates.notes([row(str(i), "train") for i in range(10)])
    assert "the search for more was given up" in notes[-1]
