import pytest

from input_pipeline.dataset import shards
from input_pipeline.errors import InputError


@pytest.mark.parametrize("left", [0, 0.5, 0.99])
def test_a_data_set_that_was_copied_in_part_says_so(write_painted, left):
    dataset = write_painted(3)
    (shard,) = dataset.path.glob("durian-train.array_record-*")
    data = shard.read_bytes()
    shard.write_bytes(data[: int(left * len(data))])
    with pytest.raises(InputError, match=r"split train .*: copy or prepare the data set again$"):
        shards.Dataset(dataset.path)


def test_a_damaged_metadata_file_says_so(write_painted):
    path = write_painted(1).path / "metadata.json"
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(InputError, match=r"metadata.json: damaged .*: copy or prepare the data"):
        shards.Dataset(path.parent)
