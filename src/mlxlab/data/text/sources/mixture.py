"""Several sources as one, each with its share of the text.

Every window holds text of all sources by their weights, so they mix as finely as one source does. An epoch ends when
each source was read to its end at least once; those that end before begin again, in another order. So no text is lost,
and a source whose weight is small for its size makes epochs long: end such runs by steps or tokens.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated

import numpy as np

from mlxlab.constraints import Count, Ge, Lt
from mlxlab.data.rng import counter_hash
from mlxlab.data.text.document import Document, DocumentSource, Position
from mlxlab.errors import ConfigError, DataError
from mlxlab.files.shape import ShapeError, validate

ABOUT = 1024
MAX_RATIO = 1e6  # between weights: an epoch lasts until the source of the smallest weight was read once
PASSES = 2**20  # of a source in an epoch, at most

# (passes before this one, position of the window, documents used of it, characters still due)
ReaderPosition = tuple[Annotated[int, Ge(0), Lt(PASSES)], object, Count, int]


class Mixture:
    """A source made of others.

    Args:
        sources: what is mixed.
        weights: share of each in the characters, in any unit.
        window: documents of a window, about, at 1,024 characters each.
    """

    def __init__(self, sources: Sequence[DocumentSource], weights: Sequence[float], window: int = 4000) -> None:
        if len(sources) != len(weights) or not sources or min(weights) <= 0:
            raise ValueError(f"expected a positive weight for each of {len(sources)} sources, got {list(weights)}")
        if not max(weights) / MAX_RATIO <= min(weights):
            raise ConfigError(
                f"data.mixture: expected weights within a factor of {MAX_RATIO:g} of each other,"
                f" got {min(weights):g} and {max(weights):g}"
            )
        self.sources = sources
        relative = np.array(weights, float) / max(weights)  # the sum of large weights could overflow
        self.shares = relative / relative.sum() if max(weights) > MAX_RATIO else np.array(weights, float) / sum(weights)
        self.sizes = [max(round(share * window * ABOUT), 1) for share in self.shares]
        self.name = " + ".join(f"{share:.3g} {source.name}" for share, source in zip(self.shares, sources, strict=True))
        parts = [f"{weight!r} {source.fingerprint}" for weight, source in zip(weights, sources, strict=True)]
        self.fingerprint = f"{' + '.join(parts)}:{window}"
        sizes = [source.bytes for source in sources]
        known = [size / share for size, share in zip(sizes, self.shares, strict=True) if size is not None]
        self.bytes = round(max(known)) if len(known) == len(sizes) else None

    @property
    def skipped_records(self) -> int:
        return sum(source.skipped_records for source in self.sources)

    def windows(self, seed: int, epoch: int, position: Position = None) -> Iterator[tuple[Position, list[Document]]]:
        """See `Source`. A place is [pass, place of its window, documents of it before, characters due] a source."""
        positions = [None] * len(self.sources) if position is None else _check(position, len(self.sources))
        readers = [_Reader(source, number, seed, epoch) for number, source in enumerate(self.sources)]
        for reader, begin in zip(readers, positions, strict=True):
            reader.seek(begin)
        while any(reader.passed == 0 for reader in readers):
            here = [reader.position() for reader in readers]
            yield here, [one for reader, size in zip(readers, self.sizes, strict=True) for one in reader.take(size)]


class _Reader:
    """Reads one source over and over, each time in another order. After its last document `passed` counts one more."""

    def __init__(self, source: DocumentSource, number: int, seed: int, epoch: int) -> None:
        self.source, self.number, self.seed, self.epoch = source, number, seed, epoch
        self.passed, self.taken, self.due = 0, 0, 0

    def position(self) -> list[Position]:
        return [self.passed, self.window, self.taken, self.due]

    def seek(self, position: ReaderPosition | None) -> None:
        """Begins at a position, None for the start."""
        window = None
        if position is not None:
            self.passed, window, self.taken, self.due = position
        self._begin(window)
        if self.taken >= len(self.documents):
            raise DataError(
                f"the saved position is malformed: document {self.taken} of a window of {len(self.documents)}"
            )

    def take(self, size: int) -> list[Document]:
        """Documents of `size` characters and those still due; what is taken too much is owed."""
        taken: list[Document] = []
        self.due += size
        while self.due > 0:
            document = self.documents[self.taken]
            self.taken += 1
            self.due -= len(document.text)
            if self.taken == len(self.documents):
                self._next()
            taken.append(document)
        ids = counter_hash(self.number, np.array([document.id for document in taken], np.int64)) >> np.uint64(1)
        return [Document(int(number), document.text) for number, document in zip(ids, taken, strict=False)]

    def _begin(self, window: Position) -> None:
        self.windows = self.source.windows(self.seed, self.epoch * PASSES + self.passed, window)
        self.window, self.documents = next(self.windows)

    def _next(self) -> None:
        self.taken = 0
        following = next(self.windows, None)
        if following is None:
            self.passed += 1
            self._begin(None)
        else:
            self.window, self.documents = following


def _check(position: Position, count: int) -> list[ReaderPosition]:
    try:
        positions: list[ReaderPosition] = validate(position, list[ReaderPosition])
    except ShapeError as error:
        raise DataError(f"the saved position is malformed: {error}") from None
    if len(positions) != count:
        raise DataError(f"the saved position is malformed: expected one of {count} sources, got {len(positions)}")
    return positions
