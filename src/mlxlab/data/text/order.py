"""The order of documents and rows: the interface of `data/order`, its default, and mixtures of sources."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import Annotated, NamedTuple

import numpy as np

from mlxlab.data.batch import check_position
from mlxlab.data.dataset import MIN_STEPS
from mlxlab.data.rng import counter_hash
from mlxlab.data.text.batches import RowOrder
from mlxlab.data.text.documents import Document, DocumentSource, Position, Windows
from mlxlab.data.text.packing import EPOCH_START, RowLayout, TokenStream, ids_of
from mlxlab.errors import DataError
from mlxlab.schema.constraints import Count, Ge, Lt, MaxLen, MinLen


class TokenCounts(NamedTuple):
    """Occurrences of each token, (V,) int64."""

    counts: np.ndarray
    exact: bool  # false: of a sample of the corpus


class DataOrder:
    """A random order of documents and rows, another one in each epoch.

    Subclasses override what they arrange; the rest is random.

    Attributes:
        min_steps: optimizer steps of a run with `trainer.epochs=auto`, if its epochs are short.
    """

    min_steps = MIN_STEPS

    def mix(
        self, sources: Sequence[DocumentSource], weights: Mapping[str, float], window: int
    ) -> DocumentSource:
        """One source of all, whose names and weights are those of `data.mixture`.

        Raises ConfigError if the order does not fit them.
        """
        return Mixture(sources, list(weights.values()), window) if len(sources) > 1 else sources[0]

    def rows_per_epoch(self, rows: int) -> int:
        """How many of `rows` rows of text are served."""
        return rows

    def identity(self) -> dict[str, object]:
        """What the rows depend on apart from the text, as JSON for the fingerprint of the data."""
        return {}

    def arrange_rows(
        self,
        count_tokens: Callable[[], TokenCounts],
        layout: RowLayout,
        row_buffer: int,
        seed: int,
        steps: int | None,
    ) -> RowOrder:
        """The order of packed rows in a run of `steps`, None if that is unknown.

        Args:
            count_tokens: counts the tokens of the training text.
        """
        return RowOrder(row_buffer, seed)


MEAN_CHARACTERS = 1024  # Windows are sized for documents of this length.
MAX_PASSES = 2**20  # over a source in an epoch

# (completed passes, position of the window, documents drawn from it, characters still due)
ReaderPosition = tuple[Annotated[int, Ge(0), Lt(MAX_PASSES)], object, Count, int]


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
        names = []
        terms = []
        totals = []
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
            documents = []
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
        documents = []
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


MAX_TOKENS = 20_000_000  # More are not counted: the first ones in a random order are a sample.


def count_tokens(stream: TokenStream, vocab_size: int) -> TokenCounts:
    """The counts of the documents of `stream`; a sample does not depend on its seed."""
    if stream.limit is None:  # Otherwise the seed determines which documents there are.
        stream = replace(stream, seed=0)
    counts = np.zeros(vocab_size, np.int64)
    for chunk in stream(0, EPOCH_START):
        if counts.sum() >= MAX_TOKENS:
            return TokenCounts(counts, exact=False)
        tokens = np.concatenate([document.tokens for document in chunk])
        counts += np.bincount(tokens, minlength=vocab_size)
    return TokenCounts(counts, exact=True)
