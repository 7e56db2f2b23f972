"""Documents as tokens, in an order that is a function of (seed, epoch), from any document on.

A source yields windows of documents, in another order each epoch, and each window is permuted here. A position is
(position of the window, index of the document in the permuted window): seeking reads that one window again, and nothing
before it. The usual shuffle buffer, refilled while it is drawn from, has no such positions.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypedDict

import numpy as np

from mlxlab.constraints import Count
from mlxlab.data.rng import Stream, counter_hash
from mlxlab.data.text.document import Document, DocumentSource, Position

CHUNK_DOCUMENTS = 256  # tokenised together: enough for the tokenizer's threads
CHUNK_CHARACTERS = 1 << 20  # or fewer documents, if they are long


class DocumentCursor(TypedDict):
    """A document of an epoch, as JSON."""

    window: object  # position of its window, in the terms of the source; None is the first window
    documents_before: Count  # documents of the epoch in earlier windows
    document: Count  # index in the shuffled window


EPOCH_START = DocumentCursor(window=None, documents_before=0, document=0)


class Window(NamedTuple):
    """Documents in the order in which they are read."""

    position: Position
    documents_before: int
    documents: list[Document]

    def cursors(self, begin: int, end: int) -> list[DocumentCursor]:
        return [
            DocumentCursor(window=self.position, documents_before=self.documents_before, document=index)
            for index in range(begin, end)
        ]


class TokenChunk(NamedTuple):
    """D documents of one window as tokens, each followed by the end token."""

    cursors: list[DocumentCursor]  # D
    ids: np.ndarray  # (D,) int64
    lengths: np.ndarray  # (D,) int64
    tokens: np.ndarray  # (sum of lengths,) int32
    bytes: int  # of the text; 0 if not known


class ChunkSource(Protocol):
    """The tokens of an epoch, from any document on."""

    @property
    def skipped_records(self) -> int: ...

    def __call__(self, epoch: int, start: DocumentCursor) -> Generator[TokenChunk, None, None]: ...


@dataclass(frozen=True)
class TokenStream:
    """The documents of a source, shuffled and tokenised as they are needed.

    Args:
        encode: int32 ids of each text, without special tokens.
        end_id: the token after every document.
        limit: maximum number of documents of an epoch. They are the same ones in every epoch, so their windows come in
            the same order.
        chosen: ids of the documents to be read, ascending; None for all.
    """

    source: DocumentSource
    encode: Callable[[Sequence[str]], list[np.ndarray]]
    end_id: int
    seed: int
    limit: int | None = None
    chosen: np.ndarray | None = None

    @property
    def skipped_records(self) -> int:
        return self.source.skipped_records

    def windows(self, epoch: int, start: DocumentCursor) -> Iterator[tuple[Window, int]]:
        """The windows of an epoch, each with the index of the first document in it to be read."""
        before = start["documents_before"]
        order_epoch = epoch if self.limit is None else 0
        for position, documents in self.source.windows(self.seed, order_epoch, start["window"]):
            if self.chosen is not None:
                ids = _ids(documents)
                is_chosen = self.chosen.take(np.searchsorted(self.chosen, ids), mode="clip") == ids
                documents = [documents[index] for index in np.flatnonzero(is_chosen)]
            if self.limit is not None:
                documents = documents[: self.limit - before]
            draws = counter_hash(self.seed, Stream.WINDOW_SHUFFLE, epoch, _ids(documents))
            order = np.argsort(draws, kind="stable")
            window = Window(position, before, [documents[index] for index in order])
            yield window, start["document"] if position == start["window"] else 0
            before += len(documents)
            if self.limit is not None and before >= self.limit:
                return

    def __call__(self, epoch: int, start: DocumentCursor) -> Generator[TokenChunk, None, None]:
        for window, first in self.windows(epoch, start):
            for begin, end in _chunk_bounds(window.documents, first):
                yield self._tokenize(window, begin, end)

    def _tokenize(self, window: Window, begin: int, end: int) -> TokenChunk:
        documents = window.documents[begin:end]
        texts = [document.text for document in documents]
        encoded = self.encode(texts)
        end_token = np.array([self.end_id], np.int32)
        return TokenChunk(
            window.cursors(begin, end),
            _ids(documents),
            np.array([len(ids) + 1 for ids in encoded], np.int64),
            np.concatenate([piece for ids in encoded for piece in (ids, end_token)]),
            sum(len(text.encode()) for text in texts),
        )


class InMemoryTokens:
    """The chunks of a stream, tokenised once; afterwards its source only determines the order of each epoch.

    `num_tokens` is the number of tokens of an epoch.
    """

    def __init__(self, stream: TokenStream) -> None:
        self.stream = stream
        chunks = list(stream(0, EPOCH_START))
        ids = np.concatenate([np.zeros(0, np.int64), *(chunk.ids for chunk in chunks)])
        lengths = np.concatenate([np.zeros(0, np.int64), *(chunk.lengths for chunk in chunks)])
        self.num_tokens = int(lengths.sum())
        self.tokens = np.concatenate([np.zeros(0, np.int32), *(chunk.tokens for chunk in chunks)])
        self.ids, first = np.unique(ids, return_index=True)
        self.lengths, self.ends = lengths[first], np.cumsum(lengths)[first]

    @property
    def skipped_records(self) -> int:
        return self.stream.skipped_records

    def __call__(self, epoch: int, start: DocumentCursor) -> Generator[TokenChunk, None, None]:
        for window, first in self.stream.windows(epoch, start):
            ids = _ids(window.documents[first:])
            if len(ids):
                rows = np.searchsorted(self.ids, ids)
                lengths, ends = self.lengths[rows], self.ends[rows]
                tokens = np.concatenate([self.tokens[i:j] for i, j in zip(ends - lengths, ends, strict=True)])
                yield TokenChunk(window.cursors(first, len(window.documents)), ids, lengths, tokens, 0)


def _ids(documents: Sequence[Document]) -> np.ndarray:
    return np.array([document.id for document in documents], np.int64)


def _chunk_bounds(documents: Sequence[Document], first: int) -> Iterator[tuple[int, int]]:
    """Ranges of indices such that no chunk has too many documents or characters."""
    begin, characters = first, 0
    for end, document in enumerate(documents[first:], first + 1):
        characters += len(document.text)
        if end == len(documents) or end - begin == CHUNK_DOCUMENTS or characters >= CHUNK_CHARACTERS:
            yield begin, end
            begin, characters = end, 0
