"""The text of a run: what is trained on and what is validated on, without a document in common."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Annotated

import numpy as np

from mlxlab.constraints import Count, Ge, Lt, MaxLen, MinLen
from mlxlab.data.batch import check_position
from mlxlab.data.rng import counter_hash
from mlxlab.data.text.documents import Document, DocumentSource, Position, Windows, hold_out
from mlxlab.errors import ConfigError, DataError

MEAN_CHARACTERS = 1024  # of a document, for the size of windows
MAX_RATIO = 1e6  # of weights: an epoch lasts until the source of the smallest weight was read once
MAX_PASSES = 2**20  # over a source in an epoch

# (completed passes, position of the window, documents drawn from it, characters still due)
ReaderPosition = tuple[Annotated[int, Ge(0), Lt(MAX_PASSES)], object, Count, int]


# Makes one source of several; called with their names and weights, and the size of a window.
Mix = Callable[[Sequence[DocumentSource], Mapping[str, float], int], DocumentSource]


def mix_by_weight(
    sources: Sequence[DocumentSource], weights: Mapping[str, float], window: int
) -> DocumentSource:
    if len(sources) == 1:
        return sources[0]
    return Mixture(sources, list(weights.values()), window)


def open_corpus(
    sources: Mapping[str, float],
    split: str | None,
    valid_source: str | None,
    valid_split: str | None,
    valid_fraction: float,
    window: int,
    open_source: Callable[[str, str | None], DocumentSource],
    mix: Mix = mix_by_weight,
) -> tuple[DocumentSource, DocumentSource, list[str]]:
    """Opens training and validation text; also returns lines for the log.

    Where neither `valid_source` nor `valid_split` is given, the split `validation` of a Hugging
    Face data set that has one is taken, or else documents of the training source are held out.

    Args:
        sources: names with their weights.
        split: of the sources, to train on.
        open_source: opens a split of a source; what it raises is passed on.
        mix: makes one source of all.
    """
    first = next(iter(sources))
    opened = [open_source(source, split) for source in sources]
    train = mix(opened, sources, window)
    lines, valid = [f"{train.name}: {_size(train)}"], None
    if valid_source is not None or valid_split is not None:
        valid = open_source(valid_source or first, valid_split)
    elif len(sources) == 1:
        with suppress(ConfigError):  # it has no such split, as local files
            valid = open_source(first, "validation")
    if valid is None:
        train, valid, line = hold_out(train, valid_fraction)
        return train, valid, [*lines, line]
    lines.append(f"{valid.name}: {_size(valid)}, for validation")
    if valid.fingerprint == train.fingerprint:
        lines.append(f"{valid.name}: warning: validation uses the training text")
    return train, valid, lines


def _size(source: DocumentSource) -> str:
    return (
        "text of unknown size" if source.bytes is None else f"{source.bytes / 1e6:.1f} MB of text"
    )


class Mixture:
    """Several sources by weight: every window holds text of all of them in proportion to their weights.

    An epoch ends when each source was read at least once; sources that end earlier are read again in another order. A
    source whose weight is small for its size makes epochs long: limit such runs by steps or tokens.

    Args:
        weights: relative shares of the sources in the characters, each more than 0. Raises ConfigError if they differ
            by more than a factor of a million.
        window: approximate number of documents in a window, at 1,024 characters each.
    """

    def __init__(
        self, sources: Sequence[DocumentSource], weights: Sequence[float], window: int
    ) -> None:
        if not max(weights) / MAX_RATIO <= min(weights):
            raise ConfigError(
                f"data.mixture: expected weights within a factor of {MAX_RATIO:g} of each other,"
                f" got {min(weights):g} and {max(weights):g}"
            )
        self.sources = sources
        relative = np.array(weights, float) / max(
            weights
        )  # the sum of large weights could overflow
        self.shares = relative / relative.sum()
        self.window_sizes = [
            max(round(share * window * MEAN_CHARACTERS), 1) for share in self.shares
        ]
        self.name = " + ".join(
            f"{share:.3g} {source.name}" for share, source in zip(self.shares, sources, strict=True)
        )
        terms = [
            f"{weight!r} {source.fingerprint}"
            for weight, source in zip(weights, sources, strict=True)
        ]
        self.fingerprint = f"{' + '.join(terms)}:{window}"
        totals = [
            source.bytes / share
            for source, share in zip(sources, self.shares, strict=True)
            if source.bytes
        ]
        self.bytes = round(max(totals)) if len(totals) == len(sources) else None

    @property
    def skipped_records(self) -> int:
        return sum(source.skipped_records for source in self.sources)

    def windows(self, seed: int, epoch: int, position: Position = None) -> Windows:
        """See `DocumentSource`. A position is a list with the `ReaderPosition` of each source."""
        count = len(self.sources)
        shape = Annotated[list[ReaderPosition], MinLen(count), MaxLen(count)]
        starts = check_position([[0, None, 0, 0]] * count if position is None else position, shape)
        readers = [
            SourceReader(source, number, seed, epoch, start)
            for number, (source, start) in enumerate(zip(self.sources, starts, strict=True))
        ]
        while any(reader.completed_passes == 0 for reader in readers):
            start = [reader.position for reader in readers]
            sized = zip(readers, self.window_sizes, strict=True)
            yield start, [document for reader, size in sized for document in reader.take(size)]


class SourceReader:
    """Reads one source repeatedly, each pass in another order."""

    def __init__(
        self, source: DocumentSource, number: int, seed: int, epoch: int, start: ReaderPosition
    ) -> None:
        self.source, self.number, self.seed, self.first_pass = (
            source,
            number,
            seed,
            epoch * MAX_PASSES,
        )
        self.completed_passes, self.window, num_drawn, self.due = start
        self.windows = self._windows()
        self._next_window()
        self.num_drawn = num_drawn
        if num_drawn >= len(self.documents):
            raise DataError(
                f"the saved position is malformed: document {num_drawn} of {len(self.documents)}"
            )

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
        ids = counter_hash(
            self.number, np.array([document.id for document in documents], np.int64)
        ) >> np.uint64(1)
        return [
            Document(int(number), document.text)
            for number, document in zip(ids, documents, strict=False)
        ]

    def _windows(self) -> Windows:
        while True:
            yield from self.source.windows(
                self.seed, self.first_pass + self.completed_passes, self.window
            )
            self.completed_passes, self.window = self.completed_passes + 1, None

    def _next_window(self) -> None:
        self.window, self.documents = next(self.windows)
        self.num_drawn = 0
