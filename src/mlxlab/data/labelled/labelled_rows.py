"""The rows of a labelled data set: read from up to three sources, checked, and split."""

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import xxhash

from mlxlab.data.dataset import Table
from mlxlab.data.labelled.labels import Column
from mlxlab.data.labelled.rows import RowReading, Rows, open_rows
from mlxlab.data.labelled.split import OnOverlap, SplitOptions, parse_times, split_rows
from mlxlab.data.text.document import OnError
from mlxlab.errors import ConfigError, DataError

if TYPE_CHECKING:
    import pyarrow as pa

SPLITS = ("training", "validation", "test")
BLOCK = 2**14  # rows whose cells are Python strings at a time

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RowSources:
    """Where the rows are: `source`, `valid_source`, `test_source`, `reading`, `on_error` are those keys of `data`.

    Args:
        label, group, time: the columns that have these meanings.
        inputs: the columns that the model reads, by the key that names each; None for all others.
    """

    source: str
    valid_source: str | None
    test_source: str | None
    reading: RowReading
    on_error: OnError
    label: str
    label_delimiter: str | None
    group: str | None
    time: str | None
    inputs: Mapping[str, str] | None

    def open(self, cache: Path) -> "LabelledRows":
        """Opens all sources."""
        given = [source for source in (self.source, self.valid_source, self.test_source) if source is not None]
        special = [name for name in (self.label, self.group, self.time) if name is not None]
        columns = None if self.inputs is None else list(dict.fromkeys([*self.inputs.values(), *special]))
        return LabelledRows([open_rows(source, self.reading, cache, self.on_error, columns) for source in given])


class LabelledRows:
    """The rows of several sources, numbered on from one source to the next."""

    def __init__(self, parts: Sequence[Rows]) -> None:
        self.parts, self.name = parts, parts[0].name
        self.starts = np.cumsum([0, *map(len, parts)])
        self.fingerprint = "/".join(part.fingerprint for part in parts)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def column(self, name: str) -> "pa.ChunkedArray":
        import pyarrow as pa

        return pa.chunked_array([chunk for part in self.parts for chunk in part.column(name).chunks])

    def location(self, row: int) -> str:
        part = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.parts[part].location(row - int(self.starts[part]))

    def table(self, columns: Sequence[str], rows: np.ndarray) -> Table:
        """The cells of these rows."""
        part_of = np.searchsorted(self.starts, rows, side="right") - 1
        cells: dict[str, list[str | None]] = {name: [None] * len(rows) for name in columns}
        for number in np.unique(part_of):
            positions = np.flatnonzero(part_of == number)
            local = rows[positions] - self.starts[number]
            for name, column in cells.items():
                found = self.parts[number].cells(name, local)
                for position, cell in zip(positions.tolist(), found, strict=True):
                    column[position] = cell
        return cells

    def blocks(self, columns: Sequence[str], rows: np.ndarray) -> Iterator[Table]:
        """The cells of these rows, a few thousand at a time."""
        for start in range(0, len(rows), BLOCK):
            yield self.table(columns, rows[start : start + BLOCK])

    def mean_bytes(self, columns: Sequence[str]) -> float:
        """Mean size of a row's cells in UTF-8."""
        import pyarrow.compute as pc

        sizes = [pc.sum(pc.binary_length(self.column(name))).as_py() or 0 for name in columns]
        return sum(sizes) / max(len(self), 1)

    def codes(self, name: str) -> Column:
        """A column by its distinct values."""
        import pyarrow as pa
        import pyarrow.compute as pc

        encoded = pc.dictionary_encode(self.column(name)).unify_dictionaries()
        values = encoded.chunk(0).dictionary.to_pylist() if encoded.num_chunks else []
        codes = [pc.fill_null(chunk.indices, -1).to_numpy() for chunk in encoded.chunks]
        assert isinstance(encoded.type, pa.DictionaryType)
        return Column(name, values, np.concatenate([np.zeros(0, np.int64), *codes]), self.location)

    def blank(self, name: str) -> np.ndarray:
        """(N,) True where the cell is missing or only white space."""
        import pyarrow.compute as pc

        trimmed = pc.utf8_trim_whitespace(self.column(name))
        return np.asarray(pc.fill_null(pc.equal(trimmed, ""), True).to_numpy())

    def text_hashes(self, columns: Sequence[str]) -> np.ndarray:
        """(N,) uint64 of the cells of each row."""
        digests = [
            [xxhash.xxh3_64_intdigest("\x1f".join(cell or "" for cell in cells).encode()) for cells in rows]
            for rows in (zip(*table.values(), strict=True) for table in self.blocks(columns, np.arange(len(self))))
        ]
        return np.concatenate([np.zeros(0, np.uint64), *(np.array(block, np.uint64) for block in digests)])


class RowSplit(NamedTuple):
    """Numbers of the rows of each split, ascending, with lines for the log."""

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    lines: list[str]
    is_random: bool  # training and validation rows are of one source

    def digests(self) -> list[str]:
        return [digest(rows) for rows in self[:3]]


def digest(numbers: np.ndarray) -> str:
    """A hash of integers."""
    return hashlib.sha256(numbers.astype(np.int64).tobytes()).hexdigest()[:32]


def split_sources(
    rows: LabelledRows,
    sources: RowSources,
    inputs: Sequence[str],
    required: Sequence[str],
    options: SplitOptions,
    on_overlap: OnOverlap,
    seed: int,
) -> tuple[RowSplit, Column]:
    """Splits the rows; returns the label column too.

    Args:
        inputs: the columns that the model reads, by which rows of two splits count as the same.
        required: those of them that may not be blank.

    Raises:
        DataError: rows without a label or a required text (`on_error` skip leaves them out), or too few to split.
    """
    labels = rows.codes(sources.label)
    if sources.label_delimiter is not None:
        labels = labels.with_empty_cells()
    usable, lines = _usable(rows, labels, required, sources.on_error)
    bounds = [(int(start), int(end)) for start, end in zip(rows.starts[:-1], rows.starts[1:], strict=True)]
    ranges = [np.flatnonzero(usable[start:end]) + start for start, end in bounds]
    empty = np.zeros(0, np.int64)
    test = ranges.pop() if sources.test_source is not None else empty
    if sources.valid_source is not None:
        train, valid, method = ranges[0], ranges[1], str(sources.valid_source)
    else:
        first = ranges[0]
        if len(first) < 2:
            raise DataError(f"{rows.name}: {len(first)} usable rows, expected at least 2 to split them")
        strata = _strata(labels, first, options)
        split = split_rows(options, strata, *_groups_and_times(rows, sources, first), seed)
        train, valid, method = first[split.train], first[split.valid], split.method
    sizes = f"{len(train)} training rows, {len(valid)} validation rows ({method})"
    lines.append(f"{rows.name}: {sizes}" + (f", {len(test)} test rows" if len(test) else ""))
    parts = [train, valid, test]
    if sources.valid_source is not None and sources.group is not None:
        _refuse_shared_groups(rows, sources.group, train, valid)
    parts, overlap = _overlaps(rows, inputs, parts, on_overlap)
    if not (len(parts[0]) and len(parts[1])):
        raise DataError(f"{rows.name}: no training or validation rows are left ({sizes})")
    train, valid, test = parts
    return RowSplit(train, valid, test, [*lines, *overlap], sources.valid_source is None), labels


def _usable(
    rows: LabelledRows, labels: Column, required: Sequence[str], on_error: OnError
) -> tuple[np.ndarray, list[str]]:
    """(N,) True for rows with a label and texts."""
    usable, lines = np.ones(len(rows), bool), []
    for name, blank in [(labels.name, labels.codes < 0), *((name, rows.blank(name)) for name in required)]:
        if not blank.any():
            continue
        where = f"{rows.location(int(np.argmax(blank)))}: column {name!r}"
        kind = "a row without a label" if name == labels.name else "an empty text"
        if on_error == "strict":
            raise DataError(f"{where}: {kind} ({int(blank.sum())} in all; data.on_error=skip leaves them out)")
        lines.append(f"{rows.name}: {int(blank.sum())} rows left out: {kind}, the first at {where}")
        usable &= ~blank
    return usable, lines


def _strata(labels: Column, rows: np.ndarray, options: SplitOptions) -> np.ndarray:
    """Classes to spread evenly over the splits: the values of the labels, unless they are too many to be classes."""
    codes = labels.codes[rows]
    is_split_freely = options.group_column is None and options.time_column is None
    if not is_split_freely or len(np.unique(codes)) > len(rows) // 2:
        return np.zeros(len(rows), np.int64)
    return codes


def _groups_and_times(
    rows: LabelledRows, sources: RowSources, numbers: np.ndarray
) -> tuple[np.ndarray | None, np.ndarray | None]:
    if sources.time is not None:
        column = rows.codes(sources.time).take(numbers)
        if (column.codes < 0).any():
            raise DataError(f"{column.where(-1)}: a row without a time")
        times = parse_times(list(column.values), lambda value: column.where(value))
        return None, times[column.codes]
    if sources.group is not None:
        return rows.codes(sources.group).codes[numbers], None
    return None, None


def _refuse_shared_groups(rows: LabelledRows, name: str, train: np.ndarray, valid: np.ndarray) -> None:
    column = rows.codes(name)
    shared = np.intersect1d(column.codes[train], column.codes[valid])
    if len(shared := shared[shared >= 0]):
        raise DataError(f"{column.where(int(shared[0]))}: {len(shared)} groups stand in both sources")


def _overlaps(
    rows: LabelledRows, inputs: Sequence[str], parts: list[np.ndarray], on_overlap: OnOverlap
) -> tuple[list[np.ndarray], list[str]]:
    """Counts rows of equal content in two splits; drop takes them out of the earlier one, which trains or chooses."""
    hashes, lines = rows.text_hashes(inputs), list[str]()
    for earlier, later in ((0, 1), (0, 2), (1, 2)):
        shared = np.isin(hashes[parts[earlier]], hashes[parts[later]])
        if not (count := int(shared.sum())):
            continue
        first = rows.location(int(parts[earlier][np.argmax(shared)]))
        line = f"{count} rows of {SPLITS[earlier]} have the input of a row of {SPLITS[later]}, the first at {first}"
        if on_overlap == "error":
            raise DataError(f"{rows.name}: {line} (data.on_overlap=drop leaves them out)")
        if on_overlap == "drop":
            parts[earlier] = parts[earlier][~shared]
            line += "; left out"
        else:
            line += "; data.on_overlap=drop leaves them out"
        lines.append(f"{rows.name}: {line}")
    return parts, lines


def reject_shared_columns(keys: Mapping[str, str | None]) -> None:
    """Raises ConfigError if two keys name the same column."""
    seen: dict[str, str] = {}
    for key, name in keys.items():
        if name is not None and name in seen:
            raise ConfigError(f"data.{key}={name}: this column is data.{seen[name]} already")
        if name is not None:
            seen[name] = key
