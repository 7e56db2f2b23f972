"""Order, batches, prefetch: any position is reached at once; the saved one is that of the batch last used."""

import json
import threading
import time

import numpy as np
import pytest

from mlxlab.data.batch import Batch, check_ids, pad
from mlxlab.data.loader import DataLoader, EvalLoader
from mlxlab.data.rng import counter_hash, epoch_permutation
from mlxlab.data.wrappers import Prefetch
from mlxlab.errors import DataError

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


@pytest.mark.parametrize("new", [new_loader, new_prefetch])
def test_each_epoch_shows_every_example_once_in_another_order(new):
    loader = new()
    epochs = [np.concatenate([batch.example_ids for batch in loader]) for _ in range(3)]
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(COUNT))
    assert not np.array_equal(epochs[0], epochs[1])
    assert not np.array_equal(epochs[1], epochs[2])


def test_the_short_last_batch_is_kept():
    loader = new_loader()
    sizes = [len(batch.example_ids) for batch in loader]
    assert sizes == [8, 8, 8, 8, 8, 5]
    assert loader.batches_per_epoch == len(sizes)


def test_order_is_a_function_of_seed_and_epoch():
    np.testing.assert_array_equal(epoch_permutation(COUNT, 3)(7), epoch_permutation(COUNT, 3)(7))
    assert not np.array_equal(epoch_permutation(COUNT, 3)(7), epoch_permutation(COUNT, 4)(7))
    assert epoch_permutation(5, 0)(0).tolist() == [
        3,
        4,
        2,
        1,
        0,
    ]  # the same in every version and on every machine


def test_draws_are_spread_evenly():
    draws = counter_hash(5, 1, np.arange(40_000)) % np.uint64(4)
    assert abs(np.bincount(draws.astype(int)) - 10_000).max() < 300


@pytest.mark.parametrize("new", [new_loader, new_prefetch])
@pytest.mark.parametrize("used", range(14))
def test_any_position_is_restored_from_its_state(new, used):
    uninterrupted = new()
    expected = [batch for _ in range(4) for batch in ids(uninterrupted)]
    loader, taken = new(), []
    while len(taken) < used:
        for batch in loader:
            taken.append(batch)
            if len(taken) == used:
                break
    state = json.loads(json.dumps(loader.state_dict()))
    resumed = new()
    resumed.load_state_dict(state)
    remaining = [*ids(resumed), *ids(resumed)]
    assert remaining == expected[used : used + len(remaining)]
    assert [*ids(loader)] == remaining[
        : len(remaining) - 6
    ]  # a loop that was left resumes from the same position


@pytest.mark.parametrize("new", [new_loader, new_prefetch])
def test_an_epoch_is_never_empty_after_a_resume_at_its_end(new):
    loader = new()
    assert len(ids(loader)) == 6
    resumed = new()
    resumed.load_state_dict(loader.state_dict())
    assert len(ids(resumed)) == 6


def test_a_position_can_be_restored_with_another_batch_size():
    loader = new_loader()
    stream = iter(loader)
    seen = [next(stream).example_ids for _ in range(2)]
    other = new_loader(size=7)
    other.load_state_dict(loader.state_dict())
    np.testing.assert_array_equal(
        np.sort(np.concatenate([*seen, *(batch.example_ids for batch in other)])), np.arange(COUNT)
    )


@pytest.mark.parametrize(
    "change",
    [
        {"fingerprint": "other"},
        {"consumed": [[8, 40], [9, 5]]},
        {"consumed": [[8, -1]]},
        {"consumed": [[0, 8]]},
        {"epoch": -1},
        {"epoch": "1"},
        {"more": 1},
    ],
    ids=str,
)
def test_a_malformed_position_or_one_in_other_data_is_refused(change):
    loader = new_loader()
    with pytest.raises(DataError, match="the saved position is"):
        loader.load_state_dict(loader.state_dict() | change)


def test_batches_are_the_same_with_and_without_prefetch():
    direct, prefetched = new_loader(), new_prefetch()
    for _ in range(3):
        assert ids(direct) == ids(prefetched)


def test_the_state_is_that_of_the_batch_last_yielded_not_of_the_last_prepared():
    direct, prefetched = new_loader(), new_prefetch()
    assert prefetched.state_dict() == direct.state_dict()
    for count, _ in enumerate(zip(direct, prefetched, strict=True), 1):
        time.sleep(0.02)  # time to run ahead
        assert prefetched.state_dict() == direct.state_dict()
        assert count == 6 or prefetched.source.state_dict() != direct.state_dict()


def test_no_more_than_depth_batches_run_ahead():
    calls = []

    def counting(epoch, examples, length):
        calls.append(examples)
        return collate(epoch, examples)

    stream = iter(Prefetch(new_loader(collate=counting), 2))
    next(stream)
    time.sleep(0.3)
    assert len(calls) == 1 + 2  # yielded, prepared
    stream.close()


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


def test_evaluation_gives_the_same_batches_each_time():
    loader = EvalLoader(COUNT, SIZE, lambda examples: collate(0, examples))
    assert ids(loader) == ids(loader)
    assert len(ids(loader)) == 6
    np.testing.assert_array_equal(
        np.concatenate([batch.example_ids for batch in loader]), np.arange(COUNT)
    )
    assert list(EvalLoader(0, SIZE, lambda examples: collate(0, examples))) == []


def test_lengths_are_rounded_up_to_eight_and_bounded():
    lengths = (0, 1, 8, 9, 96, 97, 100, 101)
    assert [pad([np.arange(n)], 0, 100)[0].shape[1] for n in lengths] == [
        8,
        8,
        8,
        16,
        96,
        100,
        100,
        100,
    ]


def test_padding_is_right_of_the_tokens_and_masked():
    tokens, mask = pad([np.array([5, 6, 7]), np.array([8])], pad_id=3, max_length=100)
    assert tokens.tolist() == [[5, 6, 7, 3, 3, 3, 3, 3], [8, 3, 3, 3, 3, 3, 3, 3]]
    assert mask.tolist() == [[1, 1, 1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0]]
    assert tokens.dtype == mask.dtype == np.int32
    assert pad([np.arange(30)], 0, 20)[0].tolist() == [list(range(20))]


@pytest.mark.parametrize("token", [-1, 10, 100_000])
def test_no_token_id_out_of_range_reaches_the_device(token):
    batch = collate(0, np.arange(3))
    batch.tokens[1, 1] = token
    with pytest.raises(DataError, match=f"token id {token} of example 1: expected 0..9"):
        check_ids(batch, 10, 2)


@pytest.mark.parametrize("label", [-1, 2, 7])
def test_no_label_out_of_range_reaches_the_loss(label):
    batch = collate(0, np.arange(3))
    batch.targets[2] = label
    with pytest.raises(DataError, match=f"label {label} of example 2: expected 0..1"):
        check_ids(batch, 10, 2)


@pytest.mark.parametrize("targets", [[0.5, np.nan, 2.0], [[0.0, 1.0], [np.inf, 0.0], [1.0, 1.0]]])
def test_no_target_that_is_not_finite_reaches_the_loss(targets):
    numbers = np.array(targets, np.float32)
    batch = collate(0, np.arange(3))._replace(targets=numbers, loss_weights=np.zeros_like(numbers))
    with pytest.raises(DataError, match="target of example 1: expected a finite number"):
        check_ids(batch, 10, 2)
    assert (
        check_ids(batch._replace(targets=np.nan_to_num(numbers, posinf=9.0)), 10, 2).loss_weights
        == 0
    ).all()


def prefetching():
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]
