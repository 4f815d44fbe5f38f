"""Clips that are the same, or show the same person, where that does harm: between splits above all.

A clip has two perceptual hashes of 256 bits, of the mean of its whole frames and of the mean of its
face crops: the signs of low frequencies (pHash, Zauner 2010) of a picture that trimming, scaling,
encoding and brightness change little.
"""

import itertools

import cv2
import numpy as np

from input_pipeline.dataset.manifest import Row
from input_pipeline.faces import descriptor

SIDE = 64
_FREQUENCIES = 16
# Bits of 256. On 19 real clips: copies encoded again at CRF 38, scaled or brightened differ in at
# most 8, halves in 18 (median) and at most 90, different clips in at least 86; see docs/data.md.
LIMIT = 32
_ROWS, _BLOCK = 32, 4096
_MOST_PAIRS = 200_000
_MOST_LINES = 20


def small(image: np.ndarray) -> np.ndarray:
    """float32 [64, 64] grey of a uint8 [H, W, 3] RGB picture; means of these are fingerprinted."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)


def fingerprint(picture: np.ndarray) -> str:
    """256 bits in hex of a float32 [64, 64] grey picture."""
    waves = cv2.dct(picture)[:_FREQUENCIES, :_FREQUENCIES].ravel()
    return np.packbits(waves > np.median(waves[1:])).tobytes().hex()


def near(hashes: np.ndarray, limit: int = LIMIT) -> dict[tuple[int, int], int]:
    """Pairs i < j of uint8 [n, 32] hashes that differ in at most `limit` bits, and in how many.

    Compares all with all, which 20,000 clips finish in a second; ends after 200,000 pairs.
    """
    words = np.ascontiguousarray(hashes).view(np.uint64).T.copy()
    pairs = {}
    for start in range(0, len(hashes), _ROWS):
        # One word of 64 bits at a time: the differences of a block fit into the cache.
        apart = sum(
            np.bitwise_count(own ^ others).astype(np.uint16)
            for own, others in zip(
                words[:, start : start + _ROWS, None], words[:, None, start:], strict=True
            )
        )
        for i, j in np.argwhere(np.triu(apart <= limit, 1)):
            pairs[start + int(i), start + int(j)] = int(apart[i, j])
        if len(pairs) >= _MOST_PAIRS:
            return pairs
    return pairs


def notes(rows: list[Row]) -> list[str]:
    """What is to be said about clips that repeat each other, and about people in two splits."""
    rows = [row for row in rows if row.reason is None]
    found = {}
    for what in ("whole", "face"):
        hashes = np.array([list(bytes.fromhex(getattr(row, what))) for row in rows], np.uint8)
        for (i, j), apart in near(hashes.reshape(-1, 32)).items():
            found[i, j] = min(apart, found.get((i, j), apart))
    across, within = [], []
    for (i, j), apart in sorted(found.items()):
        a, b = rows[i], rows[j]
        where = f"{a.split} and {b.split}" if a.split != b.split else a.split
        line = f"{a.clip} and {b.clip} look alike ({where}, {apart} of 256 bits differ)"
        (across if a.split != b.split else within).append(line)
    for (i, j), cosine in sorted(_same_people(rows).items()):
        a, b = rows[i], rows[j]
        across.append(
            f"{a.clip} ({a.split}) and {b.clip} ({b.split}) show one face (cosine {cosine:.2f})"
        )
    people = {}
    for row in rows:
        people.setdefault(row.identity, {}).setdefault(row.split, row.clip)
    for identity, by_split in people.items():
        if len(by_split) > 1:
            across.append(f"{identity} is in the splits {', '.join(sorted(by_split))}")
    told = [f"between splits: {line}" for line in _cut(across)]
    told += [f"within a split: {line}" for line in _cut(within)]
    if len(found) >= _MOST_PAIRS:
        told.append(f"{len(found)} pairs of clips look alike; the search for more was given up")
    return told


def _same_people(rows: list[Row]) -> dict[tuple[int, int], float]:
    """Pairs of clips in two splits whose descriptors are alike, with the cosine."""
    known = [i for i, row in enumerate(rows) if row.descriptor]
    by_split = {}
    for i in known:
        by_split.setdefault(rows[i].split, []).append(i)
    found = {}
    for a, b in itertools.combinations(by_split.values(), 2):
        others = descriptor.unpack([rows[j].descriptor for j in b]).T
        for start in range(0, len(a), _BLOCK):
            block = a[start : start + _BLOCK]
            cosines = descriptor.unpack([rows[i].descriptor for i in block]) @ others
            for i, j in np.argwhere(cosines >= descriptor.SAME_PERSON):
                found[block[i], b[j]] = float(cosines[i, j])
    return found


def _cut(lines: list[str]) -> list[str]:
    more = len(lines) - _MOST_LINES
    return lines[:_MOST_LINES] + ([f"and {more} more"] if more > 0 else [])
