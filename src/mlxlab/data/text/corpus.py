"""The text of a run: what is trained on and what is validated on, without a document in common."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf
from typing import Annotated

import numpy as np

from mlxlab.data.batch import check_position
from mlxlab.data.rng import counter_hash
from mlxlab.data.text.documents import Document, DocumentSource, Position, Windows, hold_out
from mlxlab.data.text.packing import ids_of
from mlxlab.errors import ConfigError, DataError
from mlxlab.schema.constraints import Count, Ge, Lt, MaxLen, MinLen

MEAN_CHARACTERS = 1024  # Windows are sized for documents of this length.
MAX_PASSES = 2**20  # over a source in an epoch

# (completed passes, position of the window, documents drawn from it, characters still due)
ReaderPosition = tuple[Annotated[int, Ge(0), Lt(MAX_PASSES)], object, Count, int]


def open_validation(
    train: DocumentSource,
    sources: Sequence[str],
    valid_source: str | None,
    valid_split: str | None,
    valid_fraction: float,
    open_source: Callable[[str, str | None], DocumentSource],
) -> tuple[DocumentSource, DocumentSource]:
    """Training and validation text.

    Where neither `valid_source` nor `valid_split` is given, the split `validation` of a Hugging
    Face data set that has one is taken, or else documents of the training source are held out.

    Args:
        sources: what `train` was opened from.
        open_source: opens a split of a source; what it raises is passed on.
    """
    valid = None
    if valid_source is not None or valid_split is not None:
        valid = open_source(valid_source or sources[0], valid_split)
    elif len(sources) == 1:
        with suppress(ConfigError):  # Local files have no such split.
            valid = open_source(sources[0], "validation")
    if valid is None:
        return hold_out(train, valid_fraction)
    return train, valid


class Mixture:
    """Several sources by weight: every window holds text of all of them in proportion to their weights.

    An epoch ends when each source was read at least once; sources that end earlier are read again in
    another order. A source whose weight is small for its size makes epochs long: limit such runs by
    steps or tokens.

    Args:
        weights: relative shares of the sources in the characters, each more than 0.
        window: approximate number of documents in a window, at 1,024 characters each.
    """

    def __init__(
        self, sources: Sequence[DocumentSource], weights: Sequence[float], window: int
    ) -> None:
        relative = np.array(weights, float) / max(weights)  # The sum of large ones could overflow.
        self.sources = sources
        self.shares = relative / relative.sum()
        sizes = np.round(self.shares * window * MEAN_CHARACTERS).astype(int)
        self.window_sizes = np.maximum(sizes, 1).tolist()  # characters
        names: list[str] = []
        terms: list[str] = []
        totals: list[float] = []
        for source, weight, share in zip(sources, weights, self.shares, strict=True):
            names.append(f"{share:.3g} {source.name}")
            terms.append(f"{weight!r} {source.fingerprint}")
            totals.append((source.bytes or inf) / share)
        self.name = " + ".join(names)
        self.fingerprint = f"{' + '.join(terms)}:{window}"
        self.bytes = round(max(totals)) if max(totals) < inf else None

    @property
    def skipped_records(self) -> int:
        return sum(source.skipped_records for source in self.sources)

    def windows(self, seed: int, epoch: int, position: Position = None) -> Windows:
        """See `DocumentSource`. A position is a list with the `ReaderPosition` of each source."""
        readers = open_readers(self.sources, seed, epoch, position)
        while any(reader.completed_passes == 0 for reader in readers):
            position = [reader.position for reader in readers]
            documents: list[Document] = []
            for reader, size in zip(readers, self.window_sizes, strict=True):
                documents += reader.take(size)
            yield position, documents


def open_readers(
    sources: Sequence[DocumentSource], seed: int, epoch: int, position: Position
) -> list["SourceReader"]:
    """A reader of each source from a list of their positions on; None is the start of the epoch."""
    count = len(sources)
    starts = [[0, None, 0, 0]] * count if position is None else position
    shape = Annotated[list[ReaderPosition], MinLen(count), MaxLen(count)]
    readers: list[SourceReader] = []
    for source, start in zip(sources, check_position(starts, shape), strict=True):
        readers.append(SourceReader(source, len(readers), seed, epoch, start))
    return readers


class SourceReader:
    """Reads one source repeatedly, each pass in another order."""

    def __init__(
        self, source: DocumentSource, number: int, seed: int, epoch: int, start: ReaderPosition
    ) -> None:
        self.source = source
        self.number = number
        self.seed = seed
        self.first_pass = epoch * MAX_PASSES
        self.completed_passes, self.window, num_drawn, self.due = start
        self.windows = self._windows()
        self._next_window()
        self.num_drawn = num_drawn
        if num_drawn >= len(self.documents):
            got = f"document {num_drawn} of {len(self.documents)}"
            raise DataError(f"the saved position is malformed: {got}")

    @property
    def position(self) -> list[object]:
        """A `ReaderPosition`, as JSON."""
        return [self.completed_passes, self.window, self.num_drawn, self.due]

    def take(self, size: int) -> list[Document]:
        """Documents of `size` characters plus those still due; any excess is subtracted next time."""
        documents: list[Document] = []
        self.due += size
        while self.due > 0:
            document = self.documents[self.num_drawn]
            documents.append(document)
            self.num_drawn += 1
            self.due -= len(document.text)
            if self.num_drawn == len(self.documents):
                self._next_window()
        ids = counter_hash(self.number, ids_of(documents)) >> np.uint64(1)
        texts = [document.text for document in documents]
        return list(map(Document, ids.tolist(), texts))

    def _windows(self) -> Windows:
        while True:
            order = self.first_pass + self.completed_passes
            yield from self.source.windows(self.seed, order, self.window)
            self.completed_passes += 1
            self.window = None

    def _next_window(self) -> None:
        self.window, self.documents = next(self.windows)
        self.num_drawn = 0
