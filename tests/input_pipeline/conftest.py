"""Data sets of painted chunks, some of them damaged."""

import pytest

from input_pipeline import records

SIZE = 64


@pytest.fixture(scope="session")
def write_painted(painted_chunk, tmp_path_factory):
    """A function of (count, corrupt indices) to a data set; corrupt records are garbage bytes."""

    def write(count: int, corrupt: tuple[int, ...] = ()) -> records.Dataset:
        path = tmp_path_factory.mktemp("painted") / "dataset"
        encoded = [
            b"garbage" if i in corrupt else records.encode(painted_chunk(i, 30), SIZE)
            for i in range(count)
        ]
        records.write_dataset(path, {"train": encoded}, SIZE, {})
        return records.Dataset(path)

    return write
