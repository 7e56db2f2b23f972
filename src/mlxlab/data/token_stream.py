"""Documents as tokens, just in time: read a window, tokenise a part of it, hand it on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from mlxlab.data.documents import Document, Source
from mlxlab.data.tokenizer import Tokenizer
from mlxlab.data.windows import Window, shuffled_windows

DOCUMENTS = 256  # tokenised at once: enough for the tokenizer's threads
CHARACTERS = 1 << 20  # or fewer of them, if they are long


class Chunk(NamedTuple):
    """D documents of one window as tokens, each followed by the end token."""

    window: Any  # the place of the window
    before: int  # documents of this epoch in the windows before it
    documents: np.ndarray  # (D,) int64: the number of each in its window
    ids: np.ndarray  # (D,) int64
    lengths: np.ndarray  # (D,) int64
    tokens: np.ndarray  # (sum of lengths,) int32


class Place(NamedTuple):
    """The document of an epoch to begin with."""

    window: Any = None  # None is the first
    before: int = 0
    document: int = 0


class Chunks(Protocol):
    """Something that tells the tokens of an epoch from any place on."""

    def __call__(self, epoch: int, place: Place) -> Iterator[Chunk]: ...


@dataclass(frozen=True)
class TokenStream:
    """The documents of a source, shuffled and tokenised.

    Args:
        end_id: stands after every document.
        limit: documents of an epoch at most.
    """

    source: Source
    tokenizer: Tokenizer
    end_id: int
    seed: int
    limit: int | None = None

    def __call__(self, epoch: int, place: Place) -> Iterator[Chunk]:
        for window in shuffled_windows(self.source, self.seed, epoch, place.window, place.before, self.limit):
            first = place.document if window.place == place.window else 0
            yield from tokenize(window, self.tokenizer, self.end_id, first)


def tokenize(window: Window, tokenizer: Tokenizer, end_id: int, first: int = 0) -> Iterator[Chunk]:
    """The chunks of a window from document number `first` on."""
    for begin, end in _parts(window.documents, first):
        some = window.documents[begin:end]
        encoded = tokenizer.encode_documents([document.text for document in some])
        ending = np.array([end_id], np.int32)
        yield Chunk(
            window.place,
            window.before,
            np.arange(begin, end),
            np.array([document.id for document in some], np.int64),
            np.array([len(ids) + 1 for ids in encoded], np.int64),
            np.concatenate([part for ids in encoded for part in (ids, ending)]),
        )


def _parts(documents: Sequence[Document], first: int) -> Iterator[tuple[int, int]]:
    """Where to cut, so that no part has too many documents or characters."""
    begin, characters = first, 0
    for number in range(first, len(documents)):
        characters += len(documents[number].text)
        if number + 1 == len(documents) or number + 1 - begin == DOCUMENTS or characters >= CHARACTERS:
            yield begin, number + 1
            begin, characters = number + 1, 0
