"""Documents as tokens, in an order that is a function of (seed, epoch), from any document on.

A source yields windows of documents, in another order each epoch, and each window is permuted here.
A position is (position of the window, index of the document in the permuted window): seeking reads
that one window again, and nothing before it. The usual shuffle buffer, refilled while it is drawn
from, has no such positions.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import NamedTuple, TypedDict

import numpy as np

from mlxlab.constraints import Count
from mlxlab.data.rng import Stream, counter_hash
from mlxlab.data.text.documents import Document, DocumentSource
from mlxlab.errors import DataError

CHUNK_DOCUMENTS = 256  # tokenized together: enough for the tokenizer's threads
CHUNK_CHARACTERS = 1 << 20  # A chunk of long documents has fewer.


class DocumentCursor(TypedDict):
    """A document of an epoch, as JSON."""

    window: object  # position of its window, in the terms of the source; None is the first window
    documents_before: Count  # documents of the epoch in earlier windows
    document: Count  # index in the shuffled window


EPOCH_START = DocumentCursor(window=None, documents_before=0, document=0)


class Tokens(NamedTuple):
    """D documents as tokens, one after another."""

    lengths: np.ndarray  # (D,) int64; 0 leaves a document out
    tokens: np.ndarray  # (sum of lengths,) int32
    is_target: np.ndarray  # (sum of lengths,) bool


Tokenize = Callable[[Sequence[Document]], Tokens]


class TokenChunk(NamedTuple):
    """D documents of one window as tokens, none of them empty."""

    cursors: np.ndarray  # (D,) of `DocumentCursor`
    ids: np.ndarray  # (D,) int64
    bytes: np.ndarray  # (D,) int64: the size of each text in UTF-8
    lengths: np.ndarray  # (D,) int64
    tokens: np.ndarray  # (sum of lengths,) int32
    is_target: np.ndarray  # (sum of lengths,) bool


@dataclass(frozen=True)
class TokenStream:
    """The documents of a source, shuffled, and tokenized as they are needed.

    Args:
        limit: maximum number of documents in an epoch, the same ones in each: their windows come in
            the same order.
        chosen: ids of the documents to be read, ascending; None for all.
    """

    source: DocumentSource
    tokenize: Tokenize
    seed: int
    limit: int | None = None
    chosen: np.ndarray | None = None

    def __call__(self, epoch: int, start: DocumentCursor) -> Generator[TokenChunk, None, None]:
        """The documents of the rest of an epoch."""
        for cursors, documents in self.windows(epoch, start):
            for part in split_chunks(documents):
                chunk = documents[part]
                lengths, tokens, is_target = self.tokenize(chunk)
                is_used = lengths > 0
                num_bytes = np.array([len(document.text.encode()) for document in chunk])
                yield TokenChunk(
                    np.array(cursors[part], object)[is_used],
                    ids_of(chunk)[is_used],
                    num_bytes[is_used],
                    lengths[is_used],
                    tokens,
                    is_target,
                )

    def windows(
        self, epoch: int, start: DocumentCursor
    ) -> Iterator[tuple[list[DocumentCursor], list[Document]]]:
        """The shuffled windows of the rest of an epoch, from the first document to be read.

        Raises DataError as the source does, and if none of an epoch's documents is chosen.
        """
        before = start["documents_before"]
        window_epoch = epoch if self.limit is None else 0
        for position, window in self.source.windows(self.seed, window_epoch, start["window"]):
            documents = select_documents(window, self.chosen, self.limit, before)
            draws = counter_hash(self.seed, Stream.WINDOW_SHUFFLE, epoch, ids_of(documents))
            first = start["document"] if position == start["window"] else 0
            order = np.argsort(draws, kind="stable")[first:]
            cursors = [
                DocumentCursor(window=position, documents_before=before, document=index)
                for index in range(first, len(documents))
            ]
            yield cursors, [documents[index] for index in order]
            before += len(documents)
            if self.limit is not None and before >= self.limit:
                return
        if self.chosen is not None and not before:
            raise DataError(
                f"{self.source.name}: none of the examples that data.select chose is a training"
                " example here; are their losses of other data?"
            )

    def repetitions(self, documents: int, num_bytes: int) -> float | None:
        """How many times as much text as a sample of that size an epoch has; None if unknown."""
        estimates: list[float] = []
        if self.limit is not None:
            estimates.append(self.limit / documents)
        if self.chosen is not None:
            estimates.append(len(self.chosen) / documents)
        if self.source.bytes is not None:
            estimates.append(self.source.bytes / num_bytes)
        return min(estimates, default=None)


def select_documents(
    documents: list[Document], chosen: np.ndarray | None, limit: int | None, before: int
) -> list[Document]:
    """The chosen documents of a window, `limit` in an epoch, of which `before` were in earlier windows."""
    if chosen is not None:
        ids = ids_of(documents)
        is_chosen = chosen.take(np.searchsorted(chosen, ids), mode="clip") == ids
        documents = list(compress(documents, is_chosen))
    return documents if limit is None else documents[: limit - before]


def ids_of(documents: Sequence[Document]) -> np.ndarray:
    return np.array([document.id for document in documents], np.int64)


def split_chunks(documents: Sequence[Document]) -> Iterator[slice]:
    """Slices of `documents` such that none has too many of them or too many characters."""
    begin = 0
    characters = 0
    for end, document in enumerate(documents, 1):
        characters += len(document.text)
        is_full = end - begin == CHUNK_DOCUMENTS or characters >= CHUNK_CHARACTERS
        if is_full or end == len(documents):
            yield slice(begin, end)
            begin = end
            characters = 0


@dataclass(frozen=True)
class TextTokens:
    """Texts as tokens, all of them targets. Implements `Tokenize`.

    Args:
        encode: int32 ids of each text, without special tokens.
        end_id: the token after every document.
    """

    encode: Callable[[Sequence[str]], list[np.ndarray]]
    end_id: int

    def __call__(self, documents: Sequence[Document]) -> Tokens:
        end = np.array([self.end_id], np.int32)
        pieces: list[np.ndarray] = []
        for tokens in self.encode([document.text for document in documents]):
            pieces += [tokens, end]
        return _all_targets([len(tokens) + 1 for tokens in pieces[::2]], pieces)


class InMemoryTokens:
    """Keeps the tokens of documents in memory. Implements `Tokenize`."""

    def __init__(self, tokenize: Tokenize) -> None:
        self.tokenize = tokenize
        self.tokens: dict[int, np.ndarray] = {}

    def __call__(self, documents: Sequence[Document]) -> Tokens:
        new = [document for document in documents if document.id not in self.tokens]
        if new:
            lengths, tokens, _ = self.tokenize(new)
            pieces = np.split(tokens, np.cumsum(lengths)[:-1])
            self.tokens.update(zip(ids_of(new).tolist(), pieces, strict=True))
        known = [self.tokens[document.id] for document in documents]
        return _all_targets([len(tokens) for tokens in known], known)


def _all_targets(lengths: Sequence[int], pieces: Sequence[np.ndarray]) -> Tokens:
    tokens = np.concatenate(pieces)
    return Tokens(np.array(lengths), tokens, np.ones(len(tokens), bool))
