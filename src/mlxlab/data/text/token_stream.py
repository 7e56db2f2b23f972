"""Documents as tokens, made as they are needed: a window is read, tokenised in chunks, and handed on."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from mlxlab.data.text.cursor import DocumentCursor
from mlxlab.data.text.document import Document, DocumentSource, Position
from mlxlab.data.text.window_shuffle import Window, shuffled_windows

CHUNK_DOCUMENTS = 256  # tokenised together: enough for the tokenizer's threads
CHUNK_CHARACTERS = 1 << 20  # or fewer documents, if they are long


class TokenChunk(NamedTuple):
    """D documents of one window as tokens, each followed by the end token."""

    window: Position
    documents_before: int  # documents of this epoch in earlier windows
    documents: np.ndarray  # (D,) int64: index of each in its shuffled window
    ids: np.ndarray  # (D,) int64
    lengths: np.ndarray  # (D,) int64
    tokens: np.ndarray  # (sum of lengths,) int32
    bytes: int  # of the text

    def cursors(self) -> list[DocumentCursor]:
        return [DocumentCursor(self.window, self.documents_before, int(index)) for index in self.documents]


class DocumentEncoder(Protocol):
    """A tokenizer, or a cache in front of one."""

    def encode_documents(self, texts: Sequence[str]) -> list[np.ndarray]: ...


class ChunkSource(Protocol):
    """The tokens of an epoch, from any document on."""

    @property
    def skipped_records(self) -> int: ...

    def __call__(self, epoch: int, start: DocumentCursor) -> Generator[TokenChunk, None, None]: ...


@dataclass(frozen=True)
class TokenStream:
    """The documents of a source, shuffled and tokenised.

    Args:
        end_id: the token after every document.
        limit: maximum number of documents of an epoch.
        chosen: ids of the documents to be read, ascending; None for all.
    """

    source: DocumentSource
    encoder: DocumentEncoder
    end_id: int
    seed: int
    limit: int | None = None
    chosen: np.ndarray | None = None

    @property
    def skipped_records(self) -> int:
        return self.source.skipped_records

    def windows(self, epoch: int, start: DocumentCursor) -> Iterator[tuple[Window, int]]:
        """The windows of an epoch, each with the index of the first document in it to be read."""
        for window in shuffled_windows(
            self.source,
            self.seed,
            epoch,
            start.window,
            start.documents_before,
            limit=self.limit,
            chosen=self.chosen,
        ):
            yield window, start.document if window.position == start.window else 0

    def __call__(self, epoch: int, start: DocumentCursor) -> Generator[TokenChunk, None, None]:
        for window, first in self.windows(epoch, start):
            yield from tokenize(window, self.encoder, self.end_id, first)


def tokenize(window: Window, encoder: DocumentEncoder, end_id: int, first: int = 0) -> Iterator[TokenChunk]:
    """The chunks of a window, from the document with index `first` on."""
    for begin, end in _chunk_bounds(window.documents, first):
        documents = window.documents[begin:end]
        texts = [document.text for document in documents]
        encoded = encoder.encode_documents(texts)
        end_token = np.array([end_id], np.int32)
        yield TokenChunk(
            window.position,
            window.documents_before,
            np.arange(begin, end),
            np.array([document.id for document in documents], np.int64),
            np.array([len(ids) + 1 for ids in encoded], np.int64),
            np.concatenate([piece for ids in encoded for piece in (ids, end_token)]),
            sum(len(text.encode()) for text in texts),
        )


def _chunk_bounds(documents: Sequence[Document], first: int) -> Iterator[tuple[int, int]]:
    """Ranges of indices such that no chunk has too many documents or characters."""
    begin, characters = first, 0
    for index in range(first, len(documents)):
        characters += len(documents[index].text)
        end = index + 1
        if end == len(documents) or end - begin == CHUNK_DOCUMENTS or characters >= CHUNK_CHARACTERS:
            yield begin, end
            begin, characters = end, 0
