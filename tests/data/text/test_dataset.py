"""Streams: any place is reached exactly, in chains, with threads and without, in memory and not."""

import json

import numpy as np
import pytest

from mlxlab.data.text.packing import EPOCH_START
from mlxlab.errors import DataError
from support.streams import ByteTokenizer, InMemorySource, as_lists, make_batches, take, texts

FRAMES = {
    "causal": {},
    "masked": {"masked": True, "mask_across_documents": True},
    "overlapping": {"stride": 3, "mask_across_documents": True},
    "sparse": {"stride": 21},
    "limited": {"limit": 9},
    "shuffled": {"row_shuffle_buffer": 10},
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_three_resumes_in_a_row_are_exact_with_and_without_prefetch(frame):
    expected = take(make_batches(**frame), 72)
    for count in range(51):
        taken = []
        state = None
        for part in (count, count // 3, 4):  # resumed, and resumed again before much was done
            batches = make_batches(prefetch=2 * (count % 5 == 0), **frame)
            if state is not None:
                batches.load_state_dict(json.loads(state))
            taken += take(batches, part) if part else []
            state = json.dumps(batches.state_dict())
        assert taken == expected[: len(taken)]
        assert len(state) < 220


def test_an_epoch_ends_at_the_start_of_the_next():
    batches = make_batches()
    states = [(batches.epoch, batches.at_epoch_start)]
    for _ in batches:
        states.append((batches.epoch, batches.at_epoch_start))
    assert states[0] == (0, True)
    assert states[-1] == (1, True)
    assert set(states[1:-1]) == {(0, False)}
    assert [as_lists(b) for b in batches] != [as_lists(b) for b in make_batches()]


def test_seeking_reads_and_tokenizes_no_earlier_document():
    source, tokenizer = InMemorySource(texts(200)), ByteTokenizer()
    batches = make_batches(source=source)
    take(batches, 150)
    state = batches.state_dict()
    assert state["start"]["documents_before"] > 50
    source.read.clear()
    resumed = make_batches(source=source, tokenizer=tokenizer)
    resumed.load_state_dict(state)
    stream = iter(resumed)
    next(stream)
    assert source.read[0] == (0, state["start"]["window"]["n"])
    assert len(source.read) <= 3
    assert len(tokenizer.seen) <= 12
    stream.close()


@pytest.mark.parametrize("size", [1, 2, 7])
def test_a_position_fits_another_batch_size(size):
    rows = [row for batch in take(make_batches(), 20) for row in batch[0]]
    batches = make_batches()
    take(batches, 5)
    other = make_batches(batch_size=size)
    other.load_state_dict(batches.state_dict())
    assert [row for batch in take(other, 3) for row in batch[0]] == rows[15 : 15 + 3 * size]


def test_epochs_and_seeds_differ_and_repeat():
    epochs = take(make_batches(), 52)
    assert epochs[:26] != epochs[26:]
    assert take(make_batches(), 52) == epochs
    assert take(make_batches(seed=4), 26) != epochs[:26]


@pytest.mark.parametrize(
    "change",
    [
        {"fingerprint": "other"},
        {"row": -1},
        {"offset": 1.5},
        {"start": None},
        {"start": {"document": 1}},
    ],
    ids=lambda change: str(change),
)
def test_a_position_of_other_data_is_refused(change):
    batches = make_batches()
    with pytest.raises(DataError, match="the saved position is"):
        batches.load_state_dict(batches.state_dict() | change)


def test_the_tokens_of_a_chunk_are_bounded_by_documents_and_by_characters():
    many = list(make_batches(source=InMemorySource(["ab"] * 600, size=600)).chunks(0, EPOCH_START))
    assert [len(chunk) for chunk in many] == [256, 256, 88]
    long = list(
        make_batches(source=InMemorySource(["a" * 700_000] * 3, size=3)).chunks(0, EPOCH_START)
    )
    assert [len(chunk) for chunk in long] == [2, 1]
    assert [each.cursor["document"] for chunk in many for each in chunk] == list(range(600))


def test_shuffled_rows_are_the_rows_of_the_text_in_another_order_each_epoch():
    def rows(buffer):
        epochs = []
        batches = make_batches(row_shuffle_buffer=buffer, batch_size=4)
        for _ in range(2):
            epochs.append(
                [
                    tuple(row)
                    for batch in batches
                    for row in np.hstack([batch.tokens, batch.targets]).tolist()
                ]
            )
        return epochs

    ordered, shuffled = rows(0), rows(10)
    for epoch in (0, 1):
        assert sorted(shuffled[epoch]) == sorted(ordered[epoch])
        assert shuffled[epoch] != ordered[epoch]
        for start in range(0, len(ordered[epoch]) // 10 * 10, 10):  # within their pools
            assert sorted(shuffled[epoch][start : start + 10]) == sorted(
                ordered[epoch][start : start + 10]
            )


def test_shuffled_rows_do_not_depend_on_the_batch_size():
    whole = [batch.tokens for batch in make_batches(row_shuffle_buffer=10, batch_size=4)]
    others = np.concatenate(
        [batch.tokens for batch in make_batches(row_shuffle_buffer=10, batch_size=3)]
    )
    real = min(len(others), sum(map(len, whole)) - 3)
    np.testing.assert_array_equal(others[: real - 3], np.concatenate(whole)[: real - 3])
