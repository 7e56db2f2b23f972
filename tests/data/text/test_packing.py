"""Token streams and packed rows: every token once, in an order of (seed, epoch), from any place."""

import json

import numpy as np
import pytest

from mlxlab.data.text.batches import Masker
from mlxlab.data.text.packing import (
    EPOCH_START,
    RowLayout,
)
from mlxlab.errors import DataError
from support.streams import (
    END,
    MASK,
    PAD,
    ByteTokenizer,
    InMemorySource,
    make_batches,
    make_stream,
    take,
    texts,
)

TEXTS = texts(50)


def windows_of(source, seed=0, epoch=0, start=EPOCH_START, **more):
    """The cursors and the documents of each window."""
    windows = make_stream(source, seed, **more).windows(epoch, start)
    return [([cursor for cursor, _ in window], [each for _, each in window]) for window in windows]


def read(source, seed=0, epoch=0, **more):
    windows = windows_of(source, seed, epoch, **more)
    return [document.text for _, documents in windows for document in documents]


@pytest.mark.parametrize("limit", [1, 4, 10, 49, 50, 60])
def test_a_limit_takes_the_same_documents_every_epoch_and_reads_no_others(limit):
    source = InMemorySource(TEXTS)
    first, second = (read(source, epoch=epoch, limit=limit) for epoch in (0, 5))
    assert len(first) == min(limit, 50)
    assert sorted(first) == sorted(second)
    assert limit < 4 or first != second
    assert len(source.read) <= 2 * (limit // 4 + 2)


def test_only_chosen_documents_are_read():
    source = InMemorySource(TEXTS)
    chosen = sorted(document.id for group in source.groups[::3] for document in group[1:])
    windows = windows_of(source, chosen=np.array(chosen))
    assert sorted(document.id for _, documents in windows for document in documents) == chosen


def stream_of(batches, epoch=0):
    """All tokens of an epoch, and the id of the document that each belongs to."""
    documents = [each for chunk in batches.chunks(epoch, EPOCH_START) for each in chunk]
    tokens = np.concatenate([document.tokens for document in documents])
    ids = [document.id for document in documents]
    return tokens, np.repeat(ids, [len(document.tokens) for document in documents])


def real_rows(batches):
    """Rows with a target, of the whole epoch: tokens, targets and weights."""
    some = list(batches)
    tokens, targets, weights = (
        np.concatenate([getattr(batch, name) for batch in some])
        for name in ("tokens", "targets", "loss_weights")
    )
    real = weights.sum(axis=1) > 0
    return tokens[real], targets[real], weights[real]


@pytest.mark.parametrize("batch_size", [1, 3, 64, 1000])
def test_targets_one_after_the_other_are_the_stream_of_tokens(batch_size):
    batches = make_batches(batch_size=batch_size)
    tokens, _ = stream_of(batches)
    xs, ys, weights = real_rows(batches)
    np.testing.assert_array_equal(ys[weights > 0], tokens[1:])
    np.testing.assert_array_equal(xs[weights > 0], tokens[:-1])


def test_each_document_ends_with_its_end_token():
    tokens, ids = stream_of(make_batches())
    last = np.flatnonzero(np.append(ids[1:] != ids[:-1], True))
    np.testing.assert_array_equal(np.flatnonzero(tokens == END), last)
    assert len(last) == 23
    parts = np.split(tokens.astype(np.uint8), last + 1)[:-1]
    assert sorted(bytes(part[:-1]).decode() for part in parts) == sorted(texts())


@pytest.mark.parametrize("stride", [1, 3, 8, 11, 50])
@pytest.mark.parametrize("length", [8, 9])
def test_a_stride_gives_the_number_of_full_rows_that_it_should(stride, length):
    batches = make_batches(length=length, stride=stride)
    tokens, _ = stream_of(batches)
    xs, _, weights = real_rows(batches)
    n = len(tokens)
    full = weights.sum(axis=1) == length
    assert full.sum() == (n - 1 - length) // stride + 1
    assert not full[full.sum() :].any()
    assert len(full) == RowLayout(length, stride, 1, PAD).count_rows(n)
    for row in np.flatnonzero(full):
        np.testing.assert_array_equal(xs[row], tokens[row * stride : row * stride + length])
    if stride <= length:
        covered = np.zeros(n, bool)
        for row in range(len(full)):
            covered[row * stride + 1 : row * stride + 1 + int(weights[row].sum())] = True
        assert covered[1:].all()


def test_all_training_batches_have_one_shape_and_padding_has_no_weight():
    some = list(make_batches(batch_size=5))
    assert {batch.tokens.shape for batch in some} == {(5, 8)}
    added = some[-1].example_ids == -1
    assert added.any()
    assert not some[-1].segment_ids[added].any()
    assert not some[-1].loss_weights[added].any()
    assert (some[-1].tokens[added] == PAD).all()


@pytest.mark.parametrize("masked", [False, True])
def test_isolated_documents_are_numbered_from_one_in_each_row(masked):
    batches = make_batches(mask_across_documents=True, masked=masked, batch_size=100)
    (batch,) = list(batches)
    _, ids = stream_of(batches)
    assert batch.segment_ids.dtype == np.int32
    for row, mask in enumerate(batch.segment_ids):
        own = ids[row * 8 : row * 8 + int((mask > 0).sum())]
        expected = np.cumsum(np.append(1, own[1:] != own[:-1])) if len(own) else own
        np.testing.assert_array_equal(mask[mask > 0], expected)
        assert not (mask[len(own) :]).any()


def test_hidden_tokens_are_15_percent_of_the_ordinary_ones_80_10_10():
    tokens = np.random.default_rng(0).integers(0, 256, (400, 128)).astype(np.int32)
    tokens[:, ::16] = END
    masker = Masker(ByteTokenizer(), 0.15)
    given, hidden = masker.mask_tokens(tokens, np.ones_like(tokens, bool), 0, 0, np.arange(400))
    assert not hidden[tokens == END].any()
    assert hidden.sum() / (tokens != END).sum() == pytest.approx(0.15, abs=0.005)
    np.testing.assert_array_equal(given[~hidden], tokens[~hidden])
    shown = given[hidden]
    assert (shown == MASK).mean() == pytest.approx(0.8, abs=0.02)
    assert (shown == tokens[hidden]).mean() == pytest.approx(0.1, abs=0.02)
    other = shown[(shown != MASK) & (shown != tokens[hidden])]
    assert other.max() < 256
    assert len(np.unique(other)) > 200


def test_a_row_with_something_to_guess_has_a_target():
    tokens = np.full((200, 3), 65, np.int32)
    tokens[:50] = END
    masker = Masker(ByteTokenizer(), 0.15)
    _, hidden = masker.mask_tokens(tokens, tokens > 0, 0, 0, np.arange(200))
    assert hidden[50:].any(axis=1).all()
    assert not hidden[:50].any()


def test_masked_targets_are_the_hidden_tokens():
    batches = make_batches(masked=True, batch_size=4)
    stream, _ = stream_of(batches)
    xs, ys, weights = real_rows(batches)
    shown = np.where(weights > 0, ys, xs).reshape(-1)[: len(stream)]
    np.testing.assert_array_equal(shown, stream)  # every position, the last ones too


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
    for count in range(0, 51, 2):
        taken = []
        state = None
        for part in (count, count // 3, 4):  # resumed, and resumed again before much was done
            batches = make_batches(prefetch=2 * (count % 10 == 0), **frame)
            if state is not None:
                batches.load_state_dict(json.loads(state))
            taken += take(batches, part) if part else []
            state = json.dumps(batches.state_dict())
        assert taken == expected[: len(taken)]
        assert len(state) < 220


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


DAMAGES = [{"fingerprint": "other"}, {"row": -1}, {"offset": 1.5}, {"start": None}]


@pytest.mark.parametrize("change", [*DAMAGES, {"start": {"document": 1}}], ids=str)
def test_a_position_of_other_data_is_refused(change):
    batches = make_batches()
    with pytest.raises(DataError, match="the saved position is"):
        batches.load_state_dict(batches.state_dict() | change)


def test_shuffled_rows_are_the_rows_of_the_text_in_another_order_each_epoch():
    def epochs(buffer):
        batches = make_batches(row_shuffle_buffer=buffer, batch_size=4)
        for _ in range(2):
            packed = [np.hstack([batch.tokens, batch.targets]) for batch in batches]
            yield np.concatenate(packed).tolist()

    for ordered, shuffled in zip(epochs(0), epochs(10), strict=True):
        assert sorted(shuffled) == sorted(ordered)
        assert shuffled != ordered
        for start in range(0, len(ordered) // 10 * 10, 10):  # within their pools
            pool = slice(start, start + 10)
            assert sorted(shuffled[pool]) == sorted(ordered[pool])
