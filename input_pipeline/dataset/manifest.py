"""The manifest: a line for each clip that a data set was made from, kept or not.

`manifest.jsonl`; its SHA-256 in `metadata.json` names the data set's content in one number.
"""

import dataclasses
import hashlib
import json

from input_pipeline.dataset.store import Store

FILE = "manifest.jsonl"


@dataclasses.dataclass(frozen=True)
class Row:
    """One clip. Rows are in the order of the clips' names, and so are the records of each split.

    clip: its path in the folder of the clips. key: changes with the clip, its label, the settings
    and the tools. identity: whom it shows. split: where its records are. reason: why it was
    skipped, or None. frames, chunks, bytes: what its records hold. faces: most faces seen at once.
    whole, face: perceptual hashes of the picture and of the crop (hex). descriptor: of the face,
    unit vector, float16 in base64, or "". file, start: the shard with its records, and the number
    of the first. notes: what was done to its pictures that is no matter of course.
    """

    clip: str
    key: str
    identity: str
    split: str
    reason: str | None = None
    frames: int = 0
    chunks: int = 0
    bytes: int = 0
    faces: int = 0
    whole: str = ""
    face: str = ""
    descriptor: str = ""
    file: str = ""
    start: int = 0
    notes: str = ""


def encode(rows: list[Row]) -> tuple[bytes, str]:
    """The file's content and its SHA-256."""
    data = "".join(json.dumps(dataclasses.asdict(row)) + "\n" for row in rows).encode()
    return data, hashlib.sha256(data).hexdigest()


def read(dataset: Store) -> list[Row]:
    """The rows of a data set; none if there is no data set, or its manifest is not its own."""
    if not (dataset.exists("metadata.json") and dataset.exists(FILE)):
        return []
    data = dataset.read(FILE)
    if (
        json.loads(dataset.read("metadata.json")).get("manifest")
        != hashlib.sha256(data).hexdigest()
    ):
        return []
    return [Row(**json.loads(line)) for line in data.decode().splitlines()]
