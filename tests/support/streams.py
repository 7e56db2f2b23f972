"""A source in memory and a tokenizer for tests of streams."""

import itertools

import numpy as np

from mlxlab.data.rng import counter_hash, epoch_permutation
from mlxlab.data.sources.open import Reading
from mlxlab.data.text.batches import (
    PackedBatchIterator,
    RowBuilder,
    RowOrder,
)
from mlxlab.data.text.documents import Document, open_documents
from mlxlab.data.text.packing import RowLayout, TextTokens, TokenStream
from mlxlab.data.wrappers import Prefetch

VOCABULARY, PAD, END, MASK = 259, 256, 257, 258


def open_source(
    source, split=None, *, text_column="text", on_error="strict", window=4000, **reading
):
    """A source with the defaults of data=streaming."""
    return open_documents(source, split, Reading(**reading), text_column, on_error, window)


class ByteTokenizer:
    """A token per byte."""

    vocab_size, fingerprint, bos_id = VOCABULARY, "bytes", None
    pad_id, eos_id, end_id, mask_id = PAD, END, END, MASK

    def __init__(self):
        self.seen = []

    def encode_documents(self, texts):
        self.seen += texts
        return [np.frombuffer(text.encode(), np.uint8).astype(np.int32) for text in texts]


class InMemorySource:
    """Documents in windows of `size`, the windows permuted in every epoch. `read` lists the windows handed out."""

    name, fingerprint, bytes, skipped_records = "listed", "listed", None, 0

    def __init__(self, texts, size=4):
        documents = [Document(7 * number + 1, text) for number, text in enumerate(texts)]
        self.groups = [documents[start : start + size] for start in range(0, len(documents), size)]
        self.read = []

    def windows(self, seed, epoch, position=None):
        order = epoch_permutation(len(self.groups), seed)(epoch)
        for number in range(0 if position is None else position["n"], len(order)):
            self.read.append((epoch, number))
            yield {"n": number}, list(self.groups[order[number]])


def texts(count=23, longest=40):
    """Documents of 1 to `longest` letters, each of its own."""
    lengths = (counter_hash(5, np.arange(count)) % np.uint64(longest)).astype(int) + 1
    return [
        "".join(chr(97 + (n * 5 + i * (n + 3)) % 26) for i in range(length))
        for n, length in enumerate(lengths)
    ]


def make_row_builder(length=8, stride=None, mask_across_documents=False, masked=False):
    layout = RowLayout(length, stride or length, 0 if masked else 1, PAD, mask_across_documents)
    return RowBuilder(layout, ByteTokenizer(), 0.15 if masked else None)


def make_stream(source, seed=3, tokenizer=None, **more):
    tokenize = TextTokens(tokenizer or ByteTokenizer())
    return TokenStream(source, tokenize, seed, **more)


def make_batches(
    source=None,
    batch_size=3,
    prefetch=0,
    seed=3,
    limit=None,
    tokenizer=None,
    row_shuffle_buffer=0,
    order=None,
    **frame,
) -> PackedBatchIterator | Prefetch:
    stream = make_stream(source or InMemorySource(texts()), seed, tokenizer, limit=limit)
    builder, rows = make_row_builder(**frame), order or RowOrder(row_shuffle_buffer, seed)
    batches = PackedBatchIterator(stream, builder, batch_size, "listed", None, rows)
    return Prefetch(batches, prefetch) if prefetch else batches


def take(batches, count):
    """The next `count` batches, over the ends of epochs, as nested lists."""
    endless = itertools.chain.from_iterable(batches for _ in itertools.count())
    taken = []
    for batch in endless:
        taken.append(as_lists(batch))
        if len(taken) == count:
            endless.close() if hasattr(endless, "close") else None
            return taken
    return taken


def as_lists(batch):
    return [array.tolist() for array in batch[:5]]


def batches_equal(one, other):
    return all(
        np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(one[:5], other[:5], strict=True)
    )
