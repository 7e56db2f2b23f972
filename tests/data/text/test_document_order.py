"""The exact window shuffle: a function of (seed, epoch), complete in every epoch, with any place within reach."""

import json

import numpy as np
import pytest

from mlxlab.data.text.documents import Document
from mlxlab.data.text.packing import EPOCH_START, InMemoryTokens, TextTokens
from support.streams import ByteTokenizer, InMemorySource, make_stream, texts

TEXTS = texts(50)


def windows_of(source, seed=0, epoch=0, start=EPOCH_START, **more):
    """The cursors and the documents of each window."""
    windows = make_stream(source, seed, **more).windows(epoch, start)
    return [([cursor for cursor, _ in window], [each for _, each in window]) for window in windows]


def read(source, seed=0, epoch=0, **more):
    return [
        document.text
        for _, documents in windows_of(source, seed, epoch, **more)
        for document in documents
    ]


def test_every_epoch_has_every_document_once_in_another_order():
    epochs = [read(InMemorySource(TEXTS), epoch=epoch) for epoch in range(3)]
    assert all(sorted(epoch) == sorted(TEXTS) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[1] == read(InMemorySource(TEXTS), epoch=1)
    assert epochs[1] != read(InMemorySource(TEXTS), seed=1, epoch=1)


def test_documents_are_shuffled_only_within_their_window():
    group = InMemorySource(TEXTS[:10], size=10).groups[0]
    orders = [
        windows_of(InMemorySource(TEXTS[:10], size=10), epoch=epoch)[0][1] for epoch in range(4)
    ]
    assert all(sorted(order) == sorted(group) for order in orders)
    assert len({tuple(order) for order in orders}) == 4


def start_of(window):
    cursors, _ = window
    return json.loads(json.dumps(cursors[0]))


def test_seeking_to_a_window_reads_no_earlier_window():
    whole = windows_of(InMemorySource(TEXTS), epoch=2)
    for number, window in enumerate(whole):
        source = InMemorySource(TEXTS)
        assert windows_of(source, epoch=2, start=start_of(window)) == whole[number:]
        assert source.read[0] == (2, number)


def test_documents_before_a_window_are_counted():
    windows = windows_of(InMemorySource(TEXTS))
    before = np.cumsum([0, *(len(documents) for _, documents in windows[:-1])]).tolist()
    assert [start_of(window)["documents_before"] for window in windows] == before


@pytest.mark.parametrize("limit", [1, 4, 10, 49, 50, 60])
def test_a_limit_takes_the_same_documents_every_epoch_and_reads_no_others(limit):
    source = InMemorySource(TEXTS)
    first, second = (read(source, epoch=epoch, limit=limit) for epoch in (0, 5))
    assert len(first) == min(limit, 50)
    assert sorted(first) == sorted(second)
    assert limit < 4 or first != second
    assert len(source.read) <= 2 * (limit // 4 + 2)


@pytest.mark.parametrize("number", range(4))
def test_the_document_limit_holds_when_resuming_at_any_window(number):
    whole = windows_of(InMemorySource(TEXTS), epoch=1, limit=13)
    assert (
        windows_of(InMemorySource(TEXTS), epoch=1, start=start_of(whole[number]), limit=13)
        == whole[number:]
    )


def test_only_chosen_documents_are_read():
    source = InMemorySource(TEXTS)
    chosen = np.array(sorted(document.id for group in source.groups[::3] for document in group[1:]))
    windows = windows_of(source, chosen=chosen)
    assert (
        sorted(document.id for _, documents in windows for document in documents) == chosen.tolist()
    )


def test_each_document_is_tokenized_once_for_memory_whenever_it_comes():
    tokenizer = ByteTokenizer()
    expected = TextTokens(ByteTokenizer())
    in_memory = InMemoryTokens(TextTokens(tokenizer))
    documents = [Document(number, text) for number, text in enumerate(TEXTS)]
    for part in (documents[:5], documents[3:20], documents[10:2:-1]):
        for kept, new in zip(in_memory(part), expected(part), strict=True):
            np.testing.assert_array_equal(kept.ids, new.ids)
            np.testing.assert_array_equal(kept.is_target, new.is_target)
    assert tokenizer.seen == TEXTS[:20]
