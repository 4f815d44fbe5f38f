"""Mask expansion: in training the portrait hides more than its own attribute.

M_train = M_own U M_expanded (paper section 3): the hidden region must not tell the shape of what
was there, or short hair could never become long. The paper generates the other mask with SDXL; the
default here borrows it from somebody else, carried over in three dimensions by `alignment.align`.
"""

import io
from collections.abc import Iterable

import cv2
import numpy as np

from input_pipeline.dataset.records import Chunk, decode_mask
from input_pipeline.faces import geometry
from input_pipeline.kinds import KINDS, MIN_ATTRIBUTE_AREA
from input_pipeline.masks import alignment

_SIDE = 128  # of donors' masks, in pixels
_DONOR = np.dtype(
    [("mask", np.uint8, (_SIDE, _SIDE // 8)), ("points", np.float16, (478, 3)), ("identity", "U64")]
)
MOST_DONORS = 1024  # of a kind; 5 KB each
_MOST_DEGREES = 40.0  # between the head poses of donor and portrait
_MOST_AREA = 0.6  # of the picture; a larger mask leaves too little of the portrait
_TRIES = 4


class Donors:
    """Attribute masks of many people, from which portraits borrow."""

    def __init__(self, rows: dict[str, np.ndarray]):
        """rows: for each kind an array [D] of masks, their keypoints and identities."""
        self._rows = rows

    @classmethod
    def collect(cls, chunks: Iterable[Chunk], most: int = MOST_DONORS) -> "Donors":
        """Takes one mask of each kind from the middle of each chunk, `most` of a kind."""
        found = {kind: [] for kind in KINDS}
        for chunk in chunks:
            middle = len(chunk.frames) // 2
            for kind, track in chunk.masks.items():
                mask = decode_mask(track[middle])
                if len(found[kind]) == most or mask.mean() < MIN_ATTRIBUTE_AREA:
                    continue
                small = cv2.resize(np.float32(mask), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
                points = (chunk.keypoints[middle] + 0.5) * (_SIDE / len(mask)) - 0.5
                row = np.packbits(small > 0.5, axis=-1), points, chunk.identity
                found[kind].append(np.array(row, _DONOR))
        return cls({kind: np.stack(rows) for kind, rows in found.items() if rows})

    @classmethod
    def merge(cls, parts: Iterable["Donors"]) -> "Donors":
        """All of them, thinned out evenly where they are too many."""
        rows = {kind: [] for kind in KINDS}
        for part in parts:
            for kind, found in part._rows.items():
                rows[kind].append(found)
        merged = {kind: np.concatenate(found) for kind, found in rows.items() if found}
        return cls({k: found[:: -(-len(found) // MOST_DONORS)] for k, found in merged.items()})

    @classmethod
    def decode(cls, data: bytes) -> "Donors":
        """What `encode` made; ValueError on anything else."""
        with np.load(io.BytesIO(data)) as stored:
            return cls(dict(stored))

    def encode(self) -> bytes:
        """An .npz file."""
        file = io.BytesIO()
        np.savez(file, **self._rows)
        return file.getvalue()

    def borrow(
        self,
        kind: str | None,
        identity: str,
        keypoints: np.ndarray,
        size: int,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """Somebody else's attribute where it would lie on this portrait's head.

        Donors whose heads are turned by 40 degrees or more from this one are passed over, and so
        are masks that would cover more than 0.6 of the picture.

        Args:
          identity: who the portrait shows. keypoints: [478, 3] pixels of the portrait.
          size: side of the portrait in pixels.

        Returns:
          bool [size, size], empty where four draws found nobody.
        """
        rows = self._rows.get(kind, np.zeros(0, _DONOR))
        others = np.flatnonzero(rows["identity"] != identity[:64])
        turn = geometry.head_pose(keypoints)[0]
        portrait = (keypoints + 0.5) * (_SIDE / size) - 0.5
        for chosen in rng.choice(others, _TRIES) if len(others) else ():
            donor = rows[chosen]
            points = donor["points"].astype(np.float64)
            cosine = (np.trace(geometry.head_pose(points)[0].T @ turn) - 1) / 2
            if cosine < np.cos(np.radians(_MOST_DEGREES)):
                continue
            mask = np.unpackbits(donor["mask"], axis=-1).astype(bool)
            carried = alignment.align(mask, points, portrait, kind, _SIDE)
            if carried.mean() <= _MOST_AREA:
                return cv2.resize(np.float32(carried), (size, size)) > 0.5
        return np.zeros((size, size), bool)


NOBODY = Donors({})
