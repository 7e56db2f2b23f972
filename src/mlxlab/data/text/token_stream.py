"""Documents as tokens, in an order that is a function of (seed, epoch), from any document on.

A source yields windows of documents, in another order each epoch, and each window is permuted here. A position is
(position of the window, index of the document in the permuted window): seeking reads that one window again, and nothing
before it. The usual shuffle buffer, refilled while it is drawn from, has no such positions.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol, TypedDict

import numpy as np

from mlxlab.constraints import Count
from mlxlab.data.rng import Stream, counter_hash
from mlxlab.data.text.documents import Document, DocumentSource
from mlxlab.errors import DataError

CHUNK_DOCUMENTS = 256  # tokenised together: enough for the tokenizer's threads
CHUNK_CHARACTERS = 1 << 20  # or fewer documents, if they are long


class DocumentCursor(TypedDict):
    """A document of an epoch, as JSON."""

    window: object  # position of its window, in the terms of the source; None is the first window
    documents_before: Count  # documents of the epoch in earlier windows
    document: Count  # index in the shuffled window


EPOCH_START = DocumentCursor(window=None, documents_before=0, document=0)


class TokenChunk(NamedTuple):
    """D documents of one window as tokens, each followed by the end token."""

    cursors: list[DocumentCursor]  # D
    ids: np.ndarray  # (D,) int64
    lengths: np.ndarray  # (D,) int64
    tokens: np.ndarray  # (sum of lengths,) int32
    bytes: int  # of the text; 0 if not known
    is_target: np.ndarray | None = None  # (sum of lengths,) bool; None: every token is a target


Window = tuple[
    list[DocumentCursor], np.ndarray, list[Document]
]  # cursors, ids and documents in the order of reading


class TokenChunks(Protocol):
    """The documents of an epoch as tokens, from any document on."""

    @property
    def source(self) -> DocumentSource: ...

    def __call__(self, epoch: int, start: DocumentCursor) -> Generator[TokenChunk, None, None]: ...


@dataclass(frozen=True)
class ShuffledDocuments:
    """The documents of a source in an order that is a function of (seed, epoch)."""

    source: DocumentSource
    seed: int
    limit: int | None = (
        None  # max documents of an epoch, the same ones in each: their windows come in the same order
    )
    chosen: np.ndarray | None = None  # ids of the documents to be read, ascending; None for all

    def windows(self, epoch: int, start: DocumentCursor) -> Iterator[Window]:
        """The windows of the rest of an epoch, each from the first document on that is to be read.

        Raises:
            DataError: as the source does, and if none of an epoch's documents is chosen.
        """
        before = start["documents_before"]
        for position, documents in self.source.windows(
            self.seed, epoch if self.limit is None else 0, start["window"]
        ):
            ids = np.array([document.id for document in documents], np.int64)
            if self.chosen is not None:
                is_chosen = self.chosen.take(np.searchsorted(self.chosen, ids), mode="clip") == ids
                documents, ids = (
                    [documents[index] for index in np.flatnonzero(is_chosen)],
                    ids[is_chosen],
                )
            if self.limit is not None:
                documents, ids = documents[: self.limit - before], ids[: self.limit - before]
            order = np.argsort(
                counter_hash(self.seed, Stream.WINDOW_SHUFFLE, epoch, ids), kind="stable"
            )
            first = start["document"] if position == start["window"] else 0
            new_cursor = partial(DocumentCursor, window=position, documents_before=before)
            cursors = [new_cursor(document=index) for index in range(first, len(documents))]
            yield cursors, ids[order[first:]], [documents[index] for index in order[first:]]
            before += len(documents)
            if self.limit is not None and before >= self.limit:
                return
        if self.chosen is not None and not before:
            message = "none of the examples that data.select chose is a training example here"
            raise DataError(f"{self.source.name}: {message}; are their losses of other data?")


@dataclass(frozen=True)
class TokenStream:
    """The documents of a source, shuffled and tokenised as they are needed."""

    source: DocumentSource
    encode: Callable[
        [Sequence[str]], list[np.ndarray]
    ]  # int32 ids of each text, without special tokens
    end_id: int  # the token after every document
    seed: int
    limit: int | None = None  # as in `ShuffledDocuments`
    chosen: np.ndarray | None = None

    def windows(self, epoch: int, start: DocumentCursor) -> Iterator[Window]:
        """See `ShuffledDocuments`."""
        return ShuffledDocuments(self.source, self.seed, self.limit, self.chosen).windows(
            epoch, start
        )

    def __call__(self, epoch: int, start: DocumentCursor) -> Generator[TokenChunk, None, None]:
        end_token = np.array([self.end_id], np.int32)
        for cursors, ids, documents in self.windows(epoch, start):
            for chunk in split_chunks(documents):
                texts = [document.text for document in documents[chunk]]
                encoded = self.encode(texts)
                lengths = np.array([len(tokens) + 1 for tokens in encoded], np.int64)
                tokens = np.concatenate(
                    [piece for tokens in encoded for piece in (tokens, end_token)]
                )
                yield TokenChunk(
                    cursors[chunk],
                    ids[chunk],
                    lengths,
                    tokens,
                    sum(len(text.encode()) for text in texts),
                )


class InMemoryTokens:
    """The chunks of a stream, tokenised once; afterwards its source only determines the order of each epoch."""

    def __init__(self, stream: TokenStream) -> None:
        self.stream, self.source = stream, stream.source
        chunks = list(stream(0, EPOCH_START))
        ids = np.concatenate([np.zeros(0, np.int64), *(chunk.ids for chunk in chunks)])
        lengths = np.concatenate([np.zeros(0, np.int64), *(chunk.lengths for chunk in chunks)])
        self.num_tokens = int(lengths.sum())  # of an epoch
        self.tokens = np.concatenate([np.zeros(0, np.int32), *(chunk.tokens for chunk in chunks)])
        self.ids, first = np.unique(ids, return_index=True)
        self.lengths, self.ends = lengths[first], np.cumsum(lengths)[first]

    def __call__(self, epoch: int, start: DocumentCursor) -> Generator[TokenChunk, None, None]:
        for cursors, ids, _ in self.stream.windows(epoch, start):
            if len(ids):
                rows = np.searchsorted(self.ids, ids)
                lengths, ends = self.lengths[rows], self.ends[rows]
                tokens = np.concatenate(
                    [self.tokens[i:j] for i, j in zip(ends - lengths, ends, strict=True)]
                )
                yield TokenChunk(cursors, ids, lengths, tokens, 0)


def split_chunks(documents: Sequence[Document]) -> Iterator[slice]:
    """Slices of `documents` such that none has too many of them or too many characters."""
    begin, characters = 0, 0
    for end, document in enumerate(documents, 1):
        characters += len(document.text)
        if (
            end == len(documents)
            or end - begin == CHUNK_DOCUMENTS
            or characters >= CHUNK_CHARACTERS
        ):
            yield slice(begin, end)
            begin, characters = end, 0
