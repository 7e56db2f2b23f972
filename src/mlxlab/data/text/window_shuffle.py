"""The exact window shuffle: documents in an order that is a function of (seed, epoch), with nothing lost at a resume.

A source hands out windows of documents, in an order of its own for each epoch. Inside a window the documents are
permuted here. A place is (place of the window, number of the document in the permuted window): to get there, that one
window is taken again, and nothing before it. A buffer that is refilled while it is drawn from has no such places.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from mlxlab.data.rng import counter_hash
from mlxlab.data.text.document import Document, DocumentSource

DOCUMENTS = 0xD0C5  # keeps these draws apart from others of the same seed


class Window(NamedTuple):
    """Documents in the order in which they are read."""

    place: Any  # of the window in its source, as JSON
    before: int  # documents of this epoch in the windows before it
    documents: list[Document]


def shuffled_windows(
    source: DocumentSource,
    seed: int,
    epoch: int,
    place: Any = None,
    before: int = 0,
    *,
    limit: int | None = None,
    chosen: np.ndarray | None = None,
) -> Iterator[Window]:
    """The windows of an epoch from `place` on, each permuted anew in every epoch.

    Args:
        place, before: of the window to begin with; None is the epoch's first.
        limit: documents at most. They are the same ones in every epoch, so their windows come in the same order.
        chosen: ids of the documents to be read, ascending; None for all.
    """
    for here, documents in source.windows(seed, epoch if limit is None else 0, place):
        if chosen is not None:
            documents = [document for document in documents if contains(chosen, document.id)]
        kept = documents if limit is None else documents[: limit - before]
        yield Window(here, before, permute(kept, seed, epoch))
        before += len(kept)
        if limit is not None and before >= limit:
            return


def permute(documents: list[Document], seed: int, epoch: int) -> list[Document]:
    """The documents ordered by a draw for each id."""
    ids = np.array([document.id for document in documents], np.int64)
    order = np.argsort(counter_hash(seed, DOCUMENTS, epoch, ids), kind="stable")
    return [documents[i] for i in order]


def contains(ascending: np.ndarray, value: int) -> bool:
    place = int(np.searchsorted(ascending, value))
    return place < len(ascending) and int(ascending[place]) == value
