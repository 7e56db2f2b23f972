"""Prepares the rows of a labelled data set: leaves out what cannot be used, splits, and fits types and labels."""

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from mlxlab.data.labelled.labels import (
    LabelKind,
    Labels,
    Targets,
    fit_labels,
    label_kind,
    label_type,
    occurring_labels,
    read_labels,
)
from mlxlab.data.labelled.left_out import Faults
from mlxlab.data.labelled.options import RowOptions, is_free
from mlxlab.data.labelled.rows import Rows, hash_rows
from mlxlab.data.labelled.split import Overlap, describe_overlap, read_times, split_rows
from mlxlab.data.labelled.types import (
    ColumnType,
    Kind,
    Location,
    TypedColumn,
    distinct_texts,
    fit_type,
    shorten,
)
from mlxlab.errors import DataError
from mlxlab.wording import counted

SPLITS = ("training", "validation", "test")


class RowSplit(NamedTuple):
    """Numbers of the rows of each split, ascending, with lines for the log."""

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    lines: list[str]
    left_out: int  # rows that cannot be used


def digest(numbers: np.ndarray) -> str:
    """A hash of integers."""
    return hashlib.sha256(numbers.astype(np.int64).tobytes()).hexdigest()[:32]


@dataclass(frozen=True)
class PreparedRows:
    """The rows of a data set, with all that was fitted on those for training."""

    rows: Rows
    split: RowSplit
    column: TypedColumn  # the labels of all rows
    labels: Labels
    types: dict[str, ColumnType]
    ids: np.ndarray  # (N,) int64: what each row is called in a batch

    @cached_property
    def numbers(self) -> np.ndarray:
        """The numbers of the rows by position: the training rows first."""
        return np.concatenate(self.split[:3])

    @cached_property
    def targets(self) -> Targets:
        """Of the rows by position."""
        return self.labels.encode(self.column.take(self.numbers))


def prepare_rows(
    rows: Rows,
    options: RowOptions,
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
    if ids is None:
        ids = np.arange(len(rows))
    column = _read_label_column(rows, options)
    faults = Faults(rows, options["on_error"], options["max_left_out"])
    faults.add_missing(column, required, options["time_column"])
    first = _usable_rows(faults)[0]
    first_labels = column.take(first)
    kind = label_kind(first_labels, options)
    if kind == "regression":
        faults.add_labels(column, Labels("regression", column.type))
    elif kind == "classification" and options["valid_source"] is None:
        _add_single_rows(faults, first_labels, first)
    faults.check()
    parts = _split(faults, options, column, kind, ids, seed)
    sizes = dict(zip(SPLITS, map(len, parts), strict=True))
    described = ", ".join(counted(size, f"{name} row") for name, size in sizes.items() if size)
    lines = [f"{rows.name}: {described}", *_overlaps(rows, options, columns, parts)]

    types = _fit_types(rows, parts[0], columns, chosen)
    labels = fit_labels(column.take(parts[0]), options, kind)
    faults.add_labels(column, labels)
    faults.add_cells(types)
    lines = [*faults.check(), *lines]
    train, valid, test = (part[faults.usable[part]] for part in parts)
    if not len(valid):
        raise DataError(f"{rows.name}: no validation rows are left")
    split = RowSplit(train, valid, test, lines, faults.num_left_out)
    return PreparedRows(rows, split, column, labels, types, ids)


def _read_label_column(rows: Rows, options: RowOptions) -> TypedColumn:
    """The labels of all rows, by the type of those of the first source."""
    cells = rows.column(options["target"])
    column_type = label_type(cells.slice(0, int(rows.starts[1])), options, rows.location)
    return read_labels(
        options["target"], cells, column_type, options["label_delimiter"], rows.location
    )


def _usable_rows(faults: Faults) -> list[np.ndarray]:
    """The numbers of the usable rows of each source."""
    usable = faults.usable
    spans = itertools.pairwise(faults.rows.starts.tolist())
    return [np.flatnonzero(usable[start:end]) + start for start, end in spans]


def _add_single_rows(faults: Faults, labels: TypedColumn, rows: np.ndarray) -> None:
    """Counts those of these rows whose class has no other row: they cannot be split."""
    single = np.bincount(labels.codes)[labels.codes] == 1
    if single.any():
        is_single = np.zeros(len(faults.rows), bool)
        is_single[rows[single]] = True
        got = f"class {shorten(labels.values[labels.codes[single][0]])} has a single row"
        faults.add(labels.name, f"{got}, expected at least 2 to split them", is_single)


def _split(
    faults: Faults,
    options: RowOptions,
    column: TypedColumn,
    kind: LabelKind,
    ids: np.ndarray,
    seed: int,
) -> list[np.ndarray]:
    """Numbers of the training, validation and test rows."""
    rows = faults.rows
    group_column = options["group_column"]
    time_column = options["time_column"]
    parts = _usable_rows(faults)
    if options["test_source"] is None:
        parts.append(np.zeros(0, np.int64))
    if options["valid_source"] is None:
        first, test = parts
        if len(first) < 2:
            raise DataError(f"{rows.name}: expected at least 2 usable rows, got {len(first)}")
        groups = None
        times = None
        if group_column is not None:
            groups = distinct_texts(rows.column(group_column))[1][first]
        if time_column is not None:
            cells = rows.column(time_column).take(pa.array(first))
            times = read_times(time_column, cells, _locations(rows, first))
        labels = column.take(first)
        strata = _strata(options, labels, kind)
        is_valid = split_rows(options, ids[first], strata, groups, times, seed)
        if is_free(options) and kind != "regression":
            is_valid &= ~_needed_for_training(labels, is_valid, kind, options["label_delimiter"])
        parts = [first[~is_valid], first[is_valid], test]
    if group_column is not None:
        _refuse_shared_groups(rows, group_column, parts)
    return parts


def _strata(options: RowOptions, labels: TypedColumn, kind: LabelKind) -> np.ndarray:
    """What is spread evenly over the splits: the classes, those of few rows together; numbers are one class."""
    if not is_free(options) or kind == "regression":
        return np.zeros(len(labels.codes), np.int64)
    if options["folds"] is not None:
        return labels.codes + 1
    counts = np.bincount(labels.codes)[labels.codes]
    # None of the rows of a small class need validate.
    return np.where(counts * options["valid_fraction"] >= 1, labels.codes + 1, 0)


def _needed_for_training(
    labels: TypedColumn, is_valid: np.ndarray, kind: LabelKind, delimiter: str | None
) -> np.ndarray:
    """(N,) True for the first validation row of each class or label that no training row has."""
    trained = labels.take(np.flatnonzero(~is_valid))
    known = occurring_labels(trained, kind, delimiter)
    needed = np.zeros(len(is_valid), bool)
    for code in np.setdiff1d(labels.codes[is_valid], labels.codes[~is_valid]):
        row = int(np.argmax(labels.codes == code))
        names = occurring_labels(labels.take(np.array([row])), kind, delimiter)
        if not known.issuperset(names):
            needed[row] = True
            known |= names
    return needed


def _shared(keys: np.ndarray, parts: Sequence[np.ndarray]) -> Iterator[tuple[int, int, np.ndarray]]:
    """The pairs of splits some of whose rows have the same key, with True for those of the earlier one."""
    for earlier, later in itertools.combinations(range(len(parts)), 2):
        shared = np.isin(keys[parts[earlier]], keys[parts[later]])
        if shared.any():
            yield earlier, later, shared


def _refuse_shared_groups(rows: Rows, name: str, parts: Sequence[np.ndarray]) -> None:
    _, codes = distinct_texts(rows.column(name))
    grouped = [part[codes[part] >= 0] for part in parts]
    for earlier, later, shared in _shared(codes, grouped):
        where = rows.location(grouped[earlier][np.argmax(shared)])
        sides = f"in {SPLITS[earlier]} and {SPLITS[later]} rows"
        raise DataError(f"{where}: column {name!r}: rows of one group stand {sides}")


def _overlaps(
    rows: Rows, options: RowOptions, columns: Sequence[str], parts: list[np.ndarray]
) -> list[str]:
    """Counts rows of equal content in two splits; drop takes them out of the earlier one, which trains or chooses."""
    blocks = rows.blocks(columns, np.arange(len(rows)))
    hashes = np.concatenate([hash_rows(block) for block in blocks])
    on_overlap = options["on_overlap"]
    lines: list[str] = []
    for earlier, later, shared in _shared(hashes, parts):
        first = rows.location(parts[earlier][np.argmax(shared)])
        is_dropped = on_overlap == "drop"
        overlap = Overlap(int(shared.sum()), SPLITS[earlier], SPLITS[later], is_dropped)
        lines.append(f"{rows.name}: {describe_overlap(overlap, first)}")
        if on_overlap == "error":
            raise DataError(lines[-1])
        if is_dropped:
            parts[earlier] = parts[earlier][~shared]
    return lines


def _fit_types(
    rows: Rows, train: np.ndarray, columns: Sequence[str], chosen: Mapping[str, Kind]
) -> dict[str, ColumnType]:
    """The types of columns by the training rows; a column of chosen texts is not looked at."""
    is_training = np.isin(np.arange(len(rows)), train)
    types = dict.fromkeys(columns, ColumnType("text"))
    for name in columns:
        if chosen.get(name) != "text":
            cells = rows.column(name).filter(pa.array(is_training))
            types[name] = fit_type(name, cells, chosen.get(name), _locations(rows, train))
    return types


def _locations(rows: Rows, numbers: np.ndarray) -> Location:
    """The location of each of these rows, by its index among them."""
    return lambda index: rows.location(int(numbers[index]))
