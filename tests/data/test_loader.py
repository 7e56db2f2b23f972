"""Order, batches of about equal lengths, prefetch: any position is reached at once, at any batch size."""

import json
import threading
import time
from itertools import combinations

import numpy as np
import pytest

from mlxlab.data.batch import Batch, check_ids, pad
from mlxlab.data.loader import (
    DataLoader,
    FixedBatchSize,
    TokenBudget,
    make_loader,
    optimal_boundaries,
)
from mlxlab.data.rng import epoch_permutation
from mlxlab.data.wrappers import Prefetch
from mlxlab.errors import DataError
from support.titanic import make_titanic

COUNT, SIZE = 45, 8


def collate(epoch, examples, length=None):
    tokens = np.stack([examples, np.full(len(examples), epoch)], 1).astype(np.int32)
    zeros, ones = np.zeros(len(examples), np.int32), np.ones(len(examples), np.float32)
    return Batch(tokens, np.ones_like(tokens), zeros, ones, examples)


def new_loader(seed=0, size=SIZE, collate=collate):
    return DataLoader(COUNT, size, epoch_permutation(COUNT, seed), collate, "rows")


def new_prefetch(**changes):
    return Prefetch(new_loader(**changes), 2)


def ids(batches):
    return [batch.tokens.tolist() for batch in batches]


def test_order_is_a_function_of_seed_and_epoch():
    np.testing.assert_array_equal(epoch_permutation(COUNT, 3)(7), epoch_permutation(COUNT, 3)(7))
    assert not np.array_equal(epoch_permutation(COUNT, 3)(7), epoch_permutation(COUNT, 4)(7))
    # It is the same in every version and on every machine.
    assert epoch_permutation(5, 0)(0).tolist() == [3, 4, 2, 1, 0]


DAMAGES = [{"fingerprint": "other"}, {"consumed": [[8, 40], [9, 5]]}, {"consumed": [[8, -1]]}]
DAMAGES += [{"consumed": [[0, 8]]}, {"epoch": -1}, {"epoch": "1"}, {"more": 1}]


@pytest.mark.parametrize("change", DAMAGES, ids=str)
def test_a_malformed_position_or_one_in_other_data_is_refused(change):
    loader = new_loader()
    with pytest.raises(DataError, match="the saved position is"):
        loader.load_state_dict(loader.state_dict() | change)


def test_the_state_is_that_of_the_batch_last_yielded_and_no_more_than_depth_batches_run_ahead():
    prepared = []

    def counting(epoch, examples, length):
        prepared.append(examples)
        return collate(epoch, examples)

    direct, prefetched = new_loader(), new_prefetch(collate=counting)
    assert prefetched.state_dict() == direct.state_dict()
    for count, _ in enumerate(zip(direct, prefetched, strict=True), 1):
        time.sleep(0.02)  # time to run ahead
        assert prefetched.state_dict() == direct.state_dict()
        assert count == 6 or prefetched.source.state_dict() != direct.state_dict()
        assert len(prepared) <= count + 2


def test_the_thread_ends_with_the_epoch_with_the_loop_and_on_a_jump():
    prefetched = new_prefetch()
    list(prefetched)
    assert not prefetching()
    for _ in prefetched:
        break
    assert not prefetching()
    stream = iter(prefetched)
    next(stream)
    assert prefetching()
    prefetched.load_state_dict(new_loader().state_dict())
    assert not prefetching()
    assert len(ids(prefetched)) == 6


def test_a_new_loop_takes_over_from_one_left_open():
    prefetched, direct = new_prefetch(), new_loader()
    first = iter(prefetched)
    batches = [next(first), next(first), *prefetched]
    assert ids(batches) == ids(direct)
    assert not prefetching()


def test_an_exception_is_raised_in_the_loop_and_the_thread_ends():
    def broken(epoch, examples, length):
        if 7 in examples:
            raise DataError("token id 9 of example 7")
        return collate(epoch, examples)

    prefetched, direct = new_prefetch(collate=broken), new_loader(collate=broken)
    for loader in (prefetched, direct):
        with pytest.raises(DataError, match="example 7"):
            list(loader)
    assert prefetched.state_dict() == direct.state_dict()
    assert not prefetching()


def test_padding_is_right_of_the_tokens_and_masked():
    tokens, mask = pad([np.array([5, 6, 7]), np.array([8])], pad_id=3, max_length=100)
    assert tokens.tolist() == [[5, 6, 7, 3, 3, 3, 3, 3], [8, 3, 3, 3, 3, 3, 3, 3]]
    assert mask.tolist() == [[1, 1, 1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0]]
    assert tokens.dtype == mask.dtype == np.int32
    padded = {0: 8, 1: 8, 8: 8, 9: 16, 96: 96, 97: 100, 100: 100, 101: 100}
    for length, expected in padded.items():
        assert pad([np.arange(length)], 0, 100)[0].shape[1] == expected
    assert pad([np.arange(30)], 0, 20)[0].tolist() == [list(range(20))]


@pytest.mark.parametrize(
    ("field", "index", "number"),
    [("tokens", (1, 1), -1), ("tokens", (1, 1), 10), ("targets", (1,), -1), ("targets", (1,), 2)],
)
def test_no_number_out_of_range_reaches_the_device(field, index, number):
    batch = collate(0, np.arange(3))
    getattr(batch, field)[index] = number
    with pytest.raises(DataError, match=f" {number} of example 1: expected 0.."):
        check_ids(batch, 10, 2)


@pytest.mark.parametrize("targets", [[0.5, np.nan, 2.0], [[0.0, 1.0], [np.inf, 0.0], [1.0, 1.0]]])
def test_no_target_that_is_not_finite_reaches_the_loss(targets):
    numbers = np.array(targets, np.float32)
    batch = collate(0, np.arange(3))._replace(targets=numbers, loss_weights=np.zeros_like(numbers))
    with pytest.raises(DataError, match="target of example 1: expected a finite number"):
        check_ids(batch, 10, 2)
    finite = batch._replace(targets=np.nan_to_num(numbers, posinf=9.0))
    assert check_ids(finite, 10, 2) is finite


def prefetching():
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


NUM_LENGTHS = 203


def lengths(epoch: int) -> np.ndarray:
    return np.random.default_rng(epoch).integers(5, 90, NUM_LENGTHS)


def collate_by_length(epoch: int, examples: np.ndarray, length: int | None) -> Batch:
    sequences = [np.full(lengths(epoch)[example], example + 1, np.int32) for example in examples]
    tokens, mask = pad(sequences, 0, 100, length)
    ones = np.ones(len(examples), np.float32)
    return Batch(
        tokens, mask, np.zeros(len(examples), np.int32), ones, examples, {"mean": ones * 3}
    )


def new_bucket_loader(batching=None, size: int = 16, seed: int = 3) -> DataLoader:
    return make_loader(
        lengths,
        batching or FixedBatchSize(5),
        size,
        seed,
        collate_by_length,
        "print",
        np.arange(5, 90),
    )


BATCHINGS = [FixedBatchSize(5), TokenBudget(5), TokenBudget(3), FixedBatchSize(None)]


def ids_of(batches) -> list[int]:
    return [int(i) for batch in batches for i in batch.example_ids if i >= 0]


@pytest.mark.parametrize("batching", BATCHINGS)
def test_every_epoch_has_every_example_once_in_another_order(batching):
    data = new_bucket_loader(batching)
    first, second = ids_of(data), ids_of(data)
    assert sorted(first) == sorted(second) == list(range(NUM_LENGTHS))
    assert first != second
    assert data.epoch == 2


RESIZABLE = [FixedBatchSize(5), TokenBudget(5), FixedBatchSize(None)]


@pytest.mark.parametrize("batching", RESIZABLE)
def test_a_new_batch_size_continues_with_the_remaining_examples(batching):
    data = new_bucket_loader(batching)
    seen, stream = [], iter(data)
    for size in (16, 32, 8, 16, 16, 4):
        data.resize(size)
        seen += ids_of([next(stream), next(stream)])
    resumed = new_bucket_loader(batching, size=64)
    resumed.load_state_dict(json.loads(json.dumps(data.state_dict())))
    data.resize(64)
    remaining = ids_of(stream)
    assert remaining == ids_of(resumed)
    assert sorted(seen + remaining) == list(range(NUM_LENGTHS))


@pytest.mark.parametrize("batching", RESIZABLE)
def test_prefetching_changes_no_batch_and_a_new_size_comes_with_the_next_one(batching):
    def walk(data):
        stream, seen = iter(data), []
        for size in (16, 8, 32):
            data.resize(size)
            seen += [next(stream).example_ids.tolist() for _ in range(3)]
            seen.append(data.state_dict())
        seen += [batch.example_ids.tolist() for batch in stream]
        return [*seen, next(iter(data)).example_ids.tolist()]

    assert walk(new_bucket_loader(batching)) == walk(Prefetch(new_bucket_loader(batching), 3))


def test_a_budget_of_tokens_bounds_every_batch_and_makes_one_shape_a_length():
    data = new_bucket_loader(TokenBudget(5), size=9)
    batches = [batch for _ in range(5) for batch in data]
    assert max(batch.tokens.size for batch in batches) <= 9 * 89
    shapes = {batch.tokens.shape for batch in batches}
    assert len(shapes) == len({length for _, length in shapes}) == 5
    assert min(batch.tokens.size for batch in batches) > 400


def test_rows_that_only_fill_up_have_no_weight_and_no_id():
    batches = list(new_bucket_loader(TokenBudget(2), size=9))
    [batch] = [batch for batch in batches if (batch.example_ids < 0).any()]
    empty = batch.example_ids < 0
    assert (batch.loss_weights[empty] == 0).all()
    # Attention over nothing would not be finite.
    assert (batch.segment_ids[empty].sum(axis=1) == 1).all()
    assert len(batch.aux["mean"]) == len(batch.example_ids)


def test_bucket_boundaries_are_optimal():
    rng = np.random.default_rng(0)
    for count in (1, 2, 3, 4):
        sample = rng.integers(1, 15, 40)
        values = np.unique(sample)
        slots = lambda edges: sum(min(e for e in edges if e >= x) for x in sample)  # noqa: B023, E731
        minimum = min(
            slots(edges) for edges in combinations(values, count) if edges[-1] == values[-1]
        )
        assert slots(optimal_boundaries(sample, count).tolist()) == minimum


def test_the_titanic_has_at_most_five_percent_padding(tmp_path):
    data = make_titanic(tmp_path)
    masks = [batch.segment_ids for _ in range(2) for batch in data.train]
    assert 1 - sum(mask.sum() for mask in masks) / sum(mask.size for mask in masks) < 0.05
    assert len({mask.shape for mask in masks}) <= 8
