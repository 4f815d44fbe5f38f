import contextlib
import itertools

import numpy as np
import pytest

from input_pipeline.dataset import records, shards
from input_pipeline.errors import InputError
from input_pipeline.training.loader import Loader
from input_pipeline.training.transforms import SampleOptions

OPTIONS = SampleOptions(size=64, frames=2)


@pytest.fixture(scope="module")
def dataset(write_painted):
    return write_painted(7)


def _batches(dataset, count, **arguments):
    arguments = {"seed": 0, "batch_size": 4, **arguments}
    with contextlib.closing(Loader(dataset, OPTIONS, **arguments)) as loader:
        return list(itertools.islice(loader, count))


def _assert_equal(left, right):
    assert len(left) == len(right)
    for a, b in zip(left, right):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_batch_contract(dataset):
    batch = _batches(dataset, 1)[0]
    shapes = {name: (value.shape, value.dtype.name) for name, value in batch.items()}
    assert shapes == {
        "video": ((4, 2, 64, 64, 3), "uint8"),
        "keypoints": ((4, 2, 478, 2), "float32"),
        "portrait": ((4, 64, 64, 3), "uint8"),
        "portrait_mask": ((4, 64, 64), "bool"),
        "portrait_keypoints": ((4, 478, 2), "float32"),
        "attribute": ((4, 1, 64, 64, 3), "uint8"),
        "attribute_mask": ((4, 1, 64, 64), "bool"),
        "attribute_keypoints": ((4, 1, 478, 2), "float32"),
        "face": ((4, 112, 112, 3), "uint8"),
        "id": ((4,), "int32"),
    }


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_do_not_change_the_batches(dataset, workers):
    _assert_equal(_batches(dataset, 5, workers=workers), _batches(dataset, 5, workers=0))


def test_state_continues_with_the_next_batch_under_another_worker_count(dataset):
    unbroken = _batches(dataset, 6)
    with contextlib.closing(Loader(dataset, OPTIONS, seed=0, batch_size=4)) as loader:
        for _ in range(3):
            next(loader)
        state = loader.get_state()
    _assert_equal(_batches(dataset, 3, state=state), unbroken[3:])
    _assert_equal(_batches(dataset, 3, state=state, workers=1), unbroken[3:])


def test_processes_share_out_the_global_batch(dataset):
    whole = _batches(dataset, 4)
    parts = [_batches(dataset, 4, process_index=i, process_count=2) for i in range(2)]
    joined = [{name: np.concatenate([a[name], b[name]]) for name in a} for a, b in zip(*parts)]
    _assert_equal(joined, whole)


def test_each_epoch_visits_every_record_once_in_another_order(dataset):
    ids = np.concatenate([batch["id"] for batch in _batches(dataset, 7)]).reshape(4, 7)
    for epoch in ids:
        assert sorted(epoch) == list(range(7))
    assert len({tuple(epoch) for epoch in ids}) == 4


def test_augmentation_differs_between_epochs_and_seeds(dataset):
    first = _batches(dataset, 4)
    samples = {(int(i)): [] for i in range(7)}
    for batch in first:
        for i, portrait in zip(batch["id"], batch["portrait"]):
            samples[int(i)].append(portrait)
    twice = [pair for pair in samples.values() if len(pair) == 2]
    assert twice and all((a != b).any() for a, b in twice)
    assert any((a["id"] != b["id"]).any() for a, b in zip(first, _batches(dataset, 4, seed=1)))


def test_corrupt_record_is_replaced_deterministically_and_counted(write_painted):
    dataset = write_painted(24, corrupt=(5,))
    with contextlib.closing(Loader(dataset, OPTIONS, seed=0, batch_size=8)) as loader:
        epoch = [next(loader) for _ in range(3)]
        assert loader.num_corrupt == 1
        state = loader.get_state()
    ids = np.concatenate([batch["id"] for batch in epoch]).tolist()
    assert sorted(ids) == sorted([*range(5), 6, *range(6, 24)])
    _assert_equal(_batches(dataset, 3, batch_size=8, workers=1), epoch)
    with contextlib.closing(Loader(dataset, OPTIONS, seed=0, batch_size=8, state=state)) as loader:
        assert loader.num_corrupt == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_corrupt_records_stop_the_run(write_painted, workers):
    dataset = write_painted(24, corrupt=(5, 17))
    with pytest.raises(InputError, match=r"2 of 24 records are corrupt.*limit is 5%"):
        _batches(dataset, 3, batch_size=8, workers=workers)


def test_records_too_short_for_the_target_are_passed_over_and_are_not_corrupt(
    painted_chunk, tmp_path
):
    # A third of them: far more than may be corrupt.
    chunks = [painted_chunk(i, 12 if i % 3 else 4) for i in range(12)]
    encoded = [records.encode(chunk, 64) for chunk in chunks]
    shards.write_dataset(tmp_path, {"train": encoded}, 64, {})
    options = SampleOptions(size=64, frames=3)
    found = Loader(shards.Dataset(tmp_path), options, seed=0, batch_size=4)
    with contextlib.closing(found) as loader:
        ids = np.concatenate([next(loader)["id"] for _ in range(3)])
        assert loader.num_corrupt == 0
    assert set(ids.tolist()) == {i for i in range(12) if i % 3}


def test_a_data_set_too_short_for_the_target_says_so(dataset):
    options = SampleOptions(size=64, frames=29)
    with pytest.raises(InputError, match=r"up to \d+ frames, 31 are needed for 29 target frames"):
        Loader(dataset, options, seed=0, batch_size=2)


def test_only_the_first_unusable_records_are_named(write_painted, caplog):
    dataset = write_painted(24, corrupt=range(24))
    with (
        contextlib.closing(Loader(dataset, OPTIONS, seed=0, batch_size=2)) as loader,
        pytest.raises(InputError, match="no record is usable for 2 target frames; the log names"),
    ):
        next(loader)
    assert 20 < len(caplog.messages) < 24 and "not named" in caplog.text


def test_batch_must_divide_over_the_processes(dataset):
    with pytest.raises(InputError, match="multiple of 3"):
        Loader(dataset, OPTIONS, seed=0, batch_size=4, process_count=3)
