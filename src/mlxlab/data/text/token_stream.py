"""Documents as tokens, just in time: read a window, tokenise a part of it, hand it on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from mlxlab.data.text.document import Document, DocumentSource
from mlxlab.data.text.window_shuffle import Window, shuffled_windows

DOCUMENTS = 256  # tokenised at once: enough for the tokenizer's threads
CHARACTERS = 1 << 20  # or fewer of them, if they are long


class TokenChunk(NamedTuple):
    """D documents of one window as tokens, each followed by the end token."""

    window: Any  # the place of the window
    before: int  # documents of this epoch in the windows before it
    documents: np.ndarray  # (D,) int64: the number of each in its window
    ids: np.ndarray  # (D,) int64
    lengths: np.ndarray  # (D,) int64
    tokens: np.ndarray  # (sum of lengths,) int32
    bytes: int  # of the text


class Cursor(NamedTuple):
    """The document of an epoch to begin with."""

    window: Any = None  # None is the first
    before: int = 0
    document: int = 0


class Encoder(Protocol):
    """A tokenizer, or something in front of it."""

    def encode_documents(self, texts: Sequence[str]) -> list[np.ndarray]: ...


class ChunkIterator(Protocol):
    """Something that tells the tokens of an epoch from any place on."""

    @property
    def skipped(self) -> int: ...

    def __call__(self, epoch: int, place: Cursor) -> Iterator[TokenChunk]: ...


@dataclass(frozen=True)
class TokenStream:
    """The documents of a source, shuffled and tokenised.

    Args:
        end_id: stands after every document.
        limit: documents of an epoch at most.
        chosen: ids of the documents to be read, ascending; None for all.
    """

    source: DocumentSource
    encoder: Encoder
    end_id: int
    seed: int
    limit: int | None = None
    chosen: np.ndarray | None = None

    @property
    def skipped(self) -> int:
        return self.source.skipped

    def windows(self, epoch: int, place: Cursor) -> Iterator[tuple[Window, int]]:
        """The windows of an epoch, each with the number of the first document in it to be read."""
        for window in shuffled_windows(
            self.source, self.seed, epoch, place.window, place.before, limit=self.limit, chosen=self.chosen
        ):
            yield window, place.document if window.place == place.window else 0

    def __call__(self, epoch: int, place: Cursor) -> Iterator[TokenChunk]:
        for window, first in self.windows(epoch, place):
            yield from tokenize(window, self.encoder, self.end_id, first)


def tokenize(window: Window, encoder: Encoder, end_id: int, first: int = 0) -> Iterator[TokenChunk]:
    """The chunks of a window from document number `first` on."""
    for begin, end in _parts(window.documents, first):
        some = window.documents[begin:end]
        texts = [document.text for document in some]
        encoded = encoder.encode_documents(texts)
        ending = np.array([end_id], np.int32)
        yield TokenChunk(
            window.place,
            window.before,
            np.arange(begin, end),
            np.array([document.id for document in some], np.int64),
            np.array([len(ids) + 1 for ids in encoded], np.int64),
            np.concatenate([part for ids in encoded for part in (ids, ending)]),
            sum(len(text.encode()) for text in texts),
        )


def _parts(documents: Sequence[Document], first: int) -> Iterator[tuple[int, int]]:
    """Where to cut, so that no part has too many documents or characters."""
    begin, characters = first, 0
    for number in range(first, len(documents)):
        characters += len(documents[number].text)
        if number + 1 == len(documents) or number + 1 - begin == DOCUMENTS or characters >= CHARACTERS:
            yield begin, number + 1
            begin, characters = number + 1, 0
