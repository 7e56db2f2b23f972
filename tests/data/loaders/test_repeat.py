"""The first batches, repeated: the same ones in every epoch, from any position."""

import json

import pytest

from data.loaders.test_loader import ids, new_loader
from mlxlab.data.wrappers import Prefetch, RepeatBatches
from mlxlab.errors import DataError


@pytest.fixture(params=[new_loader, lambda **changes: Prefetch(new_loader(**changes), 2)])
def new(request):
    return lambda number, **changes: RepeatBatches(request.param(**changes), number)


def test_every_epoch_is_the_first_batches_of_the_data(new):
    expected, batches = ids(new_loader())[:3], new(3)
    assert [ids(batches) for _ in range(3)] == [expected] * 3
    assert (batches.epoch, batches.at_epoch_start, batches.batches_per_epoch) == (3, True, 3)


def test_data_with_fewer_batches_is_repeated_whole(new):
    batches = new(100)
    assert len(ids(batches)) == batches.batches_per_epoch == 6
    assert ids(batches) == ids(new_loader())


@pytest.mark.parametrize("seen", [0, 1, 3, 4, 7])
def test_the_same_batches_follow_after_a_resume(new, seen):
    def stream(batches):
        while True:
            for batch in batches:
                yield batch.tokens.tolist()

    uninterrupted, batches, resumed = stream(new(3)), new(3), new(3)
    for _, _ in zip(range(seen), stream(batches), strict=False):
        next(uninterrupted)
    resumed.load_state_dict(json.loads(json.dumps(batches.state_dict())))
    assert (resumed.epoch, resumed.index) == (seen // 3, seen % 3)
    remaining = stream(resumed)
    assert [next(remaining) for _ in range(5)] == [next(uninterrupted) for _ in range(5)]


def test_a_position_of_other_data_is_refused(new):
    state = new(2).state_dict()
    state["first"]["fingerprint"] = "other rows"
    with pytest.raises(DataError, match="other data"):
        new(2).load_state_dict(state)
