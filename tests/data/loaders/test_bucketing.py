"""Batches by length: little padding, few shapes, every example once an epoch, from any position, at any size."""

import json
from itertools import combinations

import numpy as np
import pytest

from mlxlab.data.batch import Batch, pad
from mlxlab.data.loader import (
    DataLoader,
    FixedBatchSize,
    TokenBudget,
    make_loader,
    optimal_boundaries,
)
from mlxlab.data.wrappers import Prefetch
from mlxlab.errors import DataError
from support.titanic import make_titanic

COUNT = 203


def lengths(epoch: int) -> np.ndarray:
    return np.random.default_rng(epoch).integers(5, 90, COUNT)


def collate(epoch: int, examples: np.ndarray, length: int | None) -> Batch:
    sequences = [np.full(lengths(epoch)[example], example + 1, np.int32) for example in examples]
    tokens, mask = pad(sequences, 0, 100, length)
    ones = np.ones(len(examples), np.float32)
    return Batch(
        tokens, mask, np.zeros(len(examples), np.int32), ones, examples, {"mean": ones * 3}
    )


def new_loader(batching=None, size: int = 16, seed: int = 3) -> DataLoader:
    return make_loader(
        lengths, batching or FixedBatchSize(5), size, seed, collate, "print", np.arange(5, 90)
    )


BATCHINGS = [FixedBatchSize(5), TokenBudget(5), TokenBudget(3), FixedBatchSize(None)]


def ids_of(batches) -> list[int]:
    return [int(i) for batch in batches for i in batch.example_ids if i >= 0]


@pytest.mark.parametrize("batching", BATCHINGS)
def test_every_epoch_has_every_example_once_in_another_order(batching):
    data = new_loader(batching)
    first, second = ids_of(data), ids_of(data)
    assert sorted(first) == sorted(second) == list(range(COUNT))
    assert first != second
    assert data.epoch == 2


@pytest.mark.parametrize("batching", BATCHINGS)
def test_loading_a_state_restores_the_same_state(batching):
    data = new_loader(batching)
    expected = [[list(batch.example_ids) for batch in data] for _ in range(2)]
    for stop in (0, 1, 7, len(expected[0]) - 1, len(expected[0])):
        data = new_loader(batching)
        stream = iter(data)
        seen = [list(next(stream).example_ids) for _ in range(stop)]
        resumed = new_loader(batching)
        resumed.load_state_dict(json.loads(json.dumps(data.state_dict())))
        assert (
            (resumed.epoch, resumed.at_epoch_start)
            == (data.epoch, data.at_epoch_start)
            == (stop // len(expected[0]), stop in (0, len(expected[0])))
        )
        remaining = [list(batch.example_ids) for batch in resumed]
        assert (
            seen + remaining == expected[0] if stop < len(expected[0]) else remaining == expected[1]
        )


RESIZABLE = [FixedBatchSize(5), TokenBudget(5), FixedBatchSize(None)]


@pytest.mark.parametrize("batching", RESIZABLE)
def test_a_new_batch_size_continues_with_the_remaining_examples(batching):
    data = new_loader(batching)
    seen, stream = [], iter(data)
    for size in (16, 32, 8, 16, 16, 4):
        data.resize(size)
        seen += ids_of([next(stream), next(stream)])
    resumed = new_loader(batching, size=64)
    resumed.load_state_dict(json.loads(json.dumps(data.state_dict())))
    data.resize(64)
    remaining = ids_of(stream)
    assert remaining == ids_of(resumed)
    assert sorted(seen + remaining) == list(range(COUNT))


@pytest.mark.parametrize("batching", RESIZABLE)
def test_prefetching_changes_no_batch_and_a_new_size_comes_with_the_next_one(batching):
    def walk(data):
        stream, seen = iter(data), []
        for size in (16, 8, 32):
            data.resize(size)
            seen += [next(stream).example_ids.tolist() for _ in range(3)]
            seen.append(data.state_dict())
        return (
            seen
            + [batch.example_ids.tolist() for batch in stream]
            + [next(iter(data)).example_ids.tolist()]
        )

    assert walk(new_loader(batching)) == walk(Prefetch(new_loader(batching), 3))


def test_a_new_size_at_the_end_of_an_epoch_ends_that_epoch():
    data = Prefetch(new_loader(size=101), 2)
    seen = []
    for batch in data:
        seen.append(len(batch.example_ids))
        if data.at_epoch_start:
            data.resize(7)
    assert sorted(seen) == [1, 101, 101]
    assert len(next(iter(data)).example_ids) == 7


def test_a_position_of_other_data_is_refused():
    other = make_loader(lengths, FixedBatchSize(5), 16, 3, collate, "another", lengths(0))
    with pytest.raises(DataError, match="other data"):
        other.load_state_dict(new_loader().state_dict())


def test_a_thousand_batches_of_random_lengths_have_at_most_eight_shapes():
    shapes, data = set(), new_loader(FixedBatchSize(7))
    for _ in range(1000 // data.batches_per_epoch + 1):
        shapes |= {batch.tokens.shape for batch in data}
    assert len(shapes) <= 8
    assert len({rows for rows, _ in shapes}) == 2  # only the last batch of an epoch is short


def test_a_budget_of_tokens_bounds_every_batch_and_makes_one_shape_a_length():
    data = new_loader(TokenBudget(5), size=9)
    batches = [batch for _ in range(5) for batch in data]
    assert max(batch.tokens.size for batch in batches) <= 9 * 89
    shapes = {batch.tokens.shape for batch in batches}
    assert len(shapes) == len({length for _, length in shapes}) == 5
    assert min(batch.tokens.size for batch in batches) > 400


def test_rows_that_only_fill_up_have_no_weight_and_no_id():
    batches = [
        batch for batch in new_loader(TokenBudget(2), size=9) if (batch.example_ids < 0).any()
    ]
    assert len(batches) == 1
    empty = batches[0].example_ids < 0
    assert (batches[0].loss_weights[empty] == 0).all()
    assert (
        batches[0].segment_ids[empty].sum(axis=1) == 1
    ).all()  # not 0: attention over nothing would not be finite
    assert len(batches[0].aux["mean"]) == len(batches[0].example_ids)


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


def test_few_lengths_need_few_edges_and_long_ones_are_covered():
    assert optimal_boundaries(np.array([3, 3, 9]), 7).tolist() == [3, 9]
    long = np.random.default_rng(1).integers(1, 100_000, 5000)
    assert optimal_boundaries(long, 6)[-1] >= long.max()
    assert len(optimal_boundaries(long, 6)) == 6


def test_the_titanic_has_at_most_five_percent_padding(tmp_path):
    data = make_titanic(tmp_path)
    masks = [batch.segment_ids for _ in range(2) for batch in data.train]
    assert 1 - sum(mask.sum() for mask in masks) / sum(mask.size for mask in masks) < 0.05
    assert len({mask.shape for mask in masks}) <= 8
