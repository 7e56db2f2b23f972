"""Window shuffle: documents in an order that is a function of (seed, epoch), with exact resume.

A source yields windows of documents, in another order each epoch. Within a window the documents are permuted here. A
position is (position of the window, index of the document in the permuted window): seeking reads that one window
again, and nothing before it. The usual shuffle buffer, refilled while it is drawn from, has no such positions.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from mlxlab.data.rng import Stream, counter_hash
from mlxlab.data.text.document import Document, DocumentSource, Position


class Window(NamedTuple):
    """Documents in the order in which they are read."""

    position: Position
    documents_before: int  # documents of this epoch in earlier windows
    documents: list[Document]


def shuffled_windows(
    source: DocumentSource,
    seed: int,
    epoch: int,
    position: Position = None,
    documents_before: int = 0,
    *,
    limit: int | None = None,
    chosen: np.ndarray | None = None,
) -> Iterator[Window]:
    """The windows of an epoch from `position` on, permuted differently in every epoch.

    Args:
        position, documents_before: of the window to begin with; None is the epoch's first.
        limit: maximum number of documents. They are the same ones in every epoch, so their windows come in the same
            order.
        chosen: ids of the documents to be read, ascending; None for all.
    """
    for here, documents in source.windows(seed, epoch if limit is None else 0, position):
        if chosen is not None:
            documents = [document for document in documents if contains(chosen, document.id)]
        if limit is not None:
            documents = documents[: limit - documents_before]
        yield Window(here, documents_before, permute(documents, seed, epoch))
        documents_before += len(documents)
        if limit is not None and documents_before >= limit:
            return


def permute(documents: list[Document], seed: int, epoch: int) -> list[Document]:
    """The documents ordered by a draw for each id."""
    ids = np.array([document.id for document in documents], np.int64)
    order = np.argsort(counter_hash(seed, Stream.WINDOW_SHUFFLE, epoch, ids), kind="stable")
    return [documents[i] for i in order]


def contains(ascending: np.ndarray, value: int) -> bool:
    index = int(np.searchsorted(ascending, value))
    return index < len(ascending) and int(ascending[index]) == value
