"""Packed rows: every token once, in its order, whatever the batch size; masks, hidden tokens, dealing."""

from operator import length_hint

import numpy as np
import pytest

from mlxlab.data.text.batches import Masker, PackedBatchIterator, RowOrder
from mlxlab.data.text.packing import EPOCH_START, RowLayout, epoch_start, pack
from mlxlab.errors import ConfigError, DataError
from support.streams import (
    END,
    MASK,
    PAD,
    ByteTokenizer,
    InMemorySource,
    batches_equal,
    make_batches,
    make_row_builder,
    make_stream,
    texts,
)


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
    spoken = [
        bytes(tokens[:-1].astype(np.uint8)).decode() for tokens in np.split(tokens, last + 1)[:-1]
    ]
    assert sorted(spoken) == sorted(texts())


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


@pytest.mark.parametrize("masked", [False, True])
def test_rows_do_not_depend_on_the_batch_size(masked):
    one, many = (real_rows(make_batches(batch_size=size, masked=masked)) for size in (1, 7))
    for a, b in zip(one, many, strict=True):
        np.testing.assert_array_equal(a, b)


def test_all_training_batches_have_one_shape_and_padding_has_no_weight():
    some = list(make_batches(batch_size=5))
    assert {batch.tokens.shape for batch in some} == {(5, 8)}
    added = some[-1].example_ids == -1
    assert added.any()
    assert not some[-1].segment_ids[added].any()
    assert not some[-1].loss_weights[added].any()
    assert (some[-1].tokens[added] == PAD).all()


def test_the_id_of_a_row_is_that_of_the_document_of_its_first_token():
    batches = make_batches()
    _, ids = stream_of(batches)
    example_ids = np.concatenate([batch.example_ids for batch in batches])
    np.testing.assert_array_equal(example_ids[example_ids >= 0], ids[:-1:8])


def test_without_isolation_a_row_is_one_document_and_its_mask_is_boolean():
    batch = next(iter(make_batches()))
    assert batch.segment_ids.dtype == bool
    assert batch.segment_ids.all()


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


def test_evaluation_gives_the_same_batches_each_time_and_keeps_the_short_last_one():
    chunks = list(make_stream(InMemorySource(texts()))(0, EPOCH_START))
    builder = make_row_builder()
    valid = builder.evaluation(list(pack(chunks, epoch_start(0), builder.layout)), 10)
    first, second = list(valid), list(valid)
    assert len(first) == len(second) == length_hint(valid)
    assert all(batches_equal(a, b) for a, b in zip(first, second, strict=True))
    assert {len(batch.example_ids) for batch in first} == {10, 7}
    tokens = np.concatenate([document.tokens for chunk in chunks for document in chunk])
    np.testing.assert_array_equal(
        np.concatenate([b.targets[b.loss_weights > 0] for b in first]), tokens[1:]
    )


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


def test_masked_tokens_are_a_function_of_seed_epoch_and_position():
    tokens = np.full((4, 64), 65, np.int32)
    real = np.ones_like(tokens, bool)

    def hide(seed=0, epoch=0, rows=(0, 1, 2, 3), of=slice(None)):
        masker = Masker(ByteTokenizer(), 0.15)
        return masker.mask_tokens(tokens[of], real[of], seed, epoch, np.array(rows))[1]

    np.testing.assert_array_equal(hide(rows=(2, 3), of=slice(2, 4)), hide()[2:4])
    for change in ({"seed": 1}, {"epoch": 1}, {"rows": (4, 5, 6, 7)}):
        assert not np.array_equal(hide(), hide(**change))


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


def test_a_tokenizer_without_a_mask_token_cannot_hide():
    tokenizer = ByteTokenizer()
    tokenizer.mask_id = None
    with pytest.raises(ConfigError, match="no mask token"):
        Masker(tokenizer, 0.15)


def test_an_epoch_without_text_ends_the_run():
    stream = make_stream(InMemorySource([]))
    with pytest.raises(DataError, match="no text to train on"):
        list(PackedBatchIterator(stream, make_row_builder(), 3, "", None, RowOrder()))


def test_one_long_document_makes_many_rows_and_many_short_ones_make_one():
    assert len(real_rows(make_batches(source=InMemorySource(["a" * 100])))[0]) == 13
    assert len(real_rows(make_batches(source=InMemorySource(["a", "b", "c"])))[0]) == 1
