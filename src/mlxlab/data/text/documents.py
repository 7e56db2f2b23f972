"""Documents of a source in windows: an order that is a function of (seed, epoch), from any window on.

The units of a source are permuted in every epoch. A window is the next documents across units; its
position says in which block it begins and at which row from there, so that seeking parses nothing that
precedes.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Annotated, Any, NamedTuple, Protocol, TypeVar

import numpy as np
import xxhash

from mlxlab.data.batch import check_position
from mlxlab.data.rng import Stream, permutation
from mlxlab.data.sources.block import (
    FIRST,
    UNIT_BITS,
    Block,
    ErrorBudget,
    OnBadCell,
    OnError,
    Source,
)
from mlxlab.data.sources.messages import require_columns
from mlxlab.data.sources.open import Reading, open_source
from mlxlab.errors import DataError
from mlxlab.schema.constraints import Count, Ge, Lt

MEAN_CHARACTERS = 4096  # A window of longer documents holds fewer.
HASH_RANGE = 2**32
MAX_SEARCHED = 2**25  # bytes of a source that may have no document to hold out

T = TypeVar("T")
Position = object  # JSON that a source understands: where a window begins


class Document(NamedTuple):
    """A text and its number."""

    id: int  # constant over epochs, unique in its source (in mixtures up to collisions of hashes)
    text: str


Windows = Iterator[tuple[Position, list[Document]]]
ReadTexts = Callable[[Block, OnBadCell], Sequence[str | None]]  # the text of each row of a block


class DocumentSource(Protocol):
    """Documents in windows, each small enough to be held in memory and shuffled there.

    Documents that are empty or only white space are left out, and are not counted as malformed.
    """

    name: str
    fingerprint: str  # covers the content, and all settings on which the windows depend
    bytes: int | None  # size of all the text in UTF-8, exact or estimated; None if unknown

    @property
    def skipped_records(self) -> int:
        """Malformed records that were left out, each counted once."""

    def windows(self, seed: int, epoch: int, position: Position = None) -> Windows:
        """The windows of an epoch, in that epoch's order, from `position` on (None is the first).

        Yields each window's own position and its documents, at least one. Seeking does not replay
        earlier windows. Raises DataError for malformed text, data that changed during the run, an
        invalid position, or no document at all.
        """


def texts_of(source: DocumentSource) -> Iterator[str]:
    """The texts of the first epoch."""
    for _, documents in source.windows(0, 0):
        for document in documents:
            yield document.text


@dataclass
class Documents:
    """The texts of the rows of a source. Implements `DocumentSource`.

    Args:
        columns: that `read_texts` needs; None for all.
        window: documents that are held in memory and shuffled together; fewer if they are long.
        settings: that `read_texts` depends on.
    """

    source: Source
    columns: Sequence[str] | None
    read_texts: ReadTexts
    window: int
    errors: ErrorBudget
    bytes: int | None
    settings: str = ""

    def __post_init__(self) -> None:
        self.name = self.source.name
        existing = self.source.columns()
        if existing:  # Plain text has none: its documents are in whatever column is read.
            require_columns(self.columns or (), existing, self.name)
        key = self.source.fingerprint
        self.fingerprint = f"{key}:{self.columns},{self.window}{self.settings}"

    @property
    def skipped_records(self) -> int:
        return self.errors.skipped

    def windows(self, seed: int, epoch: int, position: Position = None) -> Windows:
        """See `DocumentSource`. A position is [unit in the epoch's order, block (2), row from there]."""
        first = [0, *FIRST, 0]
        order = permutation(self.source.units, seed, Stream.UNIT_ORDER, epoch).tolist()
        start = first if position is None else position
        index = Annotated[int, Ge(0), Lt(len(order))]
        check_position(start, tuple[index, Count, Count, Count])
        max_characters = self.window * MEAN_CHARACTERS
        for window in group_documents(self._read(order, start), self.window, max_characters):
            yield start, [document for _, document in window]
            start, _ = window[-1]
        if start == first:
            raise DataError(f"{self.name}: contains no text, only empty records")
        self.errors.check()

    def skip(self, number: int, error: ValueError) -> None:
        """Counts the document of this id as malformed; raises DataError if none may be."""
        unit, row = divmod(number, 1 << UNIT_BITS)
        self.errors.skip((unit, row), lambda: f"{self.source.location(unit, row)}: {error}")

    def _read(self, order: list[int], start: Any) -> Iterator[tuple[list[int], Document]]:
        """The documents from a position on, each with the position after it."""
        first, byte, lines, row = start
        block_start = (byte, lines)
        for index in range(first, len(order)):
            for block in self.source.blocks(order[index], block_start, self.columns):
                self.errors.valid += len(block)
                for number, document in enumerate(self._documents(order[index], block)):
                    if number >= row and document.text and not document.text.isspace():
                        yield [index, *block.start, number + 1], document
                row = max(row - len(block), 0)  # After a seek, blocks may be divided otherwise.
            block_start = FIRST

    def _documents(self, unit: int, block: Block) -> Iterable[Document]:
        """One of each row, without text if it is malformed."""
        ids = (block.numbers | unit << UNIT_BITS).tolist()
        texts = self.read_texts(block, lambda row, error: self.skip(ids[row], error))
        return map(Document, ids, (text or "" for text in texts))


def group_documents(
    documents: Iterable[tuple[T, Document]], max_documents: int, max_characters: int
) -> Iterator[list[tuple[T, Document]]]:
    """Documents, each with something of its own, in groups that end once they reach a limit."""
    group = []
    characters = 0
    for own, document in documents:
        group.append((own, document))
        characters += len(document.text)
        if len(group) >= max_documents or characters >= max_characters:
            yield group
            group = []
            characters = 0
    if group:
        yield group


def open_documents(
    source: str,
    split: str | None,
    reading: Reading,
    text_column: str,
    on_error: OnError,
    window: int,
) -> Documents:
    """The texts in a column of what `source` names. Raises as `open_source`, and for another column.

    Args:
        split: as `Reading.split`, which it replaces.
    """
    errors = ErrorBudget(on_error)
    reading = replace(reading, split=split)
    opened = open_source(source, reading, errors)

    return Documents(
        opened,
        [text_column],
        lambda block, on_bad_cell: block.strings(text_column, on_bad_cell),
        window,
        errors,
        opened.text_bytes(text_column),
    )


@dataclass
class HoldoutSplit:
    """The training or the validation documents of a source, by a hash of their text.

    A document and all its copies are on the same side in every epoch, whatever is added to the
    source: training and validation share no text. Implements `DocumentSource`.

    Args:
        fraction: approximate fraction of the documents that is held out.
        is_held_out: whether these are the held-out documents, or the others.
        limit: documents with a lower hash are held out.
    """

    source: DocumentSource
    fraction: float
    is_held_out: bool
    limit: int

    def __post_init__(self) -> None:
        self.name = self.source.name
        self.fingerprint = f"{self.source.fingerprint}|{self.is_held_out} {self.fraction:g}"
        share = self.fraction if self.is_held_out else 1 - self.fraction
        self.bytes = None if self.source.bytes is None else round(self.source.bytes * share)

    @property
    def skipped_records(self) -> int:
        return self.source.skipped_records

    def windows(self, seed: int, epoch: int, position: Position = None) -> Windows:
        """See `DocumentSource`. Positions are those of the source."""
        is_empty = position is None
        for start, documents in self.source.windows(seed, epoch, position):
            is_selected = (hashes(documents) < self.limit) == self.is_held_out
            if is_selected.any():
                is_empty = False
                yield start, list(compress(documents, is_selected))
        if is_empty:
            fault = f"data.valid_fraction={self.fraction:g} leaves none on one side"
            raise DataError(f"{self.name}: {fault}")


def hold_out(source: DocumentSource, fraction: float) -> tuple[HoldoutSplit, HoldoutSplit]:
    """The training and the validation documents of a source.

    A small source, a fraction of which may be no document at all, is searched until one is found; of
    one without any the document with the lowest hash is held out.

    Raises DataError for a source of one document, or a malformed one.
    """
    limit = round(fraction * HASH_RANGE)
    if source.bytes is not None and source.bytes <= MAX_SEARCHED:
        lowest: list[int] = []
        for _, documents in source.windows(0, 0):
            lowest = sorted({*lowest, *hashes(documents).tolist()})[:2]
            if lowest[0] < limit:
                break
        if lowest[0] >= limit and len(lowest) < 2:
            raise DataError(f"{source.name}: expected two different texts or more, got one")
        limit = max(limit, lowest[0] + 1)
    train = HoldoutSplit(source, fraction, False, limit)
    valid = HoldoutSplit(source, fraction, True, limit)
    return train, valid


def hashes(documents: list[Document]) -> np.ndarray:
    """Hashes of their texts, (N,) in [0, HASH_RANGE)."""
    digests = [xxhash.xxh3_64_intdigest(document.text.encode()) for document in documents]
    return np.array(digests, np.uint64) >> np.uint64(32)
