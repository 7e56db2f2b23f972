"""Prepares the rows of a labelled data set: leaves out what cannot be used, splits, and fits types and labels."""

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from mlxlab.data.labelled.labels import (
    LabelColumn,
    LabelKind,
    LabelOptions,
    Labels,
    fit_labels,
    label_kind,
    label_type,
    read_labels,
    split_labels,
    too_many_classes,
)
from mlxlab.data.labelled.left_out import Faults
from mlxlab.data.labelled.options import LabelledOptions
from mlxlab.data.labelled.rows import Rows, open_rows
from mlxlab.data.labelled.split import (
    Overlap,
    SplitOptions,
    describe_overlap,
    read_times,
    split_rows,
)
from mlxlab.data.labelled.types import (
    ColumnType,
    Kind,
    distinct_texts,
    fit_types,
    shorten,
)
from mlxlab.errors import DataError, UserError
from mlxlab.wording import counted

FEW = 20  # validation rows: the 95 % interval of an accuracy is wider than 0.3
SPLITS = ("training", "validation", "test")


@dataclass(frozen=True)
class Sources:
    """The opened sources of a data set with these options."""

    options: LabelledOptions
    label: LabelOptions
    split: SplitOptions
    rows: Rows


def open_sources(
    options: LabelledOptions, label: LabelOptions, columns: Sequence[str] | None, cache: Path
) -> Sources:
    """Opens all sources.

    Args:
        columns: those to read besides those of `options` and `label`; None is all of the first source.

    Raises:
        InputNotFoundError, DataError, ServiceUnavailableError: a source is missing or malformed, the hub unreachable,
            or a column does not exist.
        ConfigError: keys that split do not go together.
    """
    group = options["group_column"]
    time = options["time_column"]
    split = SplitOptions(
        options["valid_fraction"],
        options["folds"],
        options["fold"],
        options["valid_source"] is not None,
        group,
        time,
    )
    special = [name for name in (label.column, group, time) if name is not None]
    names = None if columns is None else [*columns, *special]
    parts = []
    for path in (options["source"], options["valid_source"], options["test_source"]):
        if path is not None:
            reading = options["reading"]
            on_error = options["on_error"]
            part = open_rows(path, reading, cache, on_error, names, options["max_left_out"])
            parts.append(part)
            names = part.table.column_names[1:]
    return Sources(options, label, split, Rows(parts))


class RowSplit(NamedTuple):
    """Numbers of the rows of each split, ascending, with lines for the log."""

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    lines: list[str]
    left_out: int  # rows that cannot be used

    def digests(self) -> list[str]:
        return [digest(rows) for rows in self[:3]]


def digest(numbers: np.ndarray) -> str:
    """A hash of integers."""
    return hashlib.sha256(numbers.astype(np.int64).tobytes()).hexdigest()[:32]


@dataclass(frozen=True)
class PreparedRows:
    """The rows of a data set, with all that was fitted on those for training."""

    rows: Rows
    split: RowSplit
    column: LabelColumn  # of all rows
    labels: Labels
    types: dict[str, ColumnType]
    ids: np.ndarray  # (N,) int64: what each row is called in a batch


def prepare_rows(
    sources: Sources,
    columns: Sequence[str],
    required: Sequence[str],
    chosen: Mapping[str, Kind],
    seed: int,
    ids: np.ndarray | None = None,
) -> PreparedRows:
    """Splits the rows, and fits types and labels on the training rows.

    Args:
        ids: (N,) what the rows are called, by which they are split; None numbers them.
        columns: those that the model reads; rows of two splits with the same cells in them count as the same.
        required: those of them that may not be blank.
        chosen: `data.types` of the columns; the other types are inferred.

    Raises:
        DataError: rows cannot be used (`on_error` skip leaves them out), or are too few to split.
    """
    rows = sources.rows
    options = sources.options
    if ids is None:
        ids = np.arange(len(rows))
    faults = Faults(rows, options["on_error"], options["max_left_out"])
    column, column_type = _read_label_column(sources, faults, required)
    left_out = faults.check()
    kind = label_kind(column.take(_spans(rows, faults.usable)[0]), column_type, sources.label)
    parts, method = _split(sources, faults, column, kind, ids, seed)
    lines = _describe_sizes(rows, parts, method)
    if sources.split.group_column is not None:
        _refuse_shared_groups(rows, sources.split.group_column, parts)
    lines += _overlaps(sources, columns, parts)

    types = _fit_types(rows, parts[0], columns, chosen)
    labels = fit_labels(column.take(parts[0]), column_type, sources.label, kind)
    faults.add_unknown_labels(column, labels)
    faults.add_unreadable(types)
    left_out = faults.check()
    train, valid, test = (numbers[faults.usable[numbers]] for numbers in parts)
    if not len(valid):
        raise DataError(f"{rows.name}: no validation rows are left ({lines[0]})")
    lines = [each.describe() for each in left_out] + lines
    num_left_out = sum(each.left_out for each in left_out)
    split = RowSplit(train, valid, test, lines, num_left_out)
    return PreparedRows(rows, split, column, labels, types, ids)


def _fit_types(
    rows: Rows, train: np.ndarray, columns: Sequence[str], chosen: Mapping[str, Kind]
) -> dict[str, ColumnType]:
    """The types of columns by the training rows; a column of chosen texts is not looked at."""
    mask = np.zeros(len(rows), bool)
    mask[train] = True
    no_cells = pa.array([], pa.string())
    cells: dict[str, pa.ChunkedArray | pa.Array] = {}
    for name in columns:
        is_text = chosen.get(name) == "text"
        cells[name] = no_cells if is_text else rows.column(name).filter(pa.array(mask))

    def location(row: int) -> str:
        return rows.location(int(train[row]))

    return fit_types(cells, chosen, location)


def _read_label_column(
    sources: Sources, faults: Faults, required: Sequence[str]
) -> tuple[LabelColumn, ColumnType]:
    """The labels of all rows, by the type of those of the first source; counts what cannot be used."""
    rows = sources.rows
    options = sources.label
    cells = rows.column(options.column)
    first = cells.slice(0, int(rows.starts[1]))
    column_type = label_type(first, options, rows.location)
    column = read_labels(options.column, cells, column_type, options.delimiter, rows.location)
    faults.add_missing(column, required, sources.split.time_column)
    with suppress(
        UserError
    ):  # A fault of the labels themselves is raised when the others are mended.
        usable = _spans(rows, faults.usable)[0]
        kind = label_kind(column.take(usable), column_type, options)
        if kind == "regression":
            faults.add_unknown_labels(column, Labels("regression", column_type))
        elif kind == "classification" and sources.options["valid_source"] is None:
            _add_single_rows(column, usable, faults)
    return column, column_type


def _spans(rows: Rows, usable: np.ndarray) -> list[np.ndarray]:
    """The numbers of the usable rows of each source."""
    starts = rows.starts.tolist()
    spans = itertools.pairwise(starts)
    return [np.flatnonzero(usable[start:end]) + start for start, end in spans]


def _add_single_rows(column: LabelColumn, usable: np.ndarray, faults: Faults) -> None:
    """Counts the rows whose class has no other row: they cannot be split."""
    counts = np.bincount(column.codes[usable], minlength=len(column.values))
    if too_many_classes(int((counts > 0).sum()), len(usable)):
        return
    is_single = np.zeros(len(column.codes), bool)
    is_single[usable] = counts[column.codes[usable]] == 1
    single = column.codes[is_single]
    if len(single):
        others = f" (as {len(single) - 1} more)" if len(single) > 1 else ""
        got = f"class {shorten(column.values[single[0]])} has a single row{others}"
        message = f"{got}, expected at least 2 to split them"
        faults.add(column.name, "are the only ones of their class", is_single, message)


def _split(
    sources: Sources,
    faults: Faults,
    column: LabelColumn,
    kind: LabelKind,
    ids: np.ndarray,
    seed: int,
) -> tuple[list[np.ndarray], str]:
    """Numbers of the training, validation and test rows, and how they were found."""
    rows = sources.rows
    spans = _spans(rows, faults.usable)
    test = np.zeros(0, np.int64)
    if sources.options["test_source"] is not None:
        test = spans.pop()
    if sources.options["valid_source"] is not None:
        return [spans[0], spans[1], test], rows.parts[1].source.name

    [first] = spans
    if len(first) < 2:
        expected = "expected at least 2 to split them"
        raise DataError(f"{rows.name}: {counted(len(first), 'usable row')}, {expected}")
    labels = column.take(first)
    groups, times = _groups_and_times(sources, first)
    strata = _strata(sources, labels, kind)
    split = split_rows(sources.split, ids[first], strata, groups, times, seed)
    is_valid = np.zeros(len(first), bool)
    is_valid[split.valid] = True
    if sources.split.is_free and kind != "regression":
        is_valid &= ~_needed_for_training(labels, is_valid, kind, sources.label.delimiter)
    return [first[~is_valid], first[is_valid], test], split.method


def _strata(sources: Sources, labels: LabelColumn, kind: LabelKind) -> np.ndarray:
    """What is spread evenly over the splits: the classes, those of few rows together; numbers are one class."""
    options = sources.split
    if not options.is_free or kind == "regression":
        return np.zeros(len(labels.codes), np.int64)
    _, classes, counts = np.unique(labels.codes, return_inverse=True, return_counts=True)
    if options.folds is not None:
        return classes + 1
    # None of the rows of a small class need validate.
    return np.where(counts[classes] * options.valid_fraction >= 1, classes + 1, 0)


def _needed_for_training(
    labels: LabelColumn, is_valid: np.ndarray, kind: LabelKind, delimiter: str | None
) -> np.ndarray:
    """(N,) True for the first validation row of each class or label that no training row has."""
    trained = np.bincount(labels.codes[~is_valid], minlength=len(labels.values)) > 0
    names = [[value] for value in labels.values]
    if kind == "multi_label":
        names = [split_labels(labels, code, delimiter) for code in range(len(labels.values))]
    known = {name for code in np.flatnonzero(trained) for name in names[code]}
    needed = np.zeros(len(is_valid), bool)
    for code in np.flatnonzero(~trained):
        if not known.issuperset(names[code]):
            needed[np.argmax(labels.codes == code)] = True
            known.update(names[code])
    return needed


def _groups_and_times(
    sources: Sources, numbers: np.ndarray
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The groups and the times of these rows, where they decide."""
    rows = sources.rows

    def location(row: int) -> str:
        return rows.location(int(numbers[row]))

    if (name := sources.split.time_column) is not None:
        return None, read_times(name, rows.column(name).take(numbers), location)
    if (name := sources.split.group_column) is not None:
        _, codes = distinct_texts(rows.column(name))
        return codes[numbers], None
    return None, None


def _refuse_shared_groups(rows: Rows, name: str, parts: Sequence[np.ndarray]) -> None:
    _, codes = distinct_texts(rows.column(name))
    for earlier, later in ((0, 1), (0, 2), (1, 2)):
        shared = np.intersect1d(codes[parts[earlier]], codes[parts[later]])
        shared = shared[shared >= 0]
        if len(shared):
            where = f"{rows.location(int(np.argmax(codes == shared[0])))}: column {name!r}"
            sides = f"in {SPLITS[earlier]} and {SPLITS[later]} rows"
            raise DataError(f"{where}: {len(shared)} groups stand {sides}")


def _overlaps(sources: Sources, columns: Sequence[str], parts: list[np.ndarray]) -> list[str]:
    """Counts rows of equal content in two splits; drop takes them out of the earlier one, which trains or chooses."""
    rows = sources.rows
    on_overlap = sources.options["on_overlap"]
    hashes = rows.text_hashes(columns)
    lines: list[str] = []
    for earlier, later in ((0, 1), (0, 2), (1, 2)):
        shared = np.isin(hashes[parts[earlier]], hashes[parts[later]])
        if not shared.any():
            continue
        first = rows.location(int(parts[earlier][np.argmax(shared)]))
        is_dropped = on_overlap == "drop"
        overlap = Overlap(int(shared.sum()), SPLITS[earlier], SPLITS[later], is_dropped)
        if is_dropped:
            parts[earlier] = parts[earlier][~shared]
        line = f"{rows.name}: {describe_overlap(overlap, first, len(parts[earlier]))}"
        if on_overlap == "error":
            raise DataError(line)
        lines.append(line)
    return lines


def _describe_sizes(rows: Rows, parts: Sequence[np.ndarray], method: str) -> list[str]:
    train, valid, test = map(len, parts)
    sizes = f"{counted(train, 'training row')}, {counted(valid, 'validation row')} ({method})"
    if test:
        sizes += f", {counted(test, 'test row')}"
    lines = [f"{rows.name}: {sizes}"]
    if valid < FEW:
        few = f"only {counted(valid, 'validation row')}: metrics on so few say little"
        lines.append(f"{rows.name}: {few}")
    return lines
