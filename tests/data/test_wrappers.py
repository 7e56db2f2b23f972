"""Loaders and wrappers keep the contract of `BatchIterator`; the first batches can be repeated."""

import itertools
import json

import numpy as np
import pytest

from data.test_loader import ids, new_bucket_loader, new_loader
from mlxlab.data.wrappers import Prefetch, RepeatBatches, wrap_batches
from mlxlab.errors import DataError
from support.streams import make_batches

LOADERS = {"in order": new_loader, "by length": new_bucket_loader, "packed": make_batches}
WRAPPERS = {
    "unwrapped": lambda batches: batches,
    "prefetched": lambda batches: wrap_batches(batches, 2, None),
    "repeated": lambda batches: wrap_batches(batches, 0, 3),
    "prefetched and repeated": lambda batches: wrap_batches(batches, 2, 3),
}


@pytest.fixture(params=itertools.product(LOADERS, WRAPPERS), ids=" ".join)
def new(request):
    loader, wrapper = request.param
    return lambda: WRAPPERS[wrapper](LOADERS[loader]())


def arrays(batch):
    return [np.asarray(array).tolist() for array in batch[:5]]


def take(batches, count):
    """The next `count` batches, across epochs."""
    taken = []
    while len(taken) < count:
        for batch in batches:
            taken.append(arrays(batch))
            if len(taken) == count:
                break
    return taken


@pytest.mark.parametrize("used", [0, 1, 3, 4, 6, 7, 13])
def test_from_a_saved_position_the_same_batches_follow(new, used):
    expected = take(new(), used + 5)
    batches, resumed = new(), new()
    assert take(batches, used) == expected[:used]
    resumed.load_state_dict(json.loads(json.dumps(batches.state_dict())))
    assert (resumed.epoch, resumed.at_epoch_start) == (batches.epoch, batches.at_epoch_start)
    assert take(resumed, 5) == expected[used:]


@pytest.mark.parametrize("used", [0, 1, 2])
def test_a_new_batch_size_applies_from_the_next_batch_on(new, used):
    batches = new()
    take(batches, used)
    batches.resize(5)
    assert batches.batch_size == 5
    assert len(take(batches, 1)[0][0]) == 5


def test_a_malformed_position_is_refused(new):
    for state in (
        {},
        {"first": 3},
        {"first": {}, "epoch": 0, "index": 0},
        new().state_dict() | {"epoch": -1},
    ):
        with pytest.raises(DataError):
            new().load_state_dict(state)


@pytest.fixture(params=[new_loader, lambda **changes: Prefetch(new_loader(**changes), 2)])
def new_repeat(request):
    return lambda number, **changes: RepeatBatches(request.param(**changes), number)


def test_every_epoch_is_the_first_batches_of_the_data(new_repeat):
    expected, batches = ids(new_loader())[:3], new_repeat(3)
    assert [ids(batches) for _ in range(3)] == [expected] * 3
    assert (batches.epoch, batches.at_epoch_start, batches.batches_per_epoch) == (3, True, 3)


def test_data_with_fewer_batches_is_repeated_whole(new_repeat):
    batches = new_repeat(100)
    assert len(ids(batches)) == batches.batches_per_epoch == 6
    assert ids(batches) == ids(new_loader())
